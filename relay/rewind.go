package relay

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// prepareAgain makes cursors of endpoints that the log knew before an epoch began: the
// database may have lost those, too. They begin where the epoch did.
func (r *Relay) prepareAgain(ctx context.Context, base int64) error {
	r.mu.Lock()
	setup := r.setup
	r.mu.Unlock()
	cursors, err := r.log.Cursors(ctx)
	if err != nil {
		return err
	}
	missing := slices.ContainsFunc(setup.Partitions, func(p eventlog.Partition) bool {
		return !slices.ContainsFunc(cursors, func(c eventlog.Cursor) bool { return c.Partition == p })
	})
	if !missing {
		return nil
	}
	setup.Head = base
	return r.log.Prepare(ctx, setup)
}

// noteLoss notes that the database lost the events of a range.
func (r *Relay) noteLoss(ctx context.Context, from, to int64) error {
	at := time.Now()
	if err := r.log.SaveLoss(ctx, from, to, at); err != nil {
		return err
	}
	for _, c := range r.consumers() {
		r.options.Observer.Missed(eventlog.Gap{
			Endpoint: c.endpoint.Name, Index: c.lease().Index, From: from, To: to, At: at, Reason: eventlog.GapLost,
		})
	}
	return nil
}

// rewound ends all consumers after the database lost what they may have read. Others take
// their place, which begin where the log says.
func (r *Relay) rewound() {
	for _, c := range r.consumers() {
		c.ledger.valid()
	}
	give(r.updated)
}

package relay

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

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

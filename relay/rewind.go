package relay

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// prepareAgain creates cursors for endpoints that have none, since the database may
// have lost them. They resume where a predecessor stopped, or start at the base of
// the epoch. Existing cursors stay as they are, because another process may have
// newer settings for them; if replicas have different settings, nothing is created
// until they agree: see [replica.divide]. The returned check ends consumers whose
// writes the database lost, see [Relay.endForgotten].
func (r *Relay) prepareAgain(ctx context.Context, base int64) (check func(), err error) {
	select {
	case r.preparing <- struct{}{}:
		defer func() { <-r.preparing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	setup := r.setupFrom(base)
	cursors, err := r.log.Cursors(ctx)
	if err != nil {
		return nil, err
	}
	check = func() { r.endForgotten(cursors) }
	known := make(map[string]bool, len(cursors))
	for _, c := range cursors {
		known[c.Endpoint] = true
	}
	if !slices.ContainsFunc(setup.Partitions, func(p eventlog.Partition) bool { return !known[p.Endpoint] }) {
		return check, nil
	}
	replicas, err := r.log.Replicas(ctx)
	if err != nil || !agree(replicas, setup.Partitions) {
		return check, err
	}
	return check, r.prepare(ctx, r.Endpoints(), setup, onlyMissing)
}

// setupFrom lowers the starting points in the setup to the base of a new epoch,
// because positions after it now mean other events, and returns the setup.
func (r *Relay) setupFrom(base int64) eventlog.Setup {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setup.Head = base
	start := make(map[string]int64, len(r.setup.Start))
	for name, at := range r.setup.Start {
		start[name] = min(at, base)
	}
	r.setup.Start = start
	return r.setup
}

// onlyMissing returns a setup that only creates the cursors of endpoints that have none
// at all.
func onlyMissing(s eventlog.Setup) eventlog.Setup {
	s.Partitions = slices.DeleteFunc(slices.Clone(s.Partitions), func(p eventlog.Partition) bool {
		_, known := s.Known[p.Endpoint]
		return known
	})
	s.Disabled = slices.Clone(s.Disabled)
	for name, configured := range s.Known {
		if configured {
			s.Disabled = append(s.Disabled, name)
		}
	}
	return s
}

// endForgotten ends consumers whose writes the database lost, as the write counts
// saved with their cursors show: the database may lose the results of events
// without losing the events. Writes that precede a saved cursor are kept if the
// cursor is.
func (r *Relay) endForgotten(cursors []eventlog.Cursor) {
	for _, c := range r.consumers() {
		at := slices.IndexFunc(cursors, func(cursor eventlog.Cursor) bool { return cursor.Same(c.lease()) })
		if at >= 0 && lastSaved(cursors[at]).Writes < c.ledger.writes.Load() {
			c.logger.Warn("the database lost what became of some events, in a failover or since it was restored; " +
				"the endpoint continues from what is left: some events that it received are sent again")
			c.lose()
		}
	}
}

// noteLoss records that the database lost a range of events.
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

// rewound ends all consumers after the database lost events that they may have
// read. New ones replace them and start where the log says.
func (r *Relay) rewound() {
	for _, c := range r.consumers() {
		c.ledger.valid()
	}
	notify(r.updated)
}

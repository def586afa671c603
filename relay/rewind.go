package relay

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// prepareAgain makes cursors of endpoints that have none: the database may have lost those,
// too. They go on where the one stopped whose place they take, or begin where the epoch did.
// Others stay as they are, for another process may know newer settings of them; where one
// has other settings than this one, all do, until they agree: see [replica.divide]. check
// ends consumers that wrote what the database lost, see [Relay.endForgotten].
func (r *Relay) prepareAgain(ctx context.Context, base int64) (check func(), err error) {
	all := r.setupFrom(base)
	cursors, err := r.log.Cursors(ctx)
	if err != nil {
		return nil, err
	}
	check = func() { r.endForgotten(cursors) }
	if len(withoutCursor(all.Partitions, cursors)) > 0 {
		replicas, err := r.log.Replicas(ctx)
		if err != nil || !agree(replicas, all.Partitions) {
			return check, err
		}
		if err := r.succeed(ctx, r.Endpoints(), all); err != nil {
			return nil, err
		}
		if cursors, err = r.log.Cursors(ctx); err != nil {
			return nil, err
		}
	}
	setup := all
	setup.Partitions, setup.Disabled = withoutCursor(all.Partitions, cursors), slices.Clone(all.Disabled)
	for _, c := range cursors {
		if c.Removed.IsZero() && !slices.Contains(setup.Disabled, c.Endpoint) {
			setup.Disabled = append(setup.Disabled, c.Endpoint)
		}
	}
	if len(setup.Partitions) > 0 {
		err = r.log.Prepare(ctx, setup)
	}
	return check, err
}

// setupFrom returns the setup, in which endpoints without a cursor begin at the base of an
// epoch from now on: positions after it mean other events than they did.
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

// withoutCursor returns the partitions of endpoints that have no cursor at all.
func withoutCursor(partitions []eventlog.Partition, cursors []eventlog.Cursor) (missing []eventlog.Partition) {
	known := make(map[string]bool, len(cursors))
	for _, c := range cursors {
		known[c.Endpoint] = true
	}
	for _, p := range partitions {
		if !known[p.Endpoint] {
			missing = append(missing, p)
		}
	}
	return missing
}

// endForgotten ends the consumers whose writes the database lost, as their cursors tell:
// it can lose what became of events, and no event. What was written before a cursor was
// saved is kept if that is.
func (r *Relay) endForgotten(cursors []eventlog.Cursor) {
	for _, c := range r.consumers() {
		at := slices.IndexFunc(cursors, func(cursor eventlog.Cursor) bool { return cursor.Same(c.lease()) })
		if at >= 0 && lastSaved(cursors[at]).Writes < c.ledger.writes.Load() {
			c.logger.Warn("the database lost what became of some events, in a failover or since it was restored; " +
				"the endpoint goes on from what is left: some of what it got comes again")
			c.lose()
		}
	}
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

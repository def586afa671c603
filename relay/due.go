package relay

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// loadDue loads parked events that are due into the order.
func (c *consumer) loadDue(ctx context.Context, now time.Time) {
	if c.health.state == Disabled || !c.roomForDue() {
		return
	}
	rows, found := c.ledger.due(ctx, now, dueRows), false
	for _, r := range rows {
		l := c.order.lanes[r.Event.Resource()]
		switch {
		case l != nil && l.parked:
		case l != nil:
			c.order.Retry(l)
		case c.order.loaded < c.windowLimit:
			found = true
			c.loadLane(ctx, r.Event)
		default:
			c.ledger.dueAt(now) // once there is room
		}
	}
	if len(rows) == dueRows && !found { // all of them are in flight and would only be read again
		c.ledger.nextDue = now.Add(unparkInterval)
	}
}

// roomForDue reports whether more parked events may be loaded. Their limit is the
// same as that of the window.
func (c *consumer) roomForDue() bool {
	return c.order.due.len() < dueRows/2 && c.order.loaded < c.windowLimit
}

// loadLane loads the oldest events of a parked resource. If there are none, it is
// no longer parked.
func (c *consumer) loadLane(ctx context.Context, e tidings.Event) {
	lanes := max(dueRows/2, 2*c.endpoint.MaxInFlight) // this many lanes should fit
	room := max(min(laneRows, c.windowLimit/lanes, c.windowLimit-c.order.loaded), 1)
	page := room
	if c.coalesces() {
		page = max(min(mergePage, c.windowLimit), room)
	}
	var rows []eventlog.Retry
	for more, seen := true, 0; more; {
		found, ok := c.ledger.lane(ctx, e, page)
		if !ok {
			return
		}
		read := len(found)
		seen += read
		rows = c.merge(ctx, c.matching(ctx, found))
		// The next ones may be merged with the last one.
		more = read == page && (len(rows) == 0 || len(rows) < read && len(rows) <= room && seen < mergeRows)
	}
	if len(rows) == 0 {
		c.order.Unpark(e.Resource())
		return
	}
	c.order.AddDue(rows[:min(len(rows), room)])
}

const (
	discardRows = 256
	// discardPause is how long to wait for an attempt of an event that was discarded.
	discardPause = time.Second
)

// dropDiscarded removes events that operators discarded, unless one of their resource
// is in flight, and returns what it has removed. What waited for them becomes due.
func (c *consumer) dropDiscarded(ctx context.Context, now time.Time) (removed map[string]tidings.Event) {
	if c.discards.IsZero() || now.Before(c.discards) {
		return nil
	}
	c.discards = time.Time{}
	rows := c.ledger.discarded(ctx, discardRows)
	removed = make(map[string]tidings.Event)
	for _, r := range rows {
		resource := r.Event.Resource()
		if !c.order.Unload(resource) {
			c.discards = now.Add(discardPause)
			continue
		}
		c.drop(ctx, r.Event, now)
		removed[resource] = r.Event
	}
	if len(rows) == discardRows && len(removed) > 0 { // there may be more
		c.discards = now
	}
	for resource, e := range removed {
		next, ok := c.ledger.lane(ctx, e, 1)
		switch {
		case !ok:
			return nil
		case len(next) == 0:
			c.order.Unpark(resource)
		case next[0].Next.IsZero():
			next[0].Next = now
			c.ledger.park(ctx, next)
		default:
			c.ledger.dueAt(next[0].Next)
		}
	}
	return removed
}

// drop settles a parked event without sending it.
func (c *consumer) drop(ctx context.Context, e tidings.Event, now time.Time) {
	c.ledger.unpark(ctx, now, e.Sequence)
	if e.Sequence > c.order.window.read { // it will be read from the log again
		c.order.SettleBeyond(e.Sequence)
	}
}

// merge returns the parked events of a resource that remain to be sent.
func (c *consumer) merge(ctx context.Context, rows []eventlog.Retry) []eventlog.Retry {
	left, gone := c.order.MergeParked(rows)
	for _, m := range gone {
		c.tellMerged(m.gone, m.into)
		c.ledger.unpark(ctx, time.Now(), m.gone.Sequence)
	}
	return left
}

// matching returns the parked events that the endpoint still matches and settles
// the others. Its patterns may have changed since they were parked.
func (c *consumer) matching(ctx context.Context, rows []eventlog.Retry) []eventlog.Retry {
	return slices.DeleteFunc(rows, func(r eventlog.Retry) bool {
		if c.endpoint.Matches(r.Event) {
			return false
		}
		c.drop(ctx, r.Event, time.Now())
		c.relay.options.Observer.Filtered(c.endpoint.Name, r.Event)
		return true
	})
}

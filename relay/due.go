package relay

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// loadDue takes parked events that are due into the order.
func (c *consumer) loadDue(ctx context.Context, now time.Time) {
	if c.health.state == Disabled || !c.roomForDue() {
		return
	}
	rows, found := c.ledger.due(ctx, now, dueRows), false
	for _, r := range rows {
		switch {
		case c.order.lanes[r.Event.Resource()] != nil:
		case c.order.loaded < c.windowLimit:
			found = true
			c.loadLane(ctx, r.Event)
		default:
			c.ledger.dueAt(now) // once there is room
		}
	}
	if len(rows) == dueRows && !found { // all under way: the same would be read again
		c.ledger.nextDue = now.Add(unparkInterval)
	}
}

// roomForDue reports whether more parked events may be loaded: as many as a consumer may
// hold of others.
func (c *consumer) roomForDue() bool {
	return c.order.due.len() < dueRows/2 && c.order.loaded < c.windowLimit
}

// loadLane reads the oldest events of a parked resource. If there are none it is
// not parked any more.
func (c *consumer) loadLane(ctx context.Context, e tidings.Event) {
	lanes := max(dueRows/2, 2*c.endpoint.MaxInFlight) // so many should find room
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
		// Those that come next may be merged with the last one.
		more = read == page && (len(rows) == 0 || len(rows) < read && len(rows) <= room && seen < mergeRows)
	}
	if len(rows) == 0 {
		c.order.Unpark(e.Resource())
		return
	}
	c.order.AddDue(rows[:min(len(rows), room)])
}

// merge returns the parked events of a resource that are left to send.
func (c *consumer) merge(ctx context.Context, rows []eventlog.Retry) []eventlog.Retry {
	left, gone := c.order.MergeParked(rows)
	for _, m := range gone {
		c.tellMerged(m.gone, m.into)
		c.ledger.unpark(ctx, time.Now(), m.gone.Sequence)
	}
	return left
}

// matching returns the parked events that the endpoint still wants; the others are
// settled. Its patterns may have changed since they were parked.
func (c *consumer) matching(ctx context.Context, rows []eventlog.Retry) []eventlog.Retry {
	return slices.DeleteFunc(rows, func(r eventlog.Retry) bool {
		if c.endpoint.Matches(r.Event) {
			return false
		}
		c.ledger.unpark(ctx, time.Now(), r.Event.Sequence)
		if r.Event.Sequence > c.order.window.read { // the log will yield it again
			c.order.SettleBeyond(r.Event.Sequence)
		}
		c.relay.options.Observer.Filtered(c.endpoint.Name, r.Event)
		return true
	})
}

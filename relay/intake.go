package relay

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// read fetches batches ahead of the consumer, one at a time.
func (c *consumer) read(ctx context.Context, after int64) {
	failing := false
	for ctx.Err() == nil {
		events, missed, err := c.relay.tail.read(ctx, after, min(readBatch, c.windowLimit))
		switch {
		case err != nil:
			if !failing && ctx.Err() == nil {
				c.logger.Error("event log cannot be read, trying again every second", "error", err)
			}
			failing = true
			wait(ctx, time.Second)
			continue
		case len(events) == 0 && missed == after:
			select {
			case <-c.relay.tail.more(after):
			case <-ctx.Done():
			}
			continue
		}
		failing = false
		b := batch{events: events}
		if missed > after {
			b.gap = &eventlog.Gap{Endpoint: c.endpoint.Name, Index: c.lease.Index, From: after + 1, To: missed, At: time.Now()}
			after = missed
		}
		if n := len(events); n > 0 {
			after = events[n-1].Sequence
		}
		select {
		case c.batches <- b:
		case <-ctx.Done():
		}
	}
}

// room returns the channel of batches while there is room for one.
func (c *consumer) room() <-chan batch {
	full := c.window.len() >= c.windowLimit || len(c.parked) >= c.parkedLimit
	if (full && !c.holds()) || c.health.state == Disabled {
		return nil
	}
	return c.batches
}

// take puts events into their lanes.
func (c *consumer) take(ctx context.Context, b batch) {
	if b.gap != nil {
		c.miss(ctx, *b.gap)
	}
	var waiting []eventlog.Retry
	for _, e := range b.events {
		if !c.lease.Has(e) || !c.endpoint.Matches(e) || c.buried[e.Sequence] {
			continue
		}
		if c.parked[e.Resource()] != nil {
			waiting = append(waiting, eventlog.Retry{Endpoint: c.endpoint.Name, Event: e})
			c.window.parked = e.Sequence
			continue
		}
		c.enqueue(e)
	}
	if n := len(b.events); n > 0 && c.park(ctx, waiting) {
		c.window.read = b.events[n-1].Sequence
	}
}

// miss tells of events that expired before they could be sent.
func (c *consumer) miss(ctx context.Context, g eventlog.Gap) {
	c.logger.Error("events expired before the endpoint could get them; it goes on with the oldest there is",
		"from", g.From, "to", g.To, "count", g.To-g.From+1)
	c.relay.options.Observer.Missed(g)
	if c.persist(ctx, func(ctx context.Context) error { return c.log.SaveGap(ctx, g) }) {
		c.window.read = g.To
	}
}

func (c *consumer) tellMerged(gone, into tidings.Event) {
	c.relay.options.Observer.Merged(c.endpoint.Name, gone, into)
	c.relay.history.merged(&c.endpoint, gone, into)
}

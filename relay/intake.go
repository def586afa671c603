package relay

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// read fetches batches ahead of the consumer, one at a time. They are smaller than the
// window, which the last one may exceed.
func (c *consumer) read(ctx context.Context, after int64) {
	failing := false
	for ctx.Err() == nil {
		events, missed, err := c.relay.tail.read(ctx, after, min(readBatch, c.windowLimit/2))
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
			b.gap = &eventlog.Gap{
				Endpoint: c.endpoint.Name, Index: c.lease().Index, From: after + 1, To: missed,
				At: time.Now(), Reason: eventlog.GapExpired,
			}
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
	full := c.order.Len() >= c.windowLimit
	if (full && !c.holds()) || c.health.state == Disabled || c.scout.inFlight {
		return nil
	}
	return c.batches
}

// take adds events to the order.
func (c *consumer) take(ctx context.Context, b batch) {
	if b.gap != nil {
		c.miss(ctx, *b.gap)
	}
	var waiting []eventlog.Retry
	wanted := 0
	for _, e := range b.events {
		dead := c.dead[e.Sequence]
		delete(c.dead, e.Sequence) // each event is read only once
		if !c.wants(e) {
			continue
		}
		wanted++
		if dead || c.progress.marks.Settled(e) {
			continue
		}
		switch what, other := c.order.Add(e); what {
		case behind:
			waiting = append(waiting, eventlog.Retry{Endpoint: c.endpoint.Name, Event: e})
		case mergedInto:
			c.tellMerged(e, other)
		case replaced:
			c.tellMerged(other, e)
		}
	}
	if n := len(b.events); n > 0 {
		c.backlog.saw(n, wanted)
	}
	if n := len(b.events); n > 0 && c.ledger.park(ctx, waiting) {
		c.order.Passed(b.events[n-1].Sequence)
	}
}

func (c *consumer) wants(e tidings.Event) bool {
	return c.lease().Has(e) && c.endpoint.Matches(e)
}

// miss reports events that expired before they could be sent.
func (c *consumer) miss(ctx context.Context, g eventlog.Gap) {
	c.logger.Error("events expired before the endpoint could get them; it continues with the oldest event in the log",
		"from", g.From, "to", g.To, "at_most", g.To-g.From+1)
	c.relay.options.Observer.Missed(g)
	if c.ledger.store(ctx, func(ctx context.Context, _ eventlog.Lease) error { return c.ledger.log.SaveGap(ctx, g) }) {
		c.order.Passed(g.To)
	}
}

func (c *consumer) tellMerged(gone, into tidings.Event) {
	c.relay.options.Observer.Merged(c.endpoint.Name, gone, into)
	c.relay.history.merged(&c.endpoint, gone, into)
}

// scout looks for probes beyond the window of an endpoint that is down, because
// everything in the window may be what the receiver fails on.
type scout struct {
	found    []tidings.Event
	head     int64 // the end of the log when it last looked
	answer   chan []tidings.Event
	asked    bool
	inFlight bool // an event that it found is in flight
	after    time.Time
	turn     bool
}

const (
	// Most of what is sampled are the newest events, the rest random ones.
	scoutNewest = 24
	scoutOthers = 8
	scoutEvents = 50_000 // number of events examined
	// scoutInterval is how often to look, or less often if probes are further apart.
	scoutInterval = 10 * time.Second
	// If more events than this are beyond the window, new ones are only looked for once
	// none of those found before is left.
	scoutAgain = 10_000
	// scoutAhead bounds the number of events delivered beyond the window.
	scoutAhead = 1000
)

// wanted reports whether to look beyond the window.
func (s *scout) wanted(c *consumer) bool {
	outage := c.health.state == Down || c.health.state == Throttled || c.health.wantsProbe()
	if !outage || len(c.health.failed) < fewResources || c.order.Len() < c.windowLimit || s.asked ||
		len(c.order.ahead) >= scoutAhead {
		return false
	}
	head := c.relay.tail.position()
	return len(s.found) == 0 || head > s.head && head-c.order.window.read <= scoutAgain
}

// lookFurther samples events beyond the window if that is wanted.
func (c *consumer) lookFurther(ctx context.Context, helpers *sync.WaitGroup) {
	s := &c.scout
	now := time.Now()
	if !s.wanted(c) || now.Before(s.after) {
		return
	}
	s.asked, s.after, s.head = true, now.Add(max(scoutInterval, c.health.pause)), c.relay.tail.position()
	if s.answer == nil {
		s.answer = make(chan []tidings.Event, 1)
	}
	from := c.order.window.read
	helpers.Go(func() { s.answer <- c.relay.sample(ctx, from, c.wants) })
}

// next returns a sampled event, one at a time.
func (s *scout) next(o *order) (*item, bool) {
	for len(s.found) > 0 && !s.inFlight {
		last := len(s.found) - 1
		it := o.Beyond(s.found[last])
		s.found = s.found[:last]
		if it != nil {
			s.inFlight = true
			return it, true
		}
	}
	return nil, false
}

func (s *scout) finished(o *order, r result) {
	s.inFlight = false
	if r.fault == faultNone {
		o.SettleBeyond(r.item.event.Sequence)
	}
}

// sample returns events after a position, each the first of its resource there:
// some at random, followed by the newest.
func (r *Relay) sample(ctx context.Context, after int64, wants func(tidings.Event) bool) []tidings.Event {
	select {
	case r.scouting <- struct{}{}: // one at a time, to limit memory
		defer func() { <-r.scouting }()
	case <-ctx.Done():
		return nil
	}
	var finds, newest []tidings.Event
	seen := make(map[resourceHash]bool)
	for looked, firsts := 0, 0; looked < scoutEvents; {
		events, _, err := r.tail.read(ctx, after, readBatch)
		if err != nil || len(events) == 0 {
			break
		}
		looked += len(events)
		after = events[len(events)-1].Sequence
		for _, e := range events {
			resource := hashOf(e.Resource())
			if !wants(e) || seen[resource] {
				continue
			}
			seen[resource] = true
			newest = append(newest, e)
			if len(newest) <= scoutNewest {
				continue
			}
			e, newest = newest[0], newest[1:]
			if firsts++; len(finds) < scoutOthers {
				finds = append(finds, e)
			} else if at := rand.IntN(firsts); at < len(finds) {
				finds[at] = e
			}
		}
	}
	return append(finds, newest...)
}

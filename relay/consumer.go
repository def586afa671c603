package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const (
	// windowLimit bounds how far a consumer reads past an event that is not
	// settled, and so what is sent again after a crash.
	windowLimit = 1024
	// parkedLimit bounds the resources with parked events that a consumer holds
	// in memory; beyond it, it stops reading until some are delivered or dead.
	parkedLimit = 10_000

	defaultMaxInFlight = 16
)

// consumer delivers to one endpoint. All its fields but the channels and cursor
// belong to the goroutine of run.
type consumer struct {
	endpoint Endpoint
	log      eventlog.Log
	tail     *tail
	logger   *slog.Logger
	observer Observer

	health *health
	report report
	window window
	lanes  map[string]*lane       // resources with events in memory
	ready  queue                  // those of them whose first event may be sent
	parked map[string]*parkedLane // resources with events in the retries table
	due    parkedHeap             // those of them that are not under way
	buried map[int64]bool         // dead letters that the log will yield again
	frozen bool                   // the cursor must not move: a write was given up

	batches  chan []tidings.Event
	work     chan item
	results  chan result
	workers  sync.WaitGroup
	started  int // workers
	inFlight int
	timer    *time.Timer

	cursor atomic.Pointer[eventlog.Cursor]
	moved  func() // tells whoever saves it
}

// item is an event to be sent.
type item struct {
	event    tidings.Event
	place    int // in the window, unless parked
	parked   bool
	attempts int // used up before
	first    time.Time
}

type result struct {
	item    item
	outcome tidings.Outcome
}

func newConsumer(e Endpoint, cursor eventlog.Cursor, r *Relay) *consumer {
	if e.MaxInFlight <= 0 {
		e.MaxInFlight = defaultMaxInFlight
	}
	now := time.Now()
	c := &consumer{
		endpoint: e,
		log:      r.log,
		moved:    r.wakeSaver,
		tail:     r.tail,
		logger:   r.logger.With("endpoint", e.Name),
		observer: r.options.Observer,
		health:   newHealth(e.MaxInFlight, now),
		window:   window{read: cursor.Sequence},
		lanes:    make(map[string]*lane),
		parked:   make(map[string]*parkedLane),
		buried:   make(map[int64]bool),
		batches:  make(chan []tidings.Event),
		work:     make(chan item, e.MaxInFlight),
		results:  make(chan result, e.MaxInFlight),
	}
	if cursor.Disabled != "" {
		c.health.disable(cursor.Disabled, now)
	}
	c.publish()
	return c
}

// run delivers until ctx ends, then waits for the attempts under way, which end
// with the context attempts.
func (c *consumer) run(ctx, attempts context.Context) {
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	c.report.started(c)
	c.loadParked(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { c.read(ctx, c.window.read) })
	for ctx.Err() == nil {
		c.dispatch(ctx, attempts)
		c.publish()
		c.arm()
		select {
		case r := <-c.results:
			c.finish(ctx, r)
			for len(c.results) > 0 {
				c.finish(ctx, <-c.results)
			}
		case batch := <-c.room():
			c.take(ctx, batch)
		case <-c.timer.C:
		case <-ctx.Done():
		}
	}
	for c.inFlight > 0 {
		c.finish(attempts, <-c.results)
	}
	close(c.work)
	c.workers.Wait()
	reading.Wait()
	c.publish()
}

// read fetches batches ahead of the consumer, one at a time.
func (c *consumer) read(ctx context.Context, after int64) {
	failing := false
	for ctx.Err() == nil {
		events, err := c.tail.read(ctx, after)
		switch {
		case err != nil:
			if !failing && ctx.Err() == nil {
				c.logger.Error("event log cannot be read, trying again every second", "error", err)
			}
			failing = true
			wait(ctx, time.Second)
		case len(events) == 0:
			select {
			case <-c.tail.more(after):
			case <-ctx.Done():
			}
		default:
			failing = false
			select {
			case c.batches <- events:
				after = events[len(events)-1].Sequence
			case <-ctx.Done():
			}
		}
	}
}

// room returns the channel of batches while there is room for one.
func (c *consumer) room() <-chan []tidings.Event {
	if c.window.len() >= windowLimit || len(c.parked) >= parkedLimit || c.health.state == Disabled {
		return nil
	}
	return c.batches
}

// take puts events into their lanes.
func (c *consumer) take(ctx context.Context, batch []tidings.Event) {
	var waiting []eventlog.Retry
	for _, e := range batch {
		if !c.endpoint.Matches(e) || c.buried[e.Sequence] {
			continue
		}
		key := e.Resource()
		if c.parked[key] != nil {
			waiting = append(waiting, eventlog.Retry{Endpoint: c.endpoint.Name, Event: e})
			continue
		}
		l := c.lanes[key]
		if l == nil {
			l = &lane{}
			c.lanes[key] = l
			c.ready.push(l)
		}
		l.items = append(l.items, item{event: e, place: c.window.add(e.Sequence)})
	}
	c.window.read = batch[len(batch)-1].Sequence
	c.park(ctx, waiting)
}

// dispatch starts as many attempts as may be under way now.
func (c *consumer) dispatch(ctx, attempts context.Context) {
	now := time.Now()
	limit := c.health.limit(now)
	for c.inFlight < limit {
		next, ok := c.next(ctx, now)
		if !ok {
			break
		}
		if c.started == c.inFlight {
			c.started++
			c.workers.Go(func() { c.send(attempts) })
		}
		c.inFlight++
		c.work <- next
	}
	c.report.changed(c, now)
}

// send is a worker: it makes attempts until there is no more work.
func (c *consumer) send(ctx context.Context) {
	for it := range c.work {
		attempt := tidings.Attempt{Event: it.event, Number: it.attempts + 1}
		outcome := c.endpoint.Sender.Send(ctx, attempt)
		if c.observer != nil {
			c.observer.Attempted(c.endpoint.Name, attempt, outcome)
		}
		c.results <- result{it, outcome}
	}
}

// next takes the item to send next. Parked events that are due come first, for
// they are the oldest; a probe prefers the others, which it takes in turn.
func (c *consumer) next(ctx context.Context, now time.Time) (item, bool) {
	if c.health.state == Probing {
		if it, ok := c.nextReady(); ok {
			return it, true
		}
	}
	if it, ok := c.nextDue(ctx, now); ok {
		return it, true
	}
	return c.nextReady()
}

func (c *consumer) nextReady() (item, bool) {
	l, ok := c.ready.pop()
	if !ok {
		return item{}, false
	}
	return l.items[0], true
}

// finish deals with the outcome of an attempt.
func (c *consumer) finish(ctx context.Context, r result) {
	c.inFlight--
	now := time.Now()
	c.health.observe(r.outcome, r.item.event.Resource(), now)
	switch {
	case r.outcome.Verdict == tidings.Delivered:
		c.delivered(ctx, r.item)
	case c.health.spends(r.outcome):
		c.failed(ctx, r.item, r.outcome, now)
	default:
		c.putBack(r.item, now)
	}
	c.report.changed(c, now)
}

// failed parks an event that used up an attempt, or gives it up.
func (c *consumer) failed(ctx context.Context, it item, o tidings.Outcome, now time.Time) {
	retry := eventlog.Retry{
		Endpoint: c.endpoint.Name, Event: it.event,
		Attempts: it.attempts + 1, First: it.first, Reason: o.Reason,
	}
	if retry.First.IsZero() {
		retry.First = now
	}
	delay, more := c.endpoint.Retry.next(retry.Attempts, now.Sub(retry.First))
	if !more || o.Verdict == tidings.Rejected {
		retry.Dead = now
	} else {
		retry.Next = now.Add(delay)
	}
	c.report.failed(c, retry, o, delay)
	if it.parked {
		c.parkAgain(ctx, retry)
	} else {
		c.parkFirst(ctx, retry)
	}
}

// publish makes the cursor known to whoever saves it.
func (c *consumer) publish() {
	if c.frozen {
		return
	}
	next := eventlog.Cursor{Endpoint: c.endpoint.Name, Sequence: c.window.cursor(), Fingerprint: c.endpoint.Fingerprint}
	if c.health.state == Disabled {
		next.Disabled = c.health.reason
	}
	if old := c.cursor.Load(); old == nil || *old != next {
		c.cursor.Store(&next)
		c.moved()
	}
}

// arm sets the timer to when something changes by itself.
func (c *consumer) arm() {
	until := time.Hour
	now := time.Now()
	if at, ok := c.health.wake(); ok {
		until = min(until, at.Sub(now))
	} else if at, ok := c.due.next(); ok && c.health.state != Disabled && c.inFlight < c.health.limit(now) {
		until = min(until, at.Sub(now))
	}
	if at, ok := c.report.nextLine(c.health); ok {
		until = min(until, at.Sub(now))
	}
	c.timer.Reset(max(until, 0))
}

// persist does a write that may not be given up, until it succeeds or the
// context ends; then the cursor stays where it is.
func (c *consumer) persist(ctx context.Context, write func(context.Context) error) bool {
	for failing := false; ; failing = true {
		err := write(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			c.frozen = true
			return false
		}
		if !failing {
			c.logger.Error("delivery waits for the database, trying again every second", "error", err)
		}
		wait(ctx, time.Second)
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

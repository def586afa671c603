package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

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
	// All consumers of a process together hold no more than so many events; one
	// of very many holds fewer than the limits above, but leastWindow.
	totalWindow = 64 * windowLimit
	totalParked = 10 * parkedLimit
	leastWindow = 64

	defaultMaxInFlight = 16
)

// consumer delivers the events of one partition. All its fields but the channels
// and what is atomic belong to the goroutine of run.
type consumer struct {
	*configured
	endpoint Endpoint // with this partition's share of the limits
	lease    eventlog.Lease
	relay    *Relay
	log      eventlog.Log
	logger   *slog.Logger
	alive    *lifetime

	health  *health
	report  report
	limiter *rate.Limiter
	window  window
	lanes   map[string]*lane       // resources with events in memory
	ready   queue                  // those of them whose first event may be sent
	parked  map[string]*parkedLane // resources with events in the retries table
	due     parkedHeap             // those of them that are not under way
	rows    int                    // parked events in memory

	unparked []int64        // delivered, and still in the retries table
	unparkAt time.Time      // when they have to go
	buried   map[int64]bool // dead letters that the log will yield again
	frozen   bool           // the cursor must not move: a write was given up
	paced    time.Time      // when the rate limit lets the next one go
	hold     int64          // nothing goes before the log was read up to there

	windowLimit, parkedLimit int

	batches   chan batch
	work      chan *item
	results   chan result
	workers   sync.WaitGroup
	started   int // workers
	inFlight  int
	replaying int // of those in flight
	timer     *time.Timer
	poke      chan struct{}

	heard    atomic.Pointer[eventlog.Control]
	said     eventlog.Control
	replays  atomic.Pointer[[]eventlog.Replay]
	again    chan *item    // events to be sent again, as the replay goes on
	replayed chan struct{} // a replay ended
	runs     bool          // one does
	// replayedIDs are those that began here.
	replayedIDs map[string]bool

	lost   atomic.Bool
	abort  atomic.Pointer[context.CancelFunc]
	cursor atomic.Int64
	saved  eventlog.Cursor // by whoever holds the relay's saving
	status atomic.Pointer[Status]
	counts counts
}

// batch is what was read from the log: events, and a range of positions before
// them that had expired.
type batch struct {
	events []tidings.Event
	gap    *eventlog.Gap
}

// item is an event to be sent.
type item struct {
	event     tidings.Event
	parked    bool
	attempted bool // its id is a promise about its bytes
	settled   bool
	merged    bool
	attempts  int // used up before
	first     time.Time
	replay    chan<- result // who wants to know; nil for a live event
}

type result struct {
	item    *item
	outcome tidings.Outcome
	// spent says that the outcome is the event's, not the endpoint's.
	spent bool
}

// newConsumer makes a consumer that is one of total in this process.
func newConsumer(e *configured, cursor eventlog.Cursor, r *Relay, alive *lifetime, control eventlog.Control, total int) *consumer {
	now := time.Now()
	c := &consumer{
		configured: e,
		endpoint:   e.share(),
		lease:      cursor.Lease,
		relay:      r,
		log:        r.log,
		logger:     r.logger.With("endpoint", e.Name),
		alive:      alive,
		window:     window{read: cursor.Sequence},
		lanes:      make(map[string]*lane),
		parked:     make(map[string]*parkedLane),
		buried:     make(map[int64]bool),
		batches:    make(chan batch),
		poke:       make(chan struct{}, 1),
		again:      make(chan *item),

		replayedIDs: make(map[string]bool),
		replayed:    make(chan struct{}, 1),
		windowLimit: min(max(totalWindow/total, leastWindow), windowLimit),
		parkedLimit: min(max(totalParked/total, leastWindow), parkedLimit),
	}
	if c.coalesces() {
		// The last owner may have sent news that tells of what comes first here; to
		// merge the same again, all of it has to be there.
		c.hold = r.tail.position()
	}
	c.health = newHealth(c.endpoint.MaxInFlight, now)
	c.limiter = c.endpoint.limiter()
	c.work = make(chan *item, c.endpoint.MaxInFlight)
	c.results = make(chan result, c.endpoint.MaxInFlight)
	c.cursor.Store(cursor.Sequence)
	c.control(control)
	c.obey(now)
	c.observe()
	return c
}

// control hands over what was said about the endpoint, and wakes the consumer.
func (c *consumer) control(control eventlog.Control) {
	c.heard.Store(&control)
	give(c.poke)
}

// obey does what was said last about the endpoint.
func (c *consumer) obey(now time.Time) {
	if heard := c.heard.Load(); !heard.Since.Before(c.said.Since) {
		c.said = *heard
	}
	// What the receiver said is about the settings of then.
	stands := c.said.Disabled == PausedReason || c.said.Fingerprint == c.endpoint.Fingerprint
	switch disabled := c.said.Disabled != "" && stands; {
	case disabled && (c.health.state != Disabled || c.health.reason != c.said.Disabled):
		c.health.disable(c.said.Disabled, now)
	case !disabled && c.health.state == Disabled:
		c.health.enable(now)
	}
}

// lose ends all that is done under a lease that another replica has now.
func (c *consumer) lose() {
	c.lost.Store(true)
	if abort := c.abort.Load(); abort != nil {
		(*abort)()
	}
}

// run delivers until ctx ends or the lease is lost, then waits for the attempts
// under way, for as long as the relay's drain timeout says.
func (c *consumer) run(ctx context.Context) {
	attempts, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	end := context.CancelFunc(func() { stop(); abort() })
	c.abort.Store(&end)
	if c.lost.Load() {
		end()
	}
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	c.report.started(c)
	c.loadParked(ctx)
	var helpers sync.WaitGroup
	helpers.Go(func() { c.read(ctx, c.window.read) })
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
		case b := <-c.room():
			c.take(ctx, b)
		case it := <-c.spare():
			c.limiter.Allow()
			c.replaying++
			c.launch(attempts, it)
		case <-c.poke:
			c.obey(time.Now())
			c.beginReplay(ctx, &helpers)
		case <-c.replayed:
			c.runs = false
			c.beginReplay(ctx, &helpers)
		case <-c.timer.C:
		case <-ctx.Done():
		}
		if len(c.unparked) > 0 && !time.Now().Before(c.unparkAt) {
			c.unpark(ctx)
		}
	}
	deadline := time.AfterFunc(c.relay.options.DrainTimeout, abort)
	defer deadline.Stop()
	for c.inFlight > 0 {
		c.finish(attempts, <-c.results)
	}
	close(c.work)
	c.workers.Wait()
	helpers.Wait()
	final, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalTime)
	defer cancel()
	c.unpark(final)
	c.parkRest(final)
	c.publish()
}

// dispatch starts as many attempts as may be under way now.
func (c *consumer) dispatch(ctx, attempts context.Context) {
	now := time.Now()
	c.paced = time.Time{}
	limit := c.health.limit(now)
	for c.inFlight < limit && c.alive.has(now) && !c.holds() {
		if c.ready.empty() && !c.isDue(now) {
			break
		}
		if pass := c.limiter.ReserveN(now, 1); pass.DelayFrom(now) > 0 {
			c.paced = now.Add(pass.DelayFrom(now))
			pass.CancelAt(now)
			break
		}
		next, ok := c.next(ctx, now)
		if !ok {
			break
		}
		c.launch(attempts, next)
	}
	c.report.changed(c, now)
	c.observe()
}

func (c *consumer) coalesces() bool {
	return c.endpoint.Coalesce != "" && c.endpoint.Coalesce != tidings.CoalesceOff
}

// holds reports whether the log has to be read on before anything goes out.
func (c *consumer) holds() bool { return c.window.read < c.hold && c.window.len() < totalWindow }

func (c *consumer) isDue(now time.Time) bool {
	at, ok := c.due.next()
	return ok && !at.After(now)
}

func (c *consumer) launch(attempts context.Context, it *item) {
	if c.started == c.inFlight {
		c.started++
		c.workers.Go(func() { c.send(attempts) })
	}
	it.attempted = true
	c.inFlight++
	c.counts.inFlight.Store(int64(c.inFlight))
	c.work <- it
}

// send is a worker: it makes attempts until there is no more work. The process
// may have been stopped since the item was handed over: then others may deliver
// by now.
func (c *consumer) send(ctx context.Context) {
	for it := range c.work {
		outcome := tidings.Outcome{Verdict: tidings.Interrupted}
		if c.alive.has(time.Now()) && ctx.Err() == nil {
			attempt := tidings.Attempt{Event: it.event, Number: it.attempts + 1, Replay: it.replay != nil}
			outcome = c.relay.attempt(ctx, &c.endpoint, attempt)
		}
		c.results <- result{item: it, outcome: outcome}
	}
}

// next takes the item to send next. Parked events that are due come first, for
// they are the oldest; a probe prefers the others, which it takes in turn.
func (c *consumer) next(ctx context.Context, now time.Time) (*item, bool) {
	if c.health.state == Probing {
		if it, ok := c.nextReady(c.health.failed); ok {
			return it, true
		}
	}
	if it, ok := c.nextDue(ctx, now); ok {
		return it, true
	}
	return c.nextReady("")
}

// nextReady takes the next event that waits in memory, one of another resource
// than but if there is any.
func (c *consumer) nextReady(but string) (*item, bool) {
	l, ok := c.ready.pop()
	if !ok {
		return nil, false
	}
	if !c.ready.empty() && l.items[0].event.Resource() == but {
		c.ready.push(l)
		l, _ = c.ready.pop()
	}
	return l.items[0], true
}

// publish makes the cursor known to whoever saves it.
func (c *consumer) publish() {
	if c.frozen {
		return
	}
	if next := c.window.cursor(); next != c.cursor.Load() {
		c.cursor.Store(next)
		give(c.relay.moved)
	}
}

// arm sets the timer to when something changes by itself.
func (c *consumer) arm() {
	until := time.Hour
	now := time.Now()
	if at, ok := c.health.wake(); ok {
		until = min(until, at.Sub(now))
	} else if at, ok := c.due.next(); ok && c.health.state != Disabled && c.inFlight < c.health.limit(now) && c.alive.has(now) {
		until = min(until, at.Sub(now))
	}
	if !c.paced.IsZero() {
		until = c.paced.Sub(now)
	}
	if len(c.unparked) > 0 {
		until = min(until, c.unparkAt.Sub(now))
	}
	if at, ok := c.report.nextLine(c.health); ok {
		until = min(until, at.Sub(now))
	}
	c.timer.Reset(max(until, time.Nanosecond))
}

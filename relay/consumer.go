package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const (
	// windowLimit bounds how many events a consumer holds that are not settled.
	windowLimit = 1024
	// All consumers of a process together hold no more than so many events, and as many
	// beyond their windows while they merge; one
	// of very many holds fewer than the limit above, but leastWindow.
	totalWindow = 64 * windowLimit
	leastWindow = 64

	defaultMaxInFlight = 16
)

// consumer delivers the events of one partition: it reads the log into its order,
// hands what may go to its workers as health allows, and writes what became of it
// to its ledger. All its fields but the channels and what is atomic belong to the
// goroutine of run.
type consumer struct {
	*configured
	endpoint Endpoint // with this partition's share of the limits
	relay    *Relay
	logger   *slog.Logger
	alive    *lifetime

	order    *order
	progress *progress
	ledger   *ledger
	health   *health
	report   report
	limiter  *rate.Limiter
	pool     pool
	scout    scout
	replays  *replays

	dead        map[int64]bool // dead letters that the log will yield again
	held        []result       // failures of which it is not known yet whose fault they are
	paced       time.Time      // when the rate limit lets the next one go
	hold        int64          // nothing goes before the log was read up to there
	windowLimit int
	beyond      int // events held beyond it

	batches chan batch
	timer   *time.Timer
	poke    chan struct{}

	heard atomic.Pointer[eventlog.Control]
	said  eventlog.Control

	abort  atomic.Pointer[context.CancelFunc]
	status atomic.Pointer[Status]
	counts counts
}

// batch is what was read from the log: events, and a range of positions before
// them that had expired.
type batch struct {
	events []tidings.Event
	gap    *eventlog.Gap
}

// newConsumer makes a consumer that is one of total in this process. It ends once there
// were more losses than given.
func newConsumer(
	e *configured, cursor eventlog.Cursor, losses int, r *Relay, alive *lifetime, control eventlog.Control, total int,
) *consumer {
	now := time.Now()
	c := &consumer{
		configured:  e,
		endpoint:    e.share(),
		relay:       r,
		logger:      r.logger.With("endpoint", e.Name),
		alive:       alive,
		progress:    newProgress(cursor),
		batches:     make(chan batch),
		poke:        make(chan struct{}, 1),
		windowLimit: min(max(totalWindow/total, leastWindow), windowLimit),
	}
	last := lastSaved(cursor)
	c.ledger = &ledger{
		log: r.log, write: r.park, lease: cursor.Lease, tail: r.tail, losses: losses, page: c.windowLimit,
		logger: c.logger, lose: c.lose, moved: r.moved,
	}
	c.ledger.writes.Store(last.Writes)
	c.order = newOrder(cursor.Sequence, c.endpoint.Coalesce)
	if c.coalesces() {
		// The last owner may have sent news that tells of what comes first here; to
		// merge the same again, all of it has to be there.
		c.hold = r.tail.position()
	}
	c.health = newHealth(newPace(c.endpoint.MaxInFlight, c.endpoint.Timeout, last.Learned), now)
	c.health.recall(last.Status, now)
	c.limiter = c.endpoint.limiter()
	c.pool = newPool(c.endpoint.MaxInFlight)
	c.replays = newReplays()
	c.control(control)
	c.obey(now)
	c.observe()
	return c
}

func (c *consumer) lease() eventlog.Lease { return c.ledger.lease }

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
	c.ledger.lost.Store(true)
	if abort := c.abort.Load(); abort != nil {
		(*abort)()
	}
}

func (c *consumer) lost() bool { return c.ledger.lost.Load() }

// run delivers until ctx ends or the lease is lost, then waits for the attempts
// under way, for as long as the relay's drain timeout says.
func (c *consumer) run(ctx context.Context) {
	attempts, abort := context.WithCancel(c.relay.attempts)
	defer abort()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	end := context.CancelFunc(func() { stop(); abort() })
	c.abort.Store(&end)
	if c.lost() {
		end()
	}
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	c.report.started(c)
	c.dead = c.ledger.begin(ctx, c.order.Cursor(), c.order.parked, c.endpoint.Matches, time.Now())
	var helpers sync.WaitGroup
	helpers.Go(func() { c.read(ctx, c.order.window.read) })
	for ctx.Err() == nil {
		c.dispatch(ctx, attempts)
		c.publish(false)
		c.arm()
		select {
		case r := <-c.pool.results:
			c.finish(ctx, r)
			for len(c.pool.results) > 0 {
				c.finish(ctx, <-c.pool.results)
			}
		case b := <-c.room():
			c.take(ctx, b)
		case it := <-c.spare():
			c.resend(ctx, attempts, it)
		case c.scout.found = <-c.scout.answer:
			c.scout.asked = false
		case <-c.poke:
			c.obey(time.Now())
			if c.lease().Of > 1 && len(c.order.parked) > 0 {
				c.ledger.dueAt(time.Now()) // a replay that another partition runs makes events due
			}
			c.beginReplay(ctx, &helpers)
		case <-c.replays.ended:
			c.replays.over[c.replays.running], c.replays.running = time.Now(), ""
			if !c.beginReplay(ctx, &helpers) {
				give(c.relay.updated) // more may wait than are known
			}
		case <-c.timer.C:
		case <-ctx.Done():
		}
		if l := c.ledger; len(l.unparked) > 0 && !time.Now().Before(l.unparkAt) {
			l.flush(ctx)
		}
		c.lookFurther(ctx, &helpers)
	}
	deadline := time.AfterFunc(c.relay.options.DrainTimeout, abort)
	defer deadline.Stop()
	for c.pool.inFlight > 0 {
		c.finish(attempts, <-c.pool.results)
	}
	c.pool.close()
	helpers.Wait()
	c.count(0)
	final, cancel := context.WithTimeout(c.relay.writes, finalTime)
	defer cancel()
	c.ledger.flush(final)
	c.publish(true)
}

// dispatch starts as many attempts as may be under way now.
func (c *consumer) dispatch(ctx, attempts context.Context) {
	c.count(c.order.Len())
	now := time.Now()
	c.paced = time.Time{}
	c.loadDue(ctx, now)
	for c.alive.has(now) && !c.holds() && c.pool.counted() < c.health.limit(now, c.untried()) && !c.pool.full() {
		if c.order.Waiting() == 0 && c.health.state != Probing {
			break
		}
		if at := c.health.ready(); at.After(now) {
			c.paced = at
			break
		}
		if pass := c.limiter.ReserveN(now, 1); pass.DelayFrom(now) > 0 {
			c.paced = now.Add(pass.DelayFrom(now))
			pass.CancelAt(now)
			break
		}
		next, ok := c.next()
		if !ok {
			break
		}
		c.launch(attempts, next, now)
	}
	if c.pool.inFlight == 0 && c.order.Len() == 0 && c.order.Waiting() == 0 && len(c.held) == 0 {
		c.health.rest(now)
	}
	c.report.changed(c, now)
	c.observe()
}

// next takes the event to send next.
func (c *consumer) next() (*item, bool) {
	switch {
	case c.health.seeks():
		if it, ok := c.scout.next(c.order, len(c.health.failed) >= fewResources); ok {
			return it, true
		}
		return c.order.Probe(c.health.outages, c.health.failed)
	case c.health.state == Ramping:
		return c.order.Next(freshFirst)
	}
	return c.order.Next(inTurn)
}

// untried reports whether a probe would be of a resource that has not failed since the
// last success.
func (c *consumer) untried() bool { return c.order.Untried(c.health.failed) }

// quiet reports whether nothing else than what has just failed may be sent.
func (c *consumer) quiet() bool { return c.pool.counted() == 0 && c.order.Waiting() == 0 }

func (c *consumer) coalesces() bool {
	return c.endpoint.Coalesce != "" && c.endpoint.Coalesce != tidings.CoalesceOff
}

// holds reports whether the log has to be read on before anything goes out.
func (c *consumer) holds() bool {
	more := c.order.Len() < c.windowLimit || c.relay.beyond.Load() < totalWindow
	return c.order.window.read < c.hold && more
}

// count tells the others how many events the consumer holds beyond its window.
func (c *consumer) count(held int) {
	beyond := max(held-c.windowLimit, 0)
	c.relay.beyond.Add(int64(beyond - c.beyond))
	c.beyond = beyond
}

func (c *consumer) launch(attempts context.Context, it *item, now time.Time) {
	it.trial.kind = it.event.Name()
	c.health.send(&it.trial, now)
	c.pool.launch(it, func(it *item) tidings.Outcome {
		// The process may have been stopped since the item was handed over: then
		// others may deliver by now.
		if !c.alive.has(time.Now()) || attempts.Err() != nil {
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		attempt := tidings.Attempt{Event: it.event, Number: it.attempts + 1, Replay: it.replay != nil}
		return c.relay.attempt(attempts, &c.endpoint, attempt)
	})
	c.counts.inFlight.Store(int64(c.pool.inFlight))
}

// finish deals with the outcome of an attempt.
func (c *consumer) finish(ctx context.Context, r result) {
	it, now := r.item, time.Now()
	late := it.trial.outage != c.health.outages
	c.pool.finished(late)
	c.counts.add(r.outcome, it.event, c.pool.inFlight)
	outages, before, reason := c.health.outages, c.health.state, c.health.reason
	r.fault = c.health.observe(r.outcome, it.event.Resource(), &it.trial, c.quiet() && !it.more, now)
	switch {
	case c.health.outages != outages:
		c.pool.outdate() // what is under way says nothing about the outage
	case before == Probing && c.health.state == Ramping:
		c.recovered(ctx, reason, now)
	case r.outcome.Verdict == tidings.Gone && before != Disabled:
		c.disabled(ctx, r.outcome.Reason, now)
	}
	switch {
	case it.replay != nil:
		c.resent(ctx, r, now)
	case it.beyond:
		c.scout.finished(c.order, r)
	case r.fault == nobodys:
		c.delivered(ctx, it, now)
	case r.fault == theEvents:
		c.failed(ctx, it, r.outcome, now)
	case r.fault == inDoubt:
		c.held = append(c.held, r)
	default:
		c.order.Return(it)
	}
	c.decide(ctx, r.fault == nobodys && !late, now)
	c.report.changed(c, now)
	c.observe()
}

// decide says of the events that failed whose fault that was, once it is known:
// theirs when another resource's event succeeded since, the endpoint's when it is
// down. Until then they are held.
func (c *consumer) decide(ctx context.Context, succeeded bool, now time.Time) {
	outage := c.health.state == Down || c.health.state == Probing
	if !succeeded && !outage && !c.quiet() {
		return
	}
	held := c.held
	c.held = nil
	for _, r := range held {
		if succeeded && !c.health.forgives(r.outcome, &r.item.trial) {
			c.failed(ctx, r.item, r.outcome, now)
		} else {
			c.order.Return(r.item)
		}
	}
}

// delivered settles an event and lets the next of its resource go.
func (c *consumer) delivered(ctx context.Context, it *item, now time.Time) {
	if it.lane.parked {
		c.ledger.unpark(ctx, now, it.event.Sequence)
	}
	c.settle(ctx, it)
}

func (c *consumer) settle(ctx context.Context, it *item) {
	if c.order.Settle(it) {
		c.loadLane(ctx, it.event)
	}
}

// recovered makes the events due that were parked when the outage began.
func (c *consumer) recovered(ctx context.Context, reason string, now time.Time) {
	reason, _ = refuses(reason)
	c.ledger.again(ctx, reason, c.health.troubled, now)
}

// disabled keeps what the receiver said: it wants no more.
func (c *consumer) disabled(ctx context.Context, reason string, now time.Time) {
	control := eventlog.Control{
		Endpoint: c.endpoint.Name, Disabled: reason,
		Fingerprint: c.endpoint.Fingerprint, Since: now,
	}
	c.said = control
	c.ledger.store(ctx, func(ctx context.Context, _ eventlog.Lease) error {
		return errors.Join(c.ledger.log.SaveControl(ctx, control), c.ledger.log.Nudge(ctx))
	})
}

// failed parks an event that spent an attempt, or gives it up. Those behind one that
// is parked wait with it; behind a dead letter they go on.
func (c *consumer) failed(ctx context.Context, it *item, o tidings.Outcome, now time.Time) {
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
	rows := []eventlog.Retry{retry}
	if retry.Dead.IsZero() && !it.lane.parked {
		for _, other := range it.lane.items[1:] {
			rows = append(rows, eventlog.Retry{Endpoint: c.endpoint.Name, Event: other.event})
		}
	}
	if !c.ledger.park(ctx, rows) {
		return
	}
	if retry.Dead.IsZero() {
		c.order.Park(it)
	} else {
		c.settle(ctx, it)
	}
}

// publish makes known to whoever saves it how far the consumer has come, and, now
// and then, what has overtaken the event that holds the cursor.
func (c *consumer) publish(final bool) {
	if !c.ledger.frozen && c.progress.follow(c.order, final, time.Now()) {
		give(c.relay.moved)
	}
}

// arm sets the timer to when something changes by itself.
func (c *consumer) arm() {
	now := time.Now()
	until := time.Hour
	at := func(t time.Time) {
		if !t.IsZero() {
			until = min(until, max(t.Sub(now), time.Nanosecond))
		}
	}
	if wake, ok := c.health.wake(); ok && wake.After(now) {
		at(wake)
	} else if c.health.state != Disabled && c.pool.counted() < c.health.concurrency() &&
		c.alive.has(now) && c.roomForDue() {
		at(c.ledger.nextDue)
	}
	at(c.paced)
	if len(c.ledger.unparked) > 0 {
		at(c.ledger.unparkAt)
	}
	at(c.progress.next(c.order))
	if line, ok := c.report.nextLine(c.health); ok {
		at(line)
	}
	if c.scout.wanted(c) {
		at(c.scout.after)
	}
	c.timer.Reset(until)
}

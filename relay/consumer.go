package relay

import (
	"cmp"
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
	// windowLimit is the maximum number of unsettled events in a window.
	windowLimit = 1024
	// totalWindow bounds the events in all windows of a process: with many consumers
	// each window is smaller than windowLimit, but always holds leastWindows times what
	// may be in flight.
	totalWindow  = 32 * windowLimit
	leastWindows = 2
	// totalBeyond bounds the events held beyond the windows for merging.
	totalBeyond = 64 * windowLimit

	defaultMaxInFlight = 16
)

// consumer delivers the events of one partition. It reads the log into its order,
// hands events to workers as the endpoint's health allows, and writes the
// results to its ledger. All fields except channels and atomics belong to the
// goroutine of run.
type consumer struct {
	*configured
	endpoint Endpoint // with this partition's share of the limits
	relay    *Relay
	logger   *slog.Logger
	lifetime *lifetime

	order    *order
	progress *progress
	ledger   *ledger
	health   *health
	report   report
	limiter  *rate.Limiter
	pool     pool
	seat     *seat
	scout    scout
	replays  *replays

	dead        map[int64]bool // dead letters that will be read from the log again
	changed     time.Time      // when operators last changed parked events, as far as applied
	discards    time.Time      // when to look for discarded events; zero for never
	held        []result       // failures not yet attributed to the event or the endpoint
	paced       time.Time      // when the rate limit allows the next request
	hold        int64          // send nothing until the log has been read up to this position
	windowLimit int
	beyond      int // events held beyond the window

	batches chan batch
	timer   *time.Timer
	poke    chan struct{}

	latestControl atomic.Pointer[eventlog.Control]
	control       eventlog.Control

	abort   atomic.Pointer[context.CancelFunc]
	status  atomic.Pointer[Status]
	backlog backlog
	noted   noted
	counts  counts
}

// batch holds events read from the log, preceded by a gap if events before them had
// expired.
type batch struct {
	events []tidings.Event
	gap    *eventlog.Gap
}

// newConsumer returns a consumer that is one of total in this process. It ends once
// the log has suffered more losses than the given number.
func newConsumer(
	e *configured, cursor eventlog.Cursor, losses int, r *Relay, lifetime *lifetime, control eventlog.Control, total int,
) *consumer {
	now := time.Now()
	c := &consumer{
		configured: e,
		endpoint:   e.share(),
		relay:      r,
		logger:     r.logger.With("endpoint", e.Name),
		lifetime:   lifetime,
		progress:   newProgress(cursor),
		batches:    make(chan batch),
		poke:       make(chan struct{}, 1),
	}
	c.windowLimit = min(max(totalWindow/total, leastWindows*c.endpoint.MaxInFlight), windowLimit)
	last := lastSaved(cursor)
	c.ledger = &ledger{
		log: r.log, write: r.park, lease: cursor.Lease, tail: r.tail, losses: losses, page: c.windowLimit,
		logger: c.logger, lose: c.lose, moved: r.moved,
	}
	c.ledger.writes.Store(last.Writes)
	c.order = newOrder(cursor.Sequence, c.endpoint.Coalesce)
	if c.coalesces() {
		// The last owner may have sent an event into which the first ones here are
		// merged. Read everything it could have read before sending, so that none
		// of those is sent after it.
		c.hold = r.tail.position()
		c.order.sent = c.hold
	}
	c.health = newHealth(newPace(c.endpoint.MaxInFlight, c.endpoint.Timeout, last.Learned), now)
	c.health.recall(last.Status, now)
	c.noted = newNoted(last.Status)
	c.backlog.setShare(cmp.Or(last.Share, 1))
	c.backlog.set(c.order)
	c.counts.last.Store(last.LastError)
	c.counts.answer.Store(last.LastAnswer)
	c.limiter = c.endpoint.limiter()
	c.pool = newPool(c.endpoint.MaxInFlight)
	c.seat = r.budget.open(e.Name)
	c.replays = newReplays()
	c.setControl(control)
	c.applyControl(now)
	c.observe()
	return c
}

func (c *consumer) lease() eventlog.Lease { return c.ledger.lease }

// setControl passes the operator's latest control to the consumer and wakes it.
func (c *consumer) setControl(control eventlog.Control) {
	c.latestControl.Store(&control)
	notify(c.poke)
}

// applyControl enables or disables the endpoint as its latest control says.
func (c *consumer) applyControl(now time.Time) {
	latest := c.latestControl.Load()
	if !latest.Since.Before(c.control.Since) {
		c.control = *latest
	}
	if !latest.Parked.Equal(c.changed) {
		c.changed, c.discards = latest.Parked, now
		c.ledger.dueAt(now)
	}
	// A receiver's 410 applies only to the configuration that was in use at the
	// time.
	applies := c.control.Disabled == PausedReason || c.control.Fingerprint == c.endpoint.Fingerprint
	reason := c.control.DisabledAt(now)
	switch disabled := reason != "" && applies; {
	case disabled && (c.health.state != Disabled || c.health.reason != reason):
		c.hinted.clear() // so that resuming ends its pause
		c.health.disable(reason, now)
	case !disabled && c.health.state == Disabled:
		c.health.enable(now)
	}
}

// lose aborts all work under a lease that another replica now holds.
func (c *consumer) lose() {
	c.ledger.lost.Store(true)
	if abort := c.abort.Load(); abort != nil {
		(*abort)()
	}
}

func (c *consumer) lost() bool { return c.ledger.lost.Load() }

// run delivers until ctx ends or the lease is lost. It then waits for attempts in
// flight, up to the relay's drain timeout.
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
	c.dead = c.ledger.load(ctx, c.order.Cursor(), c.order.parked, c.endpoint.Matches, time.Now())
	c.discards = time.Now()
	for len(c.dropDiscarded(ctx, time.Now())) > 0 { // before the log is read
		c.discards = time.Now()
	}
	var helpers sync.WaitGroup
	helpers.Go(func() { c.read(ctx, c.order.window.read) })
	for ctx.Err() == nil {
		c.dispatch(ctx, attempts)
		c.publish(false)
		c.arm()
		select {
		case r := <-c.pool.results:
			c.finish(ctx, *r)
			for len(c.pool.results) > 0 {
				c.finish(ctx, *<-c.pool.results)
			}
		case b := <-c.room():
			c.take(ctx, b)
		case c.replays.taken = <-c.spare():
		case <-c.seat.turn:
		case c.scout.found = <-c.scout.answer:
			c.scout.asked = false
		case <-c.poke:
			c.applyControl(time.Now())
			if c.lease().Of > 1 && len(c.order.parked) > 0 {
				c.ledger.dueAt(time.Now()) // a replay run by another partition may have made events due
			}
			c.beginReplay(ctx, &helpers)
		case <-c.replays.ended:
			c.replays.over[c.replays.running], c.replays.running = time.Now(), ""
			c.replays.taken = nil // the replay was canceled
			if !c.beginReplay(ctx, &helpers) {
				notify(c.relay.updated) // more replays may be waiting than were listed
			}
		case <-c.timer.C:
			c.applyControl(time.Now()) // a pause may be over
		case <-ctx.Done():
		}
		if l := c.ledger; len(l.unparked) > 0 && !time.Now().Before(l.unparkAt) {
			l.flush(ctx)
		}
		c.dropDiscarded(ctx, time.Now())
		c.lookFurther(ctx, &helpers)
	}
	deadline := time.AfterFunc(c.relay.options.DrainTimeout, abort)
	defer deadline.Stop()
	c.seat.leave()
	if it := c.replays.taken; it != nil {
		it.replay <- result{item: it, fault: faultUncounted}
	}
	for c.pool.inFlight > 0 {
		c.finish(attempts, *<-c.pool.results)
	}
	c.seat.close()
	helpers.Wait()
	c.count(0)
	final, cancel := context.WithTimeout(c.relay.writes, finalTime)
	defer cancel()
	c.ledger.flush(final)
	c.publish(true)
}

// dispatch starts as many attempts as are allowed now.
func (c *consumer) dispatch(ctx, attempts context.Context) {
	c.count(c.order.Len())
	now := time.Now()
	c.paced = time.Time{}
	c.loadDue(ctx, now)
	waits := false // for its turn
	for c.lifetime.valid(now) && !c.holds() && c.pool.counted() < c.limit(now, c.untried()) && !c.pool.full() {
		if c.order.Waiting() == 0 && (c.health.state != Probing || len(c.scout.found) == 0) {
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
		} else if waits = !c.seat.take(); waits {
			pass.CancelAt(now)
			break
		}
		next, ok := c.next(now)
		if !ok {
			c.seat.putBack()
			break
		}
		c.launch(attempts, next, now)
	}
	if !waits && !c.resend(ctx, attempts, now) {
		c.seat.leave()
	}
	if c.pool.inFlight == 0 && c.order.Len() == 0 && c.order.Waiting() == 0 && len(c.held) == 0 {
		c.health.rest(now)
	}
	c.report.changed(c, now)
	c.observe()
}

// next returns the event to send next.
func (c *consumer) next(now time.Time) (*item, bool) {
	switch {
	case c.health.wantsProbe():
		c.scout.turn = !c.scout.turn
		if c.scout.turn && len(c.health.failed) >= fewResources {
			if it, ok := c.scout.next(c.order); ok {
				return it, true
			}
		}
		return c.order.Probe(c.health.outages, c.health.failed)
	case c.order.AllGiveWay(now):
		if it, ok := c.scout.next(c.order); ok {
			return it, true
		}
	}
	if c.health.state == Ramping {
		return c.order.Next(freshFirst, now)
	}
	return c.order.Next(inTurn, now)
}

// untried reports whether a probe would be of a resource that has not failed since the
// last success.
func (c *consumer) untried() bool { return c.order.Untried(c.health.failed) }

// quiet reports whether nothing can be sent except what has just failed.
func (c *consumer) quiet() bool { return c.pool.counted() == 0 && c.order.Waiting() == 0 }

func (c *consumer) coalesces() bool {
	return c.endpoint.Coalesce != "" && c.endpoint.Coalesce != tidings.CoalesceOff
}

// holds reports whether more of the log must be read before anything is sent.
func (c *consumer) holds() bool {
	more := c.order.Len() < c.windowLimit || c.relay.beyond.Load() < totalBeyond
	return c.order.window.read < c.hold && more
}

// count updates the process-wide number of events held beyond windows.
func (c *consumer) count(held int) {
	beyond := max(held-c.windowLimit, 0)
	c.relay.beyond.Add(int64(beyond - c.beyond))
	c.beyond = beyond
}

func (c *consumer) launch(attempts context.Context, it *item, now time.Time) {
	it.trial.kind = it.event.Name()
	c.health.send(&it.trial, now)
	probe := c.health.state == Probing && it.replay == nil
	attempt := tidings.Attempt{Event: it.event, Number: it.attempts + 1, Replay: it.replay != nil, Probe: probe}
	c.pool.inFlight++
	c.relay.workers.do(func() {
		began, outcome := time.Now(), tidings.Outcome{Verdict: tidings.Interrupted}
		// The process may have been suspended since the item was queued; by now
		// another replica may be delivering.
		if c.lifetime.valid(began) && attempts.Err() == nil {
			outcome = c.relay.attempt(attempts, &c.endpoint, attempt)
		}
		c.seat.finished(time.Since(began))
		c.pool.results <- &result{item: it, outcome: outcome}
	})
	c.counts.inFlight.Store(int64(c.pool.inFlight))
}

// finish handles the outcome of an attempt.
func (c *consumer) finish(ctx context.Context, r result) {
	it, now := r.item, time.Now()
	late := it.trial.outage != c.health.outages
	c.pool.finished(late)
	c.counts.add(r.outcome, it, c.pool.inFlight)
	c.relay.journal.attempted(c.endpoint.Name, it, r.outcome, now)
	if it.replay == nil {
		c.order.slow.finished(it, r.outcome, now)
	}
	outages, before, reason := c.health.outages, c.health.state, c.health.reason
	r.fault = c.health.observe(r.outcome, it.event.Resource(), &it.trial, c.quiet() && !it.more, now)
	c.countProbe(before)
	if r.fault == faultEndpoint && !late {
		c.heed(r.outcome, now)
	}
	switch {
	case c.health.outages != outages:
		c.pool.outdate() // requests already in flight say nothing about the outage
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
	case r.fault == faultNone:
		c.delivered(ctx, it, now)
	case r.fault == faultEvent:
		c.failed(ctx, it, r.outcome, now)
	case r.fault == faultUnclear:
		c.held = append(c.held, r)
	default:
		c.order.Return(it)
	}
	c.decide(ctx, r.fault == faultNone && !late, now)
	c.report.changed(c, now)
	c.observe()
}

// countProbe counts the failures of an outage, given the state before an outcome.
func (c *consumer) countProbe(before State) {
	switch {
	case c.health.state != Down && c.health.state != Probing:
		c.counts.probes.Store(0)
	case before == Down || before == Probing:
		c.counts.probes.Add(1)
	}
}

// decide attributes the failures on hold once it can: to the events if an event of
// another resource has succeeded since, to the endpoint if it is down. Until then
// they stay on hold.
func (c *consumer) decide(ctx context.Context, succeeded bool, now time.Time) {
	outage := c.health.state == Down || c.health.state == Probing
	if !succeeded && !outage && !c.quiet() {
		return
	}
	held := c.held
	c.held = nil
	for _, r := range held {
		if succeeded && !c.health.excuses(r.outcome, &r.item.trial) {
			c.failed(ctx, r.item, r.outcome, now)
		} else {
			c.order.Return(r.item)
		}
	}
}

// delivered settles an event and unblocks the next one of its resource.
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
	c.ledger.requeue(ctx, reason, c.health.troubledSince, now)
}

// disabled saves that the receiver wants no more events.
func (c *consumer) disabled(ctx context.Context, reason string, now time.Time) {
	control := eventlog.Control{
		Endpoint: c.endpoint.Name, Disabled: reason,
		Fingerprint: c.endpoint.Fingerprint, Since: now,
	}
	c.control = control
	c.ledger.store(ctx, func(ctx context.Context, _ eventlog.Lease) error {
		return errors.Join(c.ledger.log.SaveControl(ctx, control), c.ledger.log.Nudge(ctx))
	})
}

// failed parks an event that used up an attempt, or makes it a dead letter. Events
// behind a parked one wait with it; events behind a dead letter proceed.
func (c *consumer) failed(ctx context.Context, it *item, o tidings.Outcome, now time.Time) {
	retry := eventlog.Retry{
		Endpoint: c.endpoint.Name, Event: it.event,
		Attempts: it.attempts + 1, First: it.first, Reason: o.Reason, Detail: o.Detail,
		Response: string(o.Response), Last: now,
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
		if it.lane.before {
			c.ledger.dueAt(now)
		}
	} else {
		c.settle(ctx, it)
	}
}

// publish exposes the consumer's progress so that it gets saved, and at intervals
// what has overtaken the event that holds the cursor.
func (c *consumer) publish(final bool) {
	c.backlog.set(c.order)
	if !c.ledger.frozen && c.progress.follow(c.order, final, time.Now()) {
		notify(c.relay.moved)
	}
}

// arm sets the timer for the next change that happens without a signal.
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
		c.lifetime.valid(now) && c.roomForDue() {
		at(c.ledger.nextDue)
	}
	at(c.paced)
	if c.health.state == Disabled {
		at(c.control.Until)
	}
	at(c.discards)
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

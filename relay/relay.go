// Package relay delivers the events of a log to endpoints.
//
// Each endpoint has a consumer of its own, with its own requests, lanes and
// limits, so that one that hangs can't slow another. A consumer reads the log
// from its cursor and hands each event that its patterns match to the lane of
// the event's resource: one resource's events go one after another, those of
// different resources in parallel. The cursor follows behind what is settled;
// after a crash the consumer goes on from the cursor saved last.
//
// An event that fails while its endpoint is otherwise well is parked with a
// retry schedule, and later events of its resource wait behind it. An endpoint
// that fails as a whole is probed until it is back, and uses up no attempts.
//
// Several processes may run a relay on one log: each endpoint, or each of its
// partitions, is leased by one of them at a time, and they share them evenly.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Sender makes one attempt. It must return when the context ends.
type Sender interface {
	Send(ctx context.Context, a tidings.Attempt) tidings.Outcome
}

// SenderFunc adapts a function to a [Sender].
type SenderFunc func(ctx context.Context, a tidings.Attempt) tidings.Outcome

// Send calls f.
func (f SenderFunc) Send(ctx context.Context, a tidings.Attempt) tidings.Outcome { return f(ctx, a) }

// Endpoint is an endpoint with its delivery settings.
type Endpoint struct {
	tidings.Endpoint
	// Sender makes the attempts. Package sender provides one. Required.
	Sender Sender
	Retry  Schedule
	// RateLimit is the maximum number of requests per second, and Burst how many of
	// them may start at once. A RateLimit of 0 means no limit; a Burst of 0 means
	// one second's worth of requests.
	RateLimit float64
	Burst     int
	// Coalesce selects which waiting events are merged; empty means none.
	Coalesce tidings.Coalesce
	// Partitions is the number of replicas that may deliver to the endpoint at
	// once, each handling a different set of resources; 0 means 1. It must not
	// exceed MaxInFlight.
	Partitions int
	// History selects which attempts are recorded; empty means all.
	History HistoryMode
	// Fingerprint identifies the endpoint's configuration. An endpoint that
	// answered 410 stays disabled until its fingerprint changes, and [Relay.Update]
	// leaves an endpoint with an unchanged fingerprint alone.
	Fingerprint string
	// Oldest starts an endpoint without a cursor at the oldest event in the log.
	// Since starts it at the events created at or after that time, possibly
	// including some created up to [eventlog.TimeSlack] earlier. By default it
	// starts at the end of the log.
	Oldest bool
	Since  time.Time
	// CursorFrom names an endpoint that is no longer configured. If this endpoint
	// has no cursor, it resumes where that one stopped; see [Successors].
	CursorFrom string
	// Disabled stops delivery but keeps the cursor, unlike removing the endpoint.
	// Only the name is required then.
	Disabled bool
	// Closed is called once no more requests will be sent to the endpoint; may be
	// nil.
	Closed func()
}

func (e *Endpoint) partitions() []eventlog.Partition {
	all := make([]eventlog.Partition, max(e.Partitions, 1))
	for i := range all {
		all[i] = eventlog.Partition{Endpoint: e.Name, Index: i, Of: len(all)}
	}
	return all
}

// share returns the endpoint with one partition's share of the limits.
func (e Endpoint) share() Endpoint {
	n := max(e.Partitions, 1)
	if e.MaxInFlight <= 0 {
		e.MaxInFlight = defaultMaxInFlight
	}
	e.MaxInFlight = max(e.MaxInFlight/n, 1)
	e.RateLimit /= float64(n)
	if e.Burst == 0 {
		e.Burst = int(e.RateLimit)
	} else {
		e.Burst /= n
	}
	e.Burst = max(e.Burst, 1)
	return e
}

func (e *Endpoint) limiter() *rate.Limiter {
	if e.RateLimit <= 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Limit(e.RateLimit), e.Burst)
}

// Observer is notified of what happens to events. Its methods are called
// concurrently and must not block.
type Observer interface {
	// Attempted is called after each attempt.
	Attempted(endpoint string, a tidings.Attempt, o tidings.Outcome)
	// Merged is called when an event is not sent because it was merged into
	// another.
	Merged(endpoint string, gone, into tidings.Event)
	// Filtered is called when a parked event is not sent because the endpoint's
	// patterns no longer match it.
	Filtered(endpoint string, e tidings.Event)
	// Missed is called when events expired before the endpoint got them, or when
	// the database lost them.
	Missed(g eventlog.Gap)
}

// Options configures a relay. The zero value is usable.
type Options struct {
	// Logger; nil means [slog.Default].
	Logger *slog.Logger
	// Observer; nil means none.
	Observer Observer
	// Trace starts a trace of an attempt and may set the attempt's Trace field. The
	// function that it returns is called when the attempt is over. Nil means no
	// tracing.
	Trace func(endpoint string, a *tidings.Attempt) (end func(tidings.Outcome))
	// DrainTimeout is how long attempts in flight may take to finish when the relay
	// stops; 0 means 10 seconds.
	DrainTimeout time.Duration
	// CursorInterval is how often cursors are saved; 0 means 250 ms. After a crash,
	// events delivered since the last save are delivered again.
	CursorInterval time.Duration
	// LeaseTime is how long a replica that was killed keeps its leases; 0 means 10
	// seconds. Replicas renew their leases three times as often.
	LeaseTime time.Duration
	// Version is that of the program, shown to operators; may be empty.
	Version string
	// MaxInFlight is the maximum number of attempts in flight to all endpoints
	// together; 0 means [DefaultMaxInFlight]. Endpoints share it evenly, so with more
	// endpoints than attempts, one may wait until those of others are over.
	MaxInFlight int
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	for option, value := range map[*time.Duration]time.Duration{
		&o.DrainTimeout: 10 * time.Second, &o.CursorInterval: 250 * time.Millisecond, &o.LeaseTime: 10 * time.Second,
	} {
		if *option == 0 {
			*option = value
		}
	}
}

type noObserver struct{}

func (noObserver) Attempted(string, tidings.Attempt, tidings.Outcome) {}
func (noObserver) Merged(string, tidings.Event, tidings.Event)        {}
func (noObserver) Filtered(string, tidings.Event)                     {}
func (noObserver) Missed(eventlog.Gap)                                {}

// Relay delivers events. Create one with [New].
type Relay struct {
	log      eventlog.Log
	options  Options
	logger   *slog.Logger
	tail     *tail
	history  *history
	journal  *journal
	failures *failures
	parker   parker
	budget   *budget
	workers  *workers
	beyond   atomic.Int64 // events that all consumers hold beyond their windows

	mu        sync.Mutex
	endpoints map[string]*configured
	setup     eventlog.Setup // of the endpoints
	retired   []*configured  // replaced, but still used by consumers
	running   map[*consumer]struct{}
	updated   chan struct{} // signaled when the endpoints change
	moved     chan struct{} // signaled when a cursor moves
	urgent    chan struct{} // signaled if that has to be saved at once
	saving    chan struct{} // semaphore held while cursors are saved
	preparing chan struct{} // semaphore held while cursors are created or renamed, and the setup changes
	scouting  chan struct{} // semaphore held while a consumer reads beyond its window

	// Contexts of attempts and writes. They outlive Run's context for a while.
	attempts, writes context.Context //nolint:containedctx // all of Run's goroutines share them
	stopBy           atomic.Pointer[time.Time]
}

// configured is an endpoint that consumers may be using.
type configured struct {
	Endpoint
	users  int // number of consumers
	hinted *hinted
}

// New prepares a relay. It creates a cursor for each endpoint that has none, at the
// end of the log unless the endpoint says otherwise. Events committed after New
// returns reach every endpoint. Endpoint names must be unique.
func New(ctx context.Context, log eventlog.Log, endpoints []Endpoint, options Options) (*Relay, error) {
	options.setDefaults()
	r := &Relay{
		log: log, options: options, logger: options.Logger, tail: newTail(log, options.Logger),
		history: newHistory(log, options.Logger), journal: newJournal(), failures: newFailures(options.Logger),
		parker: parker{log: log}, budget: newBudget(options.MaxInFlight), workers: newWorkers(),
		endpoints: make(map[string]*configured), running: make(map[*consumer]struct{}), updated: make(chan struct{}, 1),
		moved: make(chan struct{}, 1), urgent: make(chan struct{}, 1), saving: make(chan struct{}, 1),
		scouting: make(chan struct{}, 1), preparing: make(chan struct{}, 1),
	}
	r.tail.began, r.tail.lost, r.tail.rewound = r.prepareAgain, r.noteLoss, r.rewound
	if err := r.tail.start(ctx); err != nil {
		return nil, err
	}
	return r, r.Update(ctx, endpoints)
}

// Update replaces the endpoints. Everything that can fail happens before the first
// change. A new endpoint starts at the end of the log unless it says otherwise, it
// had a cursor before, or it succeeds an endpoint that was removed. A changed
// endpoint switches to its new settings once its requests in flight are finished.
// An unchanged one is not interrupted.
func (r *Relay) Update(ctx context.Context, endpoints []Endpoint) error {
	next := make(map[string]*configured)
	var setup eventlog.Setup
	for _, e := range endpoints {
		if next[e.Name] != nil {
			return fmt.Errorf("two endpoints are named %q", e.Name)
		}
		if e.Disabled {
			setup.Disabled = append(setup.Disabled, e.Name)
			continue
		}
		if e.Sender == nil {
			return fmt.Errorf("endpoint %s has no Sender", e.Name)
		}
		if limit := cmp.Or(e.MaxInFlight, defaultMaxInFlight); e.Partitions > limit {
			return fmt.Errorf("endpoint %s: %d partitions can't share %d requests in flight",
				e.Name, e.Partitions, limit)
		}
		next[e.Name] = &configured{Endpoint: e, hinted: new(hinted)}
		setup.Partitions = append(setup.Partitions, e.partitions()...)
	}
	var err error
	if setup.Head, err = r.log.Advance(ctx); err != nil {
		return err
	}
	// Save the cursors, so that new partitions know what the old ones have settled.
	if err := r.saveCursors(ctx, r.consumers()...); err != nil {
		return err
	}
	if err := r.starts(ctx, endpoints, &setup); err != nil {
		return err
	}
	select {
	case r.preparing <- struct{}{}:
		defer func() { <-r.preparing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := r.prepare(ctx, endpoints, setup, everything); err != nil {
		return err
	}
	r.mu.Lock()
	r.setup = setup
	var unused []*configured
	for name, old := range r.endpoints {
		now := next[name]
		if now != nil && now.Fingerprint != "" && now.Fingerprint == old.Fingerprint {
			unused = append(unused, now)
			next[name] = old
			continue
		}
		if now != nil {
			now.hinted = old.hinted
		}
		r.retired = append(r.retired, old)
	}
	r.endpoints = next
	unused = append(unused, r.unused()...)
	r.mu.Unlock()
	for _, c := range unused {
		c.close()
	}
	notify(r.updated)
	return nil
}

// unused removes and returns the retired endpoints that no consumer uses. r.mu must
// be held.
func (r *Relay) unused() (unused []*configured) {
	r.retired = slices.DeleteFunc(r.retired, func(c *configured) bool {
		if c.users == 0 {
			unused = append(unused, c)
		}
		return c.users == 0
	})
	return unused
}

func (c *configured) close() {
	if c.Closed != nil {
		c.Closed()
	}
}

// Endpoints returns the current endpoints, sorted by name.
func (r *Relay) Endpoints() []Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Endpoint, 0, len(r.endpoints))
	for _, c := range r.endpoints {
		all = append(all, c.Endpoint)
	}
	slices.SortFunc(all, func(a, b Endpoint) int { return compare(a.Name, b.Name) })
	return all
}

// ErrNoEndpoint means that no endpoint of this name is configured.
var ErrNoEndpoint = errors.New("no endpoint of this name is configured")

// Send sends an event to an endpoint immediately, bypassing its lanes and ignoring
// its state, and returns the outcome. Use it with [tidings.Ping].
func (r *Relay) Send(ctx context.Context, endpoint string, e tidings.Event) (tidings.Outcome, error) {
	r.mu.Lock()
	c := r.endpoints[endpoint]
	if c != nil {
		c.users++
	}
	r.mu.Unlock()
	if c == nil {
		return tidings.Outcome{}, ErrNoEndpoint
	}
	defer r.release(c)
	seat := r.budget.open(endpoint)
	defer seat.close()
	for !seat.take() {
		select {
		case <-seat.turn:
		case <-ctx.Done():
			return tidings.Outcome{Verdict: tidings.Interrupted}, nil
		}
	}
	began := time.Now()
	defer func() { seat.finished(time.Since(began)) }()
	return r.attempt(ctx, &c.Endpoint, tidings.Attempt{Event: e, Number: 1}), nil
}

// release ends one use of an endpoint and closes retired endpoints that are no
// longer used.
func (r *Relay) release(c *configured) {
	r.mu.Lock()
	c.users--
	unused := r.unused()
	r.mu.Unlock()
	for _, c := range unused {
		c.close()
	}
}

// attempt makes one attempt, traces and records it, and notifies the observer.
func (r *Relay) attempt(ctx context.Context, e *Endpoint, a tidings.Attempt) tidings.Outcome {
	end := func(tidings.Outcome) {}
	if r.options.Trace != nil {
		end = r.options.Trace(e.Name, &a)
	}
	o := e.Sender.Send(ctx, a)
	end(o)
	r.options.Observer.Attempted(e.Name, a, o)
	r.history.attempted(e, a, o)
	return o
}

// Run delivers events until the context ends. It then waits for attempts in flight,
// saves the cursors, releases its leases and returns. It returns an error only if
// the final cursors could not be saved. [Relay.StopBy] limits how long that may
// take. Call Run only once.
func (r *Relay) Run(ctx context.Context) error {
	defer r.endAfter(ctx)()
	var background sync.WaitGroup
	delivering, stop := context.WithCancel(r.writes)
	defer stop()
	background.Go(func() { r.tail.run(ctx) })
	background.Go(func() { r.saveRegularly(delivering) })
	background.Go(func() { r.history.run(delivering, r.writes) })
	background.Go(func() { r.failures.run(delivering) })

	replica := newReplica(r)
	ended := replica.run(ctx)
	r.workers.close()
	stop()
	err := replica.leave(ended)
	background.Wait()
	r.parker.writer.Wait()
	final, cancel := context.WithTimeout(r.writes, finalTime)
	defer cancel()
	r.writeJournal(final, true)
	r.mu.Lock()
	for _, c := range r.endpoints {
		r.retired = append(r.retired, c)
	}
	unused := r.unused()
	r.mu.Unlock()
	for _, c := range unused {
		c.close()
	}
	return err
}

// Read returns at most limit events after a position. Recent events come from
// memory. [eventlog.Log.Oldest] returns the oldest position that can be read.
func (r *Relay) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	events, _, err := r.tail.read(ctx, after, limit)
	return events, err
}

// Stuck returns an [eventlog.UnavailableError] if committed events have not been
// numbered for 5 seconds or longer, so that nothing new is delivered.
func (r *Relay) Stuck() error { return r.tail.stuck() }

// Head returns the position of the newest event.
func (r *Relay) Head() int64 { return r.tail.position() }

// Epoch returns the id of the current epoch of the log.
func (r *Relay) Epoch() string { return r.tail.view.Load().epoch }

// Refresh reads new events from the log without waiting for the wake-up signal.
func (r *Relay) Refresh(ctx context.Context) error { return r.tail.follow(ctx) }

// More returns a channel that is closed once there are events after a position, or
// once a new epoch has begun in which some events before it were lost.
func (r *Relay) More(after int64) <-chan struct{} { return r.tail.more(after) }

// HistoryDropped returns how many history records were dropped because the database
// did not accept them in time.
func (r *Relay) HistoryDropped() int64 { return r.history.dropped.Load() }

func notify(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

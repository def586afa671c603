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

// Sender makes one attempt. It returns when the context ends at the latest.
type Sender interface {
	Send(ctx context.Context, a tidings.Attempt) tidings.Outcome
}

// SenderFunc is a function as a [Sender].
type SenderFunc func(ctx context.Context, a tidings.Attempt) tidings.Outcome

// Send calls f.
func (f SenderFunc) Send(ctx context.Context, a tidings.Attempt) tidings.Outcome { return f(ctx, a) }

// Endpoint is an endpoint and how it is reached.
type Endpoint struct {
	tidings.Endpoint
	// Sender makes its attempts; package sender has one. Required.
	Sender Sender
	Retry  Schedule
	// RateLimit is how many requests may begin in a second, and Burst how many of
	// them at once; 0 means no limit, and a burst of one second's requests.
	RateLimit float64
	Burst     int
	// Coalesce says which waiting events become one; empty means none.
	Coalesce tidings.Coalesce
	// Partitions is how many replicas may deliver to it at once, each the events
	// of other resources; 0 means 1. It must not be more than MaxInFlight.
	Partitions int
	// History says which attempts are kept; empty means all.
	History HistoryMode
	// Fingerprint changes with the endpoint's configuration: one that answered
	// 410 stays disabled until it does, and [Relay.Update] leaves an endpoint
	// alone whose fingerprint stays.
	Fingerprint string
	// Oldest has an endpoint without a cursor begin with the oldest event that there
	// is, and Since with those made at that time or later, and perhaps some of up to
	// [eventlog.TimeSlack] before. Without either it begins at the end of the log.
	Oldest bool
	Since  time.Time
	// CursorFrom is the name of an endpoint that is not configured any more, and where
	// that stopped this one goes on if it has no cursor; see [Successors].
	CursorFrom string
	// Disabled sends nothing to it and keeps its cursor, as though it were not removed;
	// only its name is needed then.
	Disabled bool
	// Closed is called once nothing is sent to it any more; may be nil.
	Closed func()
}

func (e *Endpoint) partitions() []eventlog.Partition {
	all := make([]eventlog.Partition, max(e.Partitions, 1))
	for i := range all {
		all[i] = eventlog.Partition{Endpoint: e.Name, Index: i, Of: len(all)}
	}
	return all
}

// share is the endpoint as one partition has it: its part of the limits.
func (e Endpoint) share() Endpoint {
	n := max(e.Partitions, 1)
	if e.MaxInFlight <= 0 {
		e.MaxInFlight = defaultMaxInFlight
	}
	e.MaxInFlight = max(e.MaxInFlight/n, 1)
	e.RateLimit /= float64(n)
	e.Burst = max(e.Burst/n, 1, int(e.RateLimit)*truth(e.Burst == 0))
	return e
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e *Endpoint) limiter() *rate.Limiter {
	if e.RateLimit <= 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Limit(e.RateLimit), e.Burst)
}

// Observer is told of what happens to events. It is called from many goroutines
// and must not block.
type Observer interface {
	// Attempted tells of an attempt.
	Attempted(endpoint string, a tidings.Attempt, o tidings.Outcome)
	// Merged tells that an event is not sent, because another one tells of it.
	Merged(endpoint string, gone, into tidings.Event)
	// Filtered tells that a parked event is not sent, because the endpoint's patterns
	// do not match it any more.
	Filtered(endpoint string, e tidings.Event)
	// Missed tells that events expired before the endpoint got them, or that the
	// database lost them.
	Missed(g eventlog.Gap)
}

// Options of a relay; the zero value works.
type Options struct {
	// Logger; nil means [slog.Default].
	Logger *slog.Logger
	// Observer; nil means none.
	Observer Observer
	// Trace begins a trace of an attempt and may set its Trace; what it returns is
	// called when the attempt is over. Nil means none.
	Trace func(endpoint string, a *tidings.Attempt) (end func(tidings.Outcome))
	// DrainTimeout is how long attempts under way may take to finish when the
	// relay stops; 0 means 10 seconds.
	DrainTimeout time.Duration
	// CursorInterval is how often cursors are saved; 0 means 250 ms. What was
	// delivered since is delivered again after a crash.
	CursorInterval time.Duration
	// LeaseTime is how long a replica that was killed keeps its endpoints; 0 means
	// 10 seconds. It says that it is alive three times as often.
	LeaseTime time.Duration
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	for option, value := range map[*time.Duration]time.Duration{
		&o.DrainTimeout: 10 * time.Second, &o.CursorInterval: 250 * time.Millisecond, &o.LeaseTime: 10 * time.Second,
	} {
		if *option == 0 {
			*option = value
		}
	}
}

type nobody struct{}

func (nobody) Attempted(string, tidings.Attempt, tidings.Outcome) {}
func (nobody) Merged(string, tidings.Event, tidings.Event)        {}
func (nobody) Filtered(string, tidings.Event)                     {}
func (nobody) Missed(eventlog.Gap)                                {}

// Relay delivers events. Make one with [New].
type Relay struct {
	log     eventlog.Log
	options Options
	logger  *slog.Logger
	tail    *tail
	history *history
	parker  parker
	beyond  atomic.Int64 // events that consumers hold beyond their windows

	mu        sync.Mutex
	endpoints map[string]*configured
	setup     eventlog.Setup         // of these
	retired   []*configured          // in use no longer than their consumers
	running   map[*consumer]struct{} // written by the replica, read by all
	updated   chan struct{}          // the endpoints were
	moved     chan struct{}          // a cursor was
	saving    chan struct{}          // held while cursors are saved; a lock that can be given up
	scouting  chan struct{}          // the same while a consumer looks beyond its window

	// Contexts of attempts and of writes, which outlast that of Run for a while.
	attempts, writes context.Context //nolint:containedctx // all of Run's goroutines share them
	stopBy           atomic.Pointer[time.Time]
}

// configured is an endpoint that consumers may be using.
type configured struct {
	Endpoint
	users int // consumers
}

// New prepares a relay: it saves a cursor for each endpoint that has none, at the end
// of the log unless the endpoint says otherwise. Events committed after New returns reach every
// endpoint. Endpoint names must differ.
func New(ctx context.Context, log eventlog.Log, endpoints []Endpoint, options Options) (*Relay, error) {
	options.setDefaults()
	r := &Relay{
		log: log, options: options, logger: options.Logger, tail: newTail(log, options.Logger),
		history: newHistory(log, options.Logger),
		parker:  parker{log: log}, endpoints: make(map[string]*configured), running: make(map[*consumer]struct{}),
		updated: make(chan struct{}, 1), moved: make(chan struct{}, 1), saving: make(chan struct{}, 1),
		scouting: make(chan struct{}, 1),
	}
	r.tail.began, r.tail.lost, r.tail.rewound = r.prepareAgain, r.noteLoss, r.rewound
	if err := r.tail.start(ctx); err != nil {
		return nil, err
	}
	return r, r.Update(ctx, endpoints)
}

// Update replaces the endpoints. All that can fail comes first; then those that
// are new begin at the end of the log unless they say otherwise, where they stopped
// before, or where the one stopped whose place they take; those that
// changed go on with their new settings once what is under way is finished, and
// those that did not change go on as though nothing happened.
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
			return fmt.Errorf("endpoint %s: it has no Sender", e.Name)
		}
		if limit := cmp.Or(e.MaxInFlight, defaultMaxInFlight); e.Partitions > limit {
			return fmt.Errorf("endpoint %s: %d partitions can't share %d requests in flight",
				e.Name, e.Partitions, limit)
		}
		next[e.Name] = &configured{Endpoint: e}
		setup.Partitions = append(setup.Partitions, e.partitions()...)
	}
	var err error
	if setup.Head, err = r.log.Advance(ctx); err != nil {
		return err
	}
	// What partitions had settled is known to those that take their place.
	if err := r.saveCursors(ctx, r.consumers()...); err != nil {
		return err
	}
	if err := r.succeed(ctx, endpoints, setup); err != nil {
		return err
	}
	if err := r.starts(ctx, endpoints, &setup); err != nil {
		return err
	}
	if err := r.log.Prepare(ctx, setup); err != nil {
		return err
	}
	r.mu.Lock()
	r.setup = setup
	var unused []*configured
	for name, old := range r.endpoints {
		if now := next[name]; now != nil && now.Fingerprint != "" && now.Fingerprint == old.Fingerprint {
			unused = append(unused, now)
			next[name] = old
			continue
		}
		r.retired = append(r.retired, old)
	}
	r.endpoints = next
	unused = append(unused, r.unused()...)
	r.mu.Unlock()
	for _, c := range unused {
		c.close()
	}
	give(r.updated)
	return nil
}

// unused takes out the retired endpoints that no consumer uses; r.mu is held.
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

// Endpoints returns the endpoints as they are configured now, by name.
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

// ErrNoEndpoint says that no endpoint of a name is configured.
var ErrNoEndpoint = errors.New("no endpoint of this name is configured")

// Send sends an event to an endpoint at once, past its lanes and whatever its
// state, and returns what came of it; [tidings.Ping] is made for it.
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
	return r.attempt(ctx, &c.Endpoint, tidings.Attempt{Event: e, Number: 1}), nil
}

// release ends a use of an endpoint.
func (r *Relay) release(c *configured) {
	r.mu.Lock()
	c.users--
	unused := r.unused()
	r.mu.Unlock()
	for _, c := range unused {
		c.close()
	}
}

// attempt makes an attempt and tells of it.
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

// Run delivers until the context ends; then it lets the attempts under way
// finish, saves the cursors, gives its leases back, and returns. It returns an
// error only if the cursors could not be saved at the end. See [Relay.StopBy] for how
// long that may take. Call it once.
func (r *Relay) Run(ctx context.Context) error {
	defer r.endAfter(ctx)()
	var background sync.WaitGroup
	delivering, stop := context.WithCancel(r.writes)
	defer stop()
	background.Go(func() { r.tail.run(ctx) })
	background.Go(func() { r.saveRegularly(delivering) })
	background.Go(func() { r.history.run(delivering, r.writes) })

	replica := newReplica(r)
	ended := replica.run(ctx)
	stop()
	err := replica.leave(ended)
	background.Wait()
	r.parker.writer.Wait()
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

// Read returns at most limit events after a position, from memory where they are
// new. [eventlog.Log.Oldest] says where there are any.
func (r *Relay) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	events, _, err := r.tail.read(ctx, after, limit)
	return events, err
}

// Stuck returns an [eventlog.UnavailableError] while committed events have not been
// numbered for 5 seconds or longer, so that nothing new is delivered.
func (r *Relay) Stuck() error { return r.tail.stuck() }

// Head returns the position of the newest event.
func (r *Relay) Head() int64 { return r.tail.position() }

// Epoch returns the id of the epoch in which the log is read.
func (r *Relay) Epoch() string { return r.tail.view.Load().epoch }

// Refresh reads what was added to the log, as happens by itself a moment later.
func (r *Relay) Refresh(ctx context.Context) error { return r.tail.follow(ctx) }

// More returns a channel that is closed once there are events after a position, or
// another epoch began in which some before it were lost.
func (r *Relay) More(after int64) <-chan struct{} { return r.tail.more(after) }

// HistoryDropped returns how many records of the history were given up, because
// the database did not take them in time.
func (r *Relay) HistoryDropped() int64 { return r.history.dropped.Load() }

func give(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

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
package relay

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

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
	Sender Sender
	Retry  Schedule
	// Fingerprint changes with the endpoint's configuration: one that answered
	// 410 stays disabled until it does.
	Fingerprint string
}

// Observer is told of every attempt. It is called from many goroutines and must
// not block.
type Observer interface {
	Attempted(endpoint string, a tidings.Attempt, o tidings.Outcome)
}

// Options of a relay; the zero value works.
type Options struct {
	// Logger; nil means [slog.Default].
	Logger *slog.Logger
	// Observer; nil means none.
	Observer Observer
	// DrainTimeout is how long attempts under way may take to finish when the
	// relay stops; 0 means 10 seconds.
	DrainTimeout time.Duration
	// CursorInterval is how often cursors are saved; 0 means 250 ms. What was
	// delivered since is delivered again after a crash.
	CursorInterval time.Duration
}

// Relay delivers events. Make one with [New].
type Relay struct {
	log       eventlog.Log
	options   Options
	logger    *slog.Logger
	tail      *tail
	consumers []*consumer
	saved     map[string]eventlog.Cursor
	moved     chan struct{} // a cursor did
}

// New prepares a relay: it reads the cursors, and saves one at the end of the
// log for each endpoint that has none. Events committed after New returns reach
// every endpoint. Endpoint names must differ.
func New(ctx context.Context, log eventlog.Log, endpoints []Endpoint, options Options) (*Relay, error) {
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	if options.DrainTimeout == 0 {
		options.DrainTimeout = 10 * time.Second
	}
	if options.CursorInterval == 0 {
		options.CursorInterval = 250 * time.Millisecond
	}
	r := &Relay{log: log, options: options, logger: options.Logger, moved: make(chan struct{}, 1), tail: newTail(log, options.Logger)}
	if err := r.tail.start(ctx); err != nil {
		return nil, err
	}
	var err error
	if r.saved, err = log.Cursors(ctx); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, e := range endpoints {
		if seen[e.Name] {
			return nil, fmt.Errorf("two endpoints are named %q", e.Name)
		}
		seen[e.Name] = true
		r.consumers = append(r.consumers, r.newConsumer(e))
	}
	return r, r.saveCursors(ctx)
}

func (r *Relay) newConsumer(e Endpoint) *consumer {
	cursor, known := r.saved[e.Name]
	if !known {
		cursor.Sequence = r.tail.head
	}
	if cursor.Fingerprint != e.Fingerprint {
		cursor.Disabled = ""
	}
	return newConsumer(e, cursor, r)
}

// Run delivers until the context ends; then it lets the attempts under way
// finish, saves the cursors, and returns. It returns an error only if the
// cursors could not be saved at the end. Call it once.
func (r *Relay) Run(ctx context.Context) error {
	attempts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var tailing, consuming, saving sync.WaitGroup
	tailing.Go(func() { r.tail.run(ctx) })
	for _, c := range r.consumers {
		consuming.Go(func() { c.run(ctx, attempts) })
	}
	saving.Go(func() { r.saveRegularly(ctx) })

	<-ctx.Done()
	deadline := time.AfterFunc(r.options.DrainTimeout, cancel)
	consuming.Wait()
	deadline.Stop()
	tailing.Wait()
	saving.Wait()

	final, cancelFinal := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancelFinal()
	if err := r.saveCursors(final); err != nil {
		return fmt.Errorf("save cursors at the end: %w", err)
	}
	return nil
}

// saveRegularly saves cursors once they move, and then no more often than the
// interval says. After a start it is more eager, so that a process that is
// killed again and again still gets ahead.
func (r *Relay) saveRegularly(ctx context.Context) {
	pause := r.options.CursorInterval / 16
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.moved:
		}
		err := r.saveCursors(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			r.logger.Error("cursors cannot be saved, trying again", "error", err)
		}
		if failing = err != nil; failing {
			r.wakeSaver()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, r.options.CursorInterval)
	}
}

func (r *Relay) wakeSaver() {
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// saveCursors writes the cursors that moved, all in one statement.
func (r *Relay) saveCursors(ctx context.Context) error {
	var moved []eventlog.Cursor
	for _, c := range r.consumers {
		if cursor := *c.cursor.Load(); cursor != r.saved[cursor.Endpoint] {
			moved = append(moved, cursor)
		}
	}
	if err := r.log.SaveCursors(ctx, moved); err != nil {
		return err
	}
	for _, c := range moved {
		r.saved[c.Endpoint] = c
	}
	return nil
}

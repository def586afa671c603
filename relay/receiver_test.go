package relay_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// receiver is a sender with scripted answers that remembers what arrived.
type receiver struct {
	answer func(a tidings.Attempt) tidings.Outcome // nil: delivered
	delay  time.Duration

	mu        sync.Mutex
	attempts  []attempt
	delivered []string // event ids
	now, most int      // requests at once
}

type attempt struct {
	id     string
	number int
	at     time.Duration // since the receiver's first attempt
}

var (
	delivered   = tidings.Outcome{Verdict: tidings.Delivered, Status: 200}
	failed      = tidings.Outcome{Verdict: tidings.Failed, Reason: "http_500", Status: 500}
	refused     = tidings.Outcome{Verdict: tidings.Refused, Reason: "http_400", Status: 400}
	throttled   = tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_503", Status: 503}
	rejected    = tidings.Outcome{Verdict: tidings.Rejected, Reason: "http_413", Status: 413}
	unreachable = tidings.Outcome{Verdict: tidings.Unreachable, Reason: "connect"}
	gone        = tidings.Outcome{Verdict: tidings.Gone, Reason: "http_410", Status: 410}
)

// failures are the outcomes that may be the fault of an event or of the endpoint.
var failures = map[string]tidings.Outcome{
	"301":     {Verdict: tidings.Refused, Reason: tidings.ReasonRedirect, Status: 301},
	"401":     {Verdict: tidings.Unauthorized, Reason: "http_401", Status: 401},
	"403":     {Verdict: tidings.Unauthorized, Reason: "http_403", Status: 403},
	"404":     {Verdict: tidings.Refused, Reason: "http_404", Status: 404},
	"413":     rejected,
	"415":     {Verdict: tidings.Rejected, Reason: "http_415", Status: 415},
	"422":     {Verdict: tidings.Refused, Reason: "http_422", Status: 422},
	"429":     {Verdict: tidings.Throttled, Reason: "http_429", Status: 429},
	"500":     failed,
	"503":     throttled,
	"timeout": {Verdict: tidings.Failed, Reason: tidings.ReasonTimeout},
}

func (r *receiver) Send(ctx context.Context, a tidings.Attempt) tidings.Outcome {
	r.mu.Lock()
	r.attempts = append(r.attempts, attempt{a.Event.ID, a.Number, time.Duration(time.Now().UnixNano())})
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	if !r.pass(ctx) {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
		return tidings.Outcome{Verdict: tidings.Interrupted}
	}
	outcome := delivered
	if r.answer != nil {
		outcome = r.answer(a)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now--
	if outcome.Verdict == tidings.Delivered {
		r.delivered = append(r.delivered, a.Event.ID)
	}
	return outcome
}

// pass waits for the delay; false if the context ended first.
func (r *receiver) pass(ctx context.Context) bool {
	if r.delay == 0 {
		return true
	}
	select {
	case <-time.After(r.delay):
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.delivered)
}

func (r *receiver) tries() []attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.attempts)
}

func endpoint(name string, s relay.Sender) relay.Endpoint {
	return relay.Endpoint{Endpoint: tidings.Endpoint{Name: name, MaxInFlight: 4}, Sender: s}
}

// start runs a relay until stop is called.
func start(t *testing.T, log eventlog.Log, options relay.Options, endpoints ...relay.Endpoint) (stop func()) {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := relay.New(ctx, log, endpoints, options)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func event(resource, version int) tidings.Event { return eventlogtest.Sample(resource, version) }

func cursor(t *testing.T, log *eventlogtest.Memory, name string) int64 {
	t.Helper()
	cursors, err := log.Cursors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cursors {
		if c.Endpoint == name {
			return c.Sequence
		}
	}
	t.Fatalf("endpoint %s has no cursor", name)
	return 0
}

// status is what was saved of the only endpoint's state.
func status(t *testing.T, log *eventlogtest.Memory) string {
	t.Helper()
	cursors, err := log.Cursors(t.Context())
	if err != nil || len(cursors) != 1 {
		t.Fatalf("%+v, %v", cursors, err)
	}
	return string(cursors[0].Status)
}

func deadLetters(t *testing.T, log *eventlogtest.Memory) []eventlog.Retry {
	t.Helper()
	dead, err := log.Parked(t.Context(), eventlog.ParkedFilter{Endpoint: "a", Dead: true, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return dead
}

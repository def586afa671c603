package outboxtest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

// Receiver is a server that receives, verifies and records webhooks. It stops at
// the end of its test, which fails if a webhook does not verify. Create one with
// [NewReceiver].
type Receiver struct {
	// URL and Secret are the settings of an endpoint for this receiver.
	URL, Secret string

	tb     testing.TB
	mu     sync.Mutex
	status int
	events []tidings.Event
	more   chan struct{} // closed and replaced when events arrive
}

// NewReceiver starts a receiver on the loopback interface.
func NewReceiver(tb testing.TB) *Receiver {
	tb.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	r := &Receiver{Secret: "whsec_" + base64.StdEncoding.EncodeToString(key), tb: tb, more: make(chan struct{})}
	verifier, err := receive.NewVerifier(r.Secret)
	if err != nil {
		tb.Fatal(err)
	}
	handler := receive.NewHandler(verifier, r.take)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		status := r.status
		r.mu.Unlock()
		if status != 0 {
			w.WriteHeader(status)
			return
		}
		answer := &answer{ResponseWriter: w}
		if handler.ServeHTTP(answer, request); answer.status != http.StatusNoContent {
			tb.Errorf("a webhook does not verify: %s, %v", http.StatusText(answer.status), request.Header)
		}
	}))
	tb.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// answer records the status.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Endpoint returns an endpoint for this receiver.
func (r *Receiver) Endpoint() tidings.Endpoint {
	return tidings.Endpoint{URL: r.URL, Secrets: []string{r.Secret}}
}

// Answer makes the receiver respond with a status and accept nothing, until it is
// called with 0.
func (r *Receiver) Answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *Receiver) take(_ context.Context, e tidings.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	close(r.more)
	r.more = make(chan struct{})
	return nil
}

// Received returns the events received so far, without duplicates.
func (r *Receiver) Received() []tidings.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.events)
}

// waitTime is how long Wait waits.
const waitTime = 30 * time.Second

// Wait waits until at least n webhooks have arrived and returns them. The test
// fails if they do not arrive within 30 seconds.
func (r *Receiver) Wait(n int) []tidings.Event {
	r.tb.Helper()
	deadline := time.NewTimer(waitTime)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		more, got := r.more, slices.Clip(r.events)
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-more:
		case <-deadline.C:
			r.tb.Fatalf("%d webhooks arrived within %v, want %d", len(got), waitTime, n)
		}
	}
}

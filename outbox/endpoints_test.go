package outbox_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
	"github.com/tidings-dev/tidings/relay"
)

// Endpoints are added and removed at run time, and an invalid one changes nothing.
func TestSetEndpoints(t *testing.T) {
	hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{})
	run(t, hooks)
	tellFile(t, hooks, ordered("before any"))
	a, b := outboxtest.NewReceiver(t), outboxtest.NewReceiver(t)
	set := func(endpoints ...tidings.Endpoint) {
		t.Helper()
		if err := hooks.SetEndpoints(t.Context(), endpoints...); err != nil {
			t.Fatal(err)
		}
	}
	set(a.Endpoint())
	tellFile(t, hooks, ordered("for a"))
	a.Wait(1)
	set(a.Endpoint(), b.Endpoint())
	tellFile(t, hooks, ordered("for both"))
	if a.Wait(2); ids(b.Wait(1)) != "for both" {
		t.Errorf("b got %s", ids(b.Received()))
	}
	for name, endpoints := range map[string][]tidings.Endpoint{
		"twice": {a.Endpoint(), a.Endpoint()}, "no URL": {{Name: "crm"}},
		"secret": {{URL: a.URL, Secrets: []string{"x"}}},
	} {
		if err := hooks.SetEndpoints(t.Context(), endpoints...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	set(b.Endpoint())
	waitFor(t, func() bool { return hooks.Relay().Held() == 1 }) // a's has ended
	tellFile(t, hooks, ordered("for b"))
	if b.Wait(2); ids(a.Received()) != "for a for both" {
		t.Errorf("a got %s", ids(a.Received()))
	}
	if name := hooks.Relay().Endpoints()[0].Name; name != strings.TrimPrefix(b.URL, "http://") {
		t.Errorf("name = %q", name)
	}
}

func tellFile(t *testing.T, hooks *outbox.Outbox, events ...outbox.Event) {
	t.Helper()
	tx, err := hooks.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := hooks.Tell(t.Context(), tx, events...); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func ownedBy(owner string) func(tidings.Event) bool {
	return func(e tidings.Event) bool { return e.OwnerID == owner }
}

// An endpoint for each tenant gets only the tenant's events, in a replay too, whatever
// happens to the endpoints meanwhile.
func TestEndpointForEachTenant(t *testing.T) {
	a, b := outboxtest.NewReceiver(t), outboxtest.NewReceiver(t)
	forA, forB := a.Endpoint(), b.Endpoint()
	forA.Filter, forB.Filter = ownedBy("a"), ownedBy("b")
	hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{Endpoints: []tidings.Endpoint{forA, forB}})
	run(t, hooks)
	tell := func(id, owner string) {
		t.Helper()
		e := ordered(id)
		e.OwnerID = owner
		tellFile(t, hooks, e)
	}
	tell("1", "a")
	tell("2", "b")
	a.Wait(1)
	b.Wait(1)

	// The receiver of a is b's now, and an invalid endpoint changes nothing.
	forA.Filter = ownedBy("nobody")
	if err := hooks.SetEndpoints(t.Context(), forA, tidings.Endpoint{Name: "no URL"}); err == nil {
		t.Fatal("no error")
	}
	tell("3", "a")
	a.Wait(2)
	forA.Filter = ownedBy("b")
	if err := hooks.SetEndpoints(t.Context(), forA, forB); err != nil {
		t.Fatal(err)
	}
	tell("4", "a")
	tell("5", "b")
	b.Wait(2)
	if got := ids(a.Wait(3)); got != "1 3 5" {
		t.Errorf("a got %s", got)
	}

	name := hooks.Relay().Endpoints()[0].Name
	for _, e := range hooks.Relay().Endpoints() {
		if strings.HasSuffix(a.URL, e.Name) {
			name = e.Name
		}
	}
	err := hooks.Log().AddReplay(t.Context(),
		eventlog.Replay{ID: "all", Endpoint: name, From: 1, To: 5, State: eventlog.ReplayRunning})
	if err == nil {
		err = hooks.Log().Nudge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		r, _, err := hooks.Log().Replay(t.Context(), "all")
		return err == nil && r.State == eventlog.ReplayDone
	})
	if got := ids(a.Received()); got != "1 3 5 2" { // 5 is not handled a second time
		t.Errorf("a got %s with the replay", got)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testtool.Allow(20 * time.Second)); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in time")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// What tidings.Endpoint lacks is set by Configure.
func TestConfigure(t *testing.T) {
	sent := make(chan tidings.Attempt, 1)
	hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{
		Endpoints: []tidings.Endpoint{{Name: "queue", URL: "http://queue.invalid/"}},
		Configure: func(e *relay.Endpoint) error {
			e.RateLimit = 5
			e.Sender = relay.SenderFunc(func(ctx context.Context, a tidings.Attempt) tidings.Outcome {
				sent <- a
				return tidings.Outcome{Verdict: tidings.Delivered}
			})
			return nil
		},
	})
	run(t, hooks)
	tellFile(t, hooks, ordered("1"))
	if a := <-sent; a.Event.ResourceID != "1" || hooks.Relay().Endpoints()[0].RateLimit != 5 {
		t.Errorf("sent %+v", a)
	}
}

// An endpoint whose Sender was forgotten is refused, instead of failing at its first event.
func TestForgottenSenderIsRefused(t *testing.T) {
	hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{})
	err := hooks.SetRelayEndpoints(t.Context(), relay.Endpoint{
		Endpoint: tidings.Endpoint{Name: "queue", URL: "http://queue.invalid/"},
	})
	if err == nil || !strings.Contains(err.Error(), "endpoint queue has no Sender") {
		t.Errorf("error = %v, want one about the Sender", err)
	}
	if names := hooks.EndpointNames(); len(names) > 0 {
		t.Errorf("endpoints = %v", names)
	}
}

// Close waits for attempts in flight, but not forever.
func TestCloseWaits(t *testing.T) {
	for name, hangs := range map[string]bool{"for a slow receiver": false, "but not for one that hangs": true} {
		t.Run(name, func(t *testing.T) {
			begun, finished, over := make(chan struct{}, 99), make(chan struct{}, 99), make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				begun <- struct{}{}
				if hangs {
					<-over
				} else {
					<-time.After(300 * time.Millisecond)
				}
				finished <- struct{}{}
			}))
			defer server.Close()
			defer close(over)
			drain := 20 * time.Second
			if hangs {
				drain = 300 * time.Millisecond
			}
			hooks := open(t, outbox.SQLiteFile(newFile(t)), outbox.Options{
				Endpoints: []tidings.Endpoint{{URL: server.URL}}, Relay: relay.Options{DrainTimeout: drain},
			})
			run(t, hooks)
			tellFile(t, hooks, ordered("1"))
			<-begun
			before := time.Now()
			if err := hooks.Close(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(before); took > testtool.Allow(3*time.Second) {
				t.Errorf("it took %v", took)
			}
			if !hangs {
				select {
				case <-finished:
				default:
					t.Error("it did not wait")
				}
			}
		})
	}
}

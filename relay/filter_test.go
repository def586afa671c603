package relay_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// An event that a filter refuses is never sent: neither live, nor as a retry, nor in a
// replay, whether of a range, of a single event, or of dead letters.
func TestFilterHoldsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		onlyX := false
		owners := make(map[string]string) // of events, by id
		r := &replayed{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			switch a.Event.ResourceID {
			case event(1, 0).ResourceID: // parked
				return refused
			case event(2, 0).ResourceID: // a dead letter
				return rejected
			}
			return delivered
		}
		a := endpoint("a", r)
		a.Filter = func(e tidings.Event) bool { return !onlyX || e.OwnerID == "x" }
		stop := start(t, log, relay.Options{}, a)
		for i := range 8 {
			e := event(i, 0)
			e.OwnerID = []string{"x", "y"}[i%2]
			if i == 2 {
				e.OwnerID = "y"
			}
			owners[e.ID] = e.OwnerID
			log.Append(e)
		}
		time.Sleep(time.Second)
		stop()
		if n := len(r.tries()); n != 8 {
			t.Fatalf("%d attempts, want 8", n)
		}

		// From now on it wants only those of x.
		onlyX = true
		stop = start(t, log, relay.Options{}, a)
		before := len(r.tries())
		begin(t, log, eventlog.Replay{ID: "range", From: 1, To: 8})
		begin(t, log, eventlog.Replay{ID: "one", From: 4, To: 4})
		begin(t, log, eventlog.Replay{ID: "dead", Dead: true, From: 1, To: 8})
		later := event(9, 0)
		later.OwnerID, owners[later.ID] = "y", "y"
		log.Append(later)
		time.Sleep(24 * time.Hour)
		stop()
		for _, try := range r.tries()[before:] {
			if owners[try.id] != "x" {
				t.Errorf("sent: an event of %q", owners[try.id])
			}
		}
		if n := len(r.sentAgain()); n != 3 { // the resources 0, 4 and 6
			t.Errorf("%d sent again, want 3", n)
		}
		for _, id := range []string{"range", "one", "dead"} {
			if state := replayOf(t, log, id).State; state != eventlog.ReplayDone {
				t.Errorf("replay %s is %s", id, state)
			}
		}
		if parked, err := log.Parked(t.Context(), eventlog.ParkedFilter{Endpoint: "a", Limit: 9}); err != nil ||
			len(parked) > 1 {
			t.Errorf("parked: %v, %v; want the dead letter at most", parked, err)
		}
	})
}

// A missing sender is an error, not a nil pointer in a goroutine.
func TestEndpointWithoutASender(t *testing.T) {
	forgotten := relay.Endpoint{Endpoint: tidings.Endpoint{Name: "crm"}}
	options := relay.Options{Logger: slog.New(slog.DiscardHandler)}
	_, err := relay.New(t.Context(), eventlogtest.NewMemory(), []relay.Endpoint{forgotten}, options)
	if err == nil || !strings.Contains(err.Error(), "crm") || !strings.Contains(err.Error(), "Sender") {
		t.Errorf("error = %v", err)
	}
	forgotten.Disabled = true
	if _, err := relay.New(t.Context(), eventlogtest.NewMemory(), []relay.Endpoint{forgotten}, options); err != nil {
		t.Errorf("a disabled endpoint needs no sender: %v", err)
	}
}

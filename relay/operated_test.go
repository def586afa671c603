package relay_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// A dead letter that is retried while a later event of its resource is in flight is sent
// once that one is settled in whatever way, and before events that come later still.
func TestRetryWhileALaterEventIsInFlight(t *testing.T) {
	for name, second := range map[string]tidings.Outcome{
		"delivered": delivered, "parked": refused, "dead": rejected,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				var mended atomic.Bool
				r := &receiver{delay: 10 * time.Second}
				r.answer = func(a tidings.Attempt) tidings.Outcome {
					switch {
					case a.Event.ID == "evt-1-0" && !mended.Load():
						return rejected
					case a.Event.ID == "evt-1-1" && a.Number == 1:
						return second
					}
					return delivered
				}
				stop := start(t, log, relay.Options{}, endpoint("a", r))
				defer stop()
				log.Append(event(1, 0), event(2, 0))
				time.Sleep(time.Minute)
				mended.Store(true)
				log.Append(event(1, 1), event(2, 1))
				time.Sleep(time.Second)
				dead := deadLetters(t, log)
				if len(dead) != 1 {
					t.Fatalf("%d dead letters", len(dead))
				}
				if err := log.RetryParked(t.Context(), "a", []tidings.Event{dead[0].Event}, time.Now()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(6 * time.Second)
				log.Append(event(1, 2), event(2, 2))
				time.Sleep(10 * time.Minute)
				got := r.got()
				at := func(id string) int { return slices.Index(got, id) }
				if at("evt-1-0") < 0 || at("evt-1-0") > at("evt-1-2") {
					t.Errorf("delivered: %q", got)
				}
				if n := log.RetryRows() - len(deadLetters(t, log)); n != 0 {
					t.Errorf("%d events are still parked", n)
				}
			})
		})
	}
}

// What was discarded is not sent, even if it had become due while the endpoint was down,
// and what waited behind it is.
func TestDiscardDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{delay: 10 * time.Millisecond}
		var down atomic.Bool
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			switch {
			case down.Load():
				return unreachable
			case a.Event.ID == "evt-1-0" && a.Number == 1:
				return refused
			}
			return delivered
		}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		defer stop()
		log.Append(event(1, 0), event(2, 0), event(1, 1), event(1, 2), event(1, 3), event(2, 1))
		time.Sleep(time.Second)
		down.Store(true)
		log.Append(event(3, 0))
		time.Sleep(10 * time.Minute) // the parked events are due and in memory
		discard := func(sequences ...int64) {
			n, err := log.Discard(t.Context(), "a", sequences, eventlog.Discard{At: time.Now(), Comment: "obsolete"})
			if err != nil || n != int64(len(sequences)) {
				t.Fatal(n, err)
			}
		}
		discard(1, 4)
		time.Sleep(time.Minute)
		down.Store(false)
		time.Sleep(time.Hour)
		got := r.got()
		slices.Sort(got)
		if want := []string{"evt-1-1", "evt-1-3", "evt-2-0", "evt-2-1", "evt-3-0"}; !slices.Equal(got, want) {
			t.Errorf("delivered %q, want %q", got, want)
		}
		if n := log.RetryRows(); n != 0 {
			t.Errorf("%d events are still parked", n)
		}
	})
}

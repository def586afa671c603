package relay_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// ofType is an event of a resource of a different type than that of [event].
func ofType(t tidings.ResourceType, n, version int) tidings.Event {
	e := event(n, version)
	e.Type, e.ID = t, fmt.Sprintf("%s-%d-%d", t, n, version)
	return e
}

// delays are how long events took to be delivered, by the prefix of their ids.
type delays struct {
	mu    sync.Mutex
	began map[string]time.Time
	took  map[string][]time.Duration
}

func (d *delays) append(log *eventlogtest.Memory, e tidings.Event) {
	d.mu.Lock()
	d.began[e.ID] = time.Now()
	d.mu.Unlock()
	log.Append(e)
}

func (d *delays) arrived(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kind, _, _ := strings.Cut(id, "-")
	d.took[kind] = append(d.took[kind], time.Since(d.began[id]))
}

func newDelays() *delays {
	return &delays{began: make(map[string]time.Time), took: make(map[string][]time.Duration)}
}

// hang is no answer within the timeout.
var hang = tidings.Outcome{Verdict: tidings.Failed, Reason: tidings.ReasonTimeout, Duration: 15 * time.Second}

// Many events that the receiver chokes on do not hold up those behind them for long,
// whatever it does with them, more than a window holds or fewer, of the same type or
// another.
func TestManyBadEventsAheadOfGoodOnes(t *testing.T) {
	answers := maps.Clone(failures)
	answers["reset"] = tidings.Outcome{Verdict: tidings.Unreachable, Reason: tidings.ReasonReset}
	answers["timeout"] = hang
	for name, bad := range answers {
		for _, count := range []int{1500, 900, 100} {
			for _, good := range []tidings.ResourceType{"order", "invoice"} {
				t.Run(fmt.Sprintf("%s/%d orders ahead of %ss", name, count, good), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { sendGoodOnes(t, bad, count, good) })
				})
			}
		}
	}
}

// sendGoodOnes sends events of a type behind so many bad ones.
func sendGoodOnes(t *testing.T, bad tidings.Outcome, count int, good tidings.ResourceType) {
	log := eventlogtest.NewMemory()
	end := time.Now().Add(2 * time.Minute)
	r := &receiver{answer: badUntil(end, bad, func(e tidings.Event) bool { return e.Sequence <= int64(count) })}
	prepare(t, log)
	for n := range count {
		log.Append(ofType("order", n, 0))
	}
	for n := range 20 {
		log.Append(ofType(good, 10_000+n, 0))
	}
	stop := start(t, log, relay.Options{}, endpoint("a", r))
	time.Sleep(time.Until(end))
	stop()
	if n := len(r.got()); n != 20 {
		t.Errorf("%d of the 20 good events delivered in two minutes", n)
	}
}

// prepare lets endpoint a begin at the start of the log.
func prepare(t *testing.T, log *eventlogtest.Memory) {
	t.Helper()
	setup := eventlog.Setup{Partitions: []eventlog.Partition{{Endpoint: "a", Of: 1}}}
	if err := log.Prepare(t.Context(), setup); err != nil {
		t.Fatal(err)
	}
}

// badUntil answers some events with an outcome, after the time that it took. Those
// still in flight at the end are answered then.
func badUntil(
	end time.Time, o tidings.Outcome, bad func(tidings.Event) bool,
) func(tidings.Attempt) tidings.Outcome {
	return func(a tidings.Attempt) tidings.Outcome {
		if !bad(a.Event) {
			return delivered
		}
		time.Sleep(min(o.Duration, time.Until(end)))
		return o
	}
}

// A good event that comes long after an endpoint has looked beyond its window, where it
// found only bad ones, does not wait for all of these.
func TestGoodEventLongAfterManyBadOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.Type == "order" {
				return failed
			}
			return delivered
		}}
		prepare(t, log)
		for n := range 1500 {
			log.Append(ofType("order", n, 0))
		}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(10 * time.Minute)
		log.Append(ofType("invoice", 1, 0))
		time.Sleep(5 * time.Minute)
		stop()
		if n := len(r.got()); n != 1 {
			t.Errorf("%d delivered in five minutes, want the good one", n)
		}
	})
}

// Of a receiver that takes one request at a time and never answers events of one type,
// the other types get about half of the time, and that one the rest.
func TestTypeThatHangsGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		end := time.Now().Add(5 * time.Minute)
		hangs := badUntil(end, hang, func(e tidings.Event) bool { return e.Type == "order" })
		r := &receiver{delay: 50 * time.Millisecond, answer: hangs}
		prepare(t, log)
		for n := range 50 {
			log.Append(ofType("order", n, 0))
		}
		for n := range 6000 {
			log.Append(ofType("invoice", n, 0))
		}
		e := endpoint("a", r)
		e.MaxInFlight = 1
		stop := start(t, log, relay.Options{}, e)
		time.Sleep(time.Until(end))
		stop()
		good := len(r.got())
		if bad := len(r.tries()) - good; good < 2500 || bad < 8 {
			t.Errorf("%d invoices delivered and %d orders tried in five minutes", good, bad)
		}
	})
}

// An endpoint that fails one type of events, and only that, delivers all others at
// once, for as long as the test runs.
func TestOneTypeFails(t *testing.T) {
	for name, tt := range map[string]struct {
		perSecond, every int // events, and how many of the others there are for each that fails
		lasts            time.Duration
	}{
		"35 minutes":        {10, 14, 35 * time.Minute},
		"33 and 2.5/second": {33, 13, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				d := newDelays()
				r := &receiver{delay: 5 * time.Millisecond, answer: func(a tidings.Attempt) tidings.Outcome {
					if a.Event.Type == "connector" {
						return failed
					}
					d.arrived(a.Event.ID)
					return delivered
				}}
				stop := start(t, log, relay.Options{}, endpoint("a", r))
				n, pause := 0, time.Second/time.Duration(tt.perSecond)
				for end := time.Now().Add(tt.lasts); time.Now().Before(end); time.Sleep(pause) {
					n++
					d.append(log, ofType("context", n, 0))
					if n%tt.every == 0 {
						d.append(log, ofType("connector", n, 0))
					}
				}
				time.Sleep(time.Second)
				stop()
				took := d.took["context"]
				slices.Sort(took)
				if len(took) != n {
					t.Fatalf("%d of %d delivered", len(took), n)
				}
				last := took[len(took)-1]
				if last > time.Second {
					t.Errorf("one took %v", last)
				}
				t.Logf("%d of %d delivered, each within %v", len(took), n, last)
			})
		})
	}
}

// Events of a type that fails, and came first, don't hold up those of another: types
// are probed in turn.
func TestTypesAreProbedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.Type == "connector" {
				return failed
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Second)
		for n := range 40 {
			log.Append(ofType("connector", n, 0))
		}
		for n := range 150 {
			log.Append(ofType("context", n, 0))
		}
		begun := time.Now()
		for len(r.got()) < 150 && time.Since(begun) < 47*time.Second {
			time.Sleep(time.Second)
		}
		stop()
		if n := len(r.got()); n != 150 {
			t.Errorf("%d of 150 delivered in 47 s", n)
		}
		t.Logf("%d of 150 delivered in %v", len(r.got()), time.Since(begun))
	})
}

// An endpoint that has recovered, and has received everything, is healthy.
func TestHealthyOnceNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		well := time.Now().Add(time.Minute)
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if time.Now().Before(well) {
				return failed
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Second)
		log.Append(event(1, 0))
		time.Sleep(5 * time.Minute)
		stop()
		if got := status(t, log); !strings.Contains(got, `"state":"healthy"`) {
			t.Errorf("status = %s", got)
		}
	})
}

// A request that was sent before the endpoint went down and succeeds later ends no outage: the
// receiver, which has refused everything since, gets a probe now and then, and no more.
func TestLateSuccessEndsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if strings.HasPrefix(a.Event.ID, "evt-0-") || strings.HasPrefix(a.Event.ID, "evt-1-") {
				time.Sleep(time.Duration(a.Event.Sequence) * 5 * time.Second)
				return delivered
			}
			return tidings.Outcome{Verdict: tidings.Failed, Reason: "http_500", Status: 500}
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Second)
		for n := range 100 {
			log.Append(event(n, 0))
		}
		time.Sleep(20 * time.Second)
		stop()
		if got := r.got(); len(got) != 2 {
			t.Errorf("%v delivered, want the two slow ones", got)
		}
		// Five until it is down, those in flight then, and probes after 1, 2, 4 and 8 s.
		n := len(r.tries())
		if n > 25 {
			t.Errorf("%d requests in 20 s", n)
		}
		t.Logf("%d requests in 20 s, 2 of them delivered late", n)
	})
}

// A receiver that is up every other half minute gets everything, soon after it is up.
func TestReceiverThatIsUpEveryOtherHalfMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		began := time.Now()
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if int(time.Since(began).Seconds())/30%2 == 0 {
				return unreachable
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 600 {
			log.Append(event(i, 0))
			time.Sleep(time.Second)
		}
		if n := len(r.got()); n < 480 {
			t.Errorf("%d of 600 delivered in ten minutes", n)
		} else {
			t.Logf("%d of 600 delivered in ten minutes", n)
		}
		time.Sleep(2 * time.Minute)
		stop()
		if n := len(r.got()); n != 600 {
			t.Errorf("%d of 600 delivered", n)
		}
		expectOrder(t, r.got())
		for _, a := range r.tries() {
			if a.number != 1 {
				t.Fatalf("%v: an outage used up attempts", a)
			}
		}
	})
}

// A load balancer's 404 during a deployment parks nothing and uses up no attempts.
func TestDeploymentThatAnswers404(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		began := time.Now()
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if at := time.Since(began); at > 20*time.Second && at < 50*time.Second {
				return refused
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 700 {
			log.Append(event(i, 0))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		stop()
		if n := len(r.got()); n != 700 {
			t.Errorf("%d of 700 delivered", n)
		}
		if n := log.RetryRows(); n != 0 {
			t.Errorf("%d parked", n)
		}
		t.Logf("%d of 700 delivered, %d parked, %d requests", len(r.got()), log.RetryRows(), len(r.tries()))
	})
}

// An event that fails again and again while others get through uses up attempts and is
// parked, or is a dead letter at once, whatever it is answered with, and stops nobody.
func TestEventThatAlwaysFails(t *testing.T) {
	for name, bad := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
					if strings.HasPrefix(a.Event.ID, "evt-0-") {
						return bad
					}
					return delivered
				}}
				stop := start(t, log, relay.Options{}, endpoint("a", r))
				const events = 3000
				for i := range events {
					log.Append(event(i, 0))
					if i%100 == 0 {
						time.Sleep(time.Second)
					}
				}
				time.Sleep(time.Minute)
				stop()
				if n := len(r.got()); n != events-1 {
					t.Errorf("%d delivered, want all but the one", n)
				}
				dead, attempts := bad.Verdict == tidings.Rejected, 2
				if dead {
					attempts = 1
				}
				parked, err := log.Parked(t.Context(), eventlog.ParkedFilter{Endpoint: "a", Dead: dead, Limit: 10})
				if err != nil || len(parked) != 1 || parked[0].Attempts != attempts {
					t.Errorf("parked = %+v, %v; want the one, with %d attempts spent", parked, err, attempts)
				}
				requests := len(r.tries()) - len(r.got())
				if requests > 8*attempts { // 429 and 503 excuse a few
					t.Errorf("%d requests for %d attempts", requests, attempts)
				}
				t.Logf("%d delivered, the other after %d attempts, %d requests, parked", len(r.got()), attempts, requests)
			})
		})
	}
}

// What was parked when an outage began is due again when it is over, once: it loses no more
// than one attempt.
func TestWhatWasParkedBeforeAnOutageIsDueAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		began := time.Now()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			switch at := time.Since(began); {
			case at > time.Minute && at < 2*time.Minute:
				return failed
			case at > 50*time.Second && at < time.Minute && a.Event.ID[len(a.Event.ID)-3] == '0': // it starts with some
				return failed
			}
			return delivered
		}}
		e := endpoint("a", r)
		e.Retry.Delays = []time.Duration{time.Hour}
		stop := start(t, log, relay.Options{}, e)
		for i := range 1800 {
			log.Append(event(i, 0))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute)
		stop()
		failures := len(r.tries()) - len(r.got())
		if missing := 1800 - len(r.got()); missing > 0 || failures < 15 {
			t.Errorf("%d of 1800 wait for an hour; %d requests failed", missing, failures)
		}
	})
}

// When an endpoint is back, events that were never sent go first until it is healthy, and
// take turns with parked ones that are due afterwards.
func TestFreshEventsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var away atomic.Bool
		r := &receiver{delay: time.Millisecond, answer: func(a tidings.Attempt) tidings.Outcome {
			if away.Load() || a.Event.Type == "connector" {
				return failed
			}
			return delivered
		}}
		e := endpoint("a", r)
		e.MaxInFlight, e.Retry.Delays = 16, slices.Repeat([]time.Duration{5 * time.Minute}, 5)
		stop := start(t, log, relay.Options{}, e)
		const bad, good = 20, 300
		for n := range bad {
			log.Append(ofType("connector", n, 0), ofType("context", n, 0))
		}
		time.Sleep(time.Second)
		log.Append(ofType("context", bad+good, 0)) // a success after the last failure
		time.Sleep(2 * time.Minute)                // by chance, enough fail in a row for an outage
		if n := log.RetryRows(); n != bad {
			t.Fatalf("%d parked, want %d", n, bad)
		}
		away.Store(true)
		for n := range good {
			log.Append(ofType("context", bad+n, 0))
		}
		time.Sleep(10 * time.Minute) // they are due
		away.Store(false)
		before := len(r.tries())
		time.Sleep(2 * time.Minute)
		stop()
		ramp := e.MaxInFlight - 1 // requests until as many as allowed are in flight
		var due []int             // when parked ones were sent, counted in requests
		tries := r.tries()[before:]
		for i, a := range tries[:good] {
			if strings.HasPrefix(a.id, "connector") {
				due = append(due, i)
			}
		}
		if len(due) != bad || due[0] < ramp {
			t.Errorf("%d parked events were among the first %d requests, at %v; want %d, none in the first %d",
				len(due), good, due, bad, ramp)
		}
	})
}

// A quiet endpoint that fails one event is probed at intervals, even while parked events
// are due.
func TestOneEventFailsWhileParkedOnesAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.Action == tidings.Deleted {
				return failed
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		gone := func(n int) tidings.Event {
			e := event(n, 1)
			e.Action = tidings.Deleted
			return e
		}
		log.Append(gone(0))
		for n := range 3 {
			log.Append(event(10+n, 0))
		}
		time.Sleep(time.Second)
		log.Append(gone(1))
		time.Sleep(10 * time.Minute)
		stop()
		if n := len(r.tries()); n > 60 {
			t.Errorf("%d requests in ten minutes", n)
		}
	})
}

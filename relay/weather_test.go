package relay_test

import (
	"context"
	"fmt"
	"log/slog"
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

// ofType is an event of a resource of another type than that of [event].
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

// Many events that the receiver chokes on, more than a window holds, do not hold up
// those behind them for long, whatever it answers them with.
func TestManyBadEventsAheadOfGoodOnes(t *testing.T) {
	for name, bad := range map[string]tidings.Outcome{"500": failed, "404": refused, "429": throttled} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
					if strings.HasPrefix(a.Event.ID, "evt-9") {
						return delivered
					}
					return bad
				}}
				for i := range 1200 {
					log.Append(event(10_000+i, 0))
				}
				e := endpoint("a", r)
				if err := log.Prepare(t.Context(), eventlog.Setup{Partitions: []eventlog.Partition{{Endpoint: "a", Of: 1}}, Head: 0}); err != nil {
					t.Fatal(err)
				}
				for i := range 20 {
					log.Append(event(90_000+i, 0))
				}
				stop := start(t, log, relay.Options{}, e)
				time.Sleep(5 * time.Minute)
				stop()
				if n := len(r.got()); n != 20 {
					t.Errorf("%d of the 20 good events delivered in 5 minutes", n)
				}
				expectOrder(t, r.got())
			})
		})
	}
}

// An endpoint that fails one type of events, and only that, delivers all others at
// once, for as long as one watches.
func TestOneTypeFails(t *testing.T) {
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
		n := 0
		for range 35 * 60 * 10 { // ten a second, for 35 minutes
			n++
			d.append(log, ofType("context", n, 0))
			if n%14 == 0 {
				d.append(log, ofType("connector", n, 0))
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		stop()
		took := d.took["context"]
		slices.Sort(took)
		if len(took) != n {
			t.Errorf("%d of %d delivered", len(took), n)
		}
		if last := took[len(took)-1]; last > time.Second {
			t.Errorf("one took %v", last)
		}
	})
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
		time.Sleep(47 * time.Second)
		stop()
		if n := len(r.got()); n != 150 {
			t.Errorf("%d of 150 delivered in 47 s", n)
		}
	})
}

// An endpoint that is well again, and has got all there is, is healthy.
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
		cursors, err := log.Cursors(t.Context())
		if err != nil || len(cursors) != 1 || !strings.Contains(string(cursors[0].Status), `"state":"healthy"`) {
			t.Errorf("%+v, %v", cursors, err)
		}
	})
}

// What was learned of a receiver that limits the rate outlives a restart and a reload:
// it gets most of what it allows at once, and refuses few requests.
func TestLearnedRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, burst, seconds = 50, 5, 5
		log := eventlogtest.NewMemory()
		var mu sync.Mutex
		level, at := 0.0, time.Now()
		var refusals atomic.Int64
		r := &receiver{delay: time.Millisecond, answer: func(tidings.Attempt) tidings.Outcome {
			mu.Lock()
			defer mu.Unlock()
			level, at = max(level-time.Since(at).Seconds()*rate, 0), time.Now()
			if level > burst {
				refusals.Add(1)
				return tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_429", Status: 429}
			}
			level++
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Second)
		for n := range 10_000 {
			log.Append(event(n, 0))
		}
		time.Sleep(time.Minute)
		stop()
		goesOn := func(after string) {
			t.Helper()
			before, refusedBefore := len(r.got()), refusals.Load()
			time.Sleep(seconds * time.Second)
			if n := len(r.got()) - before; n < rate*seconds*8/10 {
				t.Errorf("%d delivered in %d s after %s, %d are allowed", n, seconds, after, rate*seconds)
			}
			if n := refusals.Load() - refusedBefore; n > 8 { // without what was learned, 20
				t.Errorf("%d refused in %d s after %s, want 8 at most", n, seconds, after)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		restarted, err := relay.New(ctx, log, []relay.Endpoint{endpoint("a", r)}, relay.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		done := background(func() error { return restarted.Run(ctx) })
		goesOn("a restart")
		changed := endpoint("a", r)
		changed.Fingerprint = "changed"
		if err := restarted.Update(ctx, []relay.Endpoint{changed}); err != nil {
			t.Fatal(err)
		}
		goesOn("a reload")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A success of a request that was sent before the endpoint went down ends no outage: the
// receiver that refuses everything since gets a probe now and then, and no more.
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
		if n := len(r.tries()); n > 25 {
			t.Errorf("%d requests in 20 s", n)
		}
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

// A load balancer's 404 during a deployment parks nothing and spends no attempt.
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
	})
}

// A bad event that is answered 403 again and again while others get through spends
// attempts, and stops nobody.
func TestForbiddenEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		forbidden := tidings.Outcome{Verdict: tidings.Unauthorized, Reason: "http_403", Status: 403}
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if strings.HasPrefix(a.Event.ID, "evt-0-") {
				return forbidden
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 3000 {
			log.Append(event(i, 0))
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Minute)
		stop()
		if n := len(r.got()); n != 2999 {
			t.Errorf("%d delivered, want all but the one", n)
		}
		parked, err := log.Parked(t.Context(), eventlog.ParkedFilter{Endpoint: "a", Limit: 10})
		if err != nil || len(parked) != 1 || parked[0].Attempts < 2 {
			t.Errorf("parked = %+v, %v; want the one, with attempts spent", parked, err)
		}
	})
}

// Refusals that do not depend on how fast requests come slow nobody down for long:
// those of a few events, and those of one backend of several.
func TestRefusalsThatAreNotForLoad(t *testing.T) {
	const seconds = 90
	for _, test := range []struct {
		name    string
		refused func(a tidings.Attempt, request int, since time.Duration) bool
		want    int
	}{
		{"one event in a hundred", func(a tidings.Attempt, _ int, _ time.Duration) bool {
			return strings.HasSuffix(a.Event.ID, "00-0")
		}, 15_000},
		{"one backend in eight", func(_ tidings.Attempt, request int, _ time.Duration) bool { return request%8 == 0 }, 1800},
		{"one in two for half a minute", func(_ tidings.Attempt, request int, since time.Duration) bool {
			return since < 30*time.Second && request%2 == 0
		}, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				began := time.Now()
				var requests atomic.Int64
				r := &receiver{delay: time.Millisecond, answer: func(a tidings.Attempt) tidings.Outcome {
					if test.refused(a, int(requests.Add(1)), time.Since(began)) {
						return throttled
					}
					return delivered
				}}
				stop := start(t, log, relay.Options{}, endpoint("a", r))
				for n := range 20_000 {
					log.Append(event(n, 0))
				}
				time.Sleep(seconds * time.Second)
				stop()
				if n := len(r.got()); n < test.want {
					t.Errorf("%d delivered in %d s, want at least %d", n, seconds, test.want)
				} else {
					t.Logf("%d delivered", n)
				}
			})
		})
	}
}

// A receiver with one worker, which takes a while for each request, gets no more at
// once than it answers in time.
func TestReceiverWithOneWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		worker := make(chan struct{}, 1)
		var executed, timeouts int
		var mu sync.Mutex
		send := func(ctx context.Context, _ tidings.Attempt) tidings.Outcome {
			began := time.Now()
			ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			answered := make(chan struct{})
			go func() { // it works on after the client is gone
				worker <- struct{}{}
				time.Sleep(1500 * time.Millisecond)
				<-worker
				mu.Lock()
				executed++
				mu.Unlock()
				close(answered)
			}()
			select {
			case <-answered:
				return tidings.Outcome{Verdict: tidings.Delivered, Status: 200, Duration: time.Since(began)}
			case <-ctx.Done():
				mu.Lock()
				timeouts++
				mu.Unlock()
				return tidings.Outcome{Verdict: tidings.Failed, Reason: tidings.ReasonTimeout, Duration: time.Since(began)}
			}
		}
		e := endpoint("a", relay.SenderFunc(send))
		e.MaxInFlight = 16
		stop := start(t, log, relay.Options{}, e)
		for i := range 200 {
			log.Append(event(i, 0))
		}
		time.Sleep(time.Minute)
		mu.Lock()
		if executed < 38 || timeouts > 0 {
			t.Errorf("%d executed in a minute, %d timeouts; want 40 and none", executed, timeouts)
		}
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		mu.Lock()
		defer mu.Unlock()
		if executed != 200 {
			t.Errorf("%d executed, want each of 200 once", executed)
		}
	})
}

// A pause that the receiver asked for outlives a restart.
func TestRetryAfterOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		until := time.Now().Add(10 * time.Minute)
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if time.Now().Before(until) {
				return tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_503", Status: 503, RetryAfter: time.Until(until)}
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		log.Append(event(1, 0))
		time.Sleep(time.Minute)
		stop()
		stop = start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Until(until) + time.Second)
		stop()
		if tries := r.tries(); len(tries) != 2 || len(r.got()) != 1 {
			t.Errorf("requests: %v, delivered %v; want one before the pause and one after it", tries, r.got())
		}
	})
}

// What was parked when an outage began is due again when it is over.
func TestWhatWasParkedBeforeAnOutageIsDueAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		began := time.Now()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			switch at := time.Since(began); {
			case at > time.Minute && at < 2*time.Minute:
				return failed
			case at > 50*time.Second && at < time.Minute && a.Event.ID[len(a.Event.ID)-3] == '0': // it begins with some
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
		missing := 1800 - len(r.got())
		if missing > 20 {
			t.Errorf("%d wait for an hour", missing)
		}
	})
}

// A change of the number of partitions, in either direction, sends nothing again.
func TestPartitionsChangeWithoutDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{delay: 20 * time.Millisecond}
		slow := func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-3-0" && len(r.got()) < 700 {
				return unreachable // it holds up its partition
			}
			return delivered
		}
		r.answer = slow
		n := 0
		for _, partitions := range []int{4, 1, 7, 2} {
			e := endpoint("a", r)
			e.MaxInFlight, e.Partitions = 16, partitions
			stop := start(t, log, relay.Options{}, e)
			for range 500 {
				log.Append(event(n, 0))
				n++
			}
			time.Sleep(5 * time.Second)
			stop()
		}
		e := endpoint("a", r)
		stop := start(t, log, relay.Options{}, e)
		time.Sleep(time.Hour)
		stop()
		if got := r.got(); len(got) != n {
			t.Errorf("%d delivered, want %d, each once", len(got), n)
		}
	})
}

// A process that was killed before the database's clock was set back by hours keeps its
// endpoints no longer than another one.
func TestClockSetBackAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &cluster{Memory: eventlogtest.NewMemory()}, &receiver{}
		killed := c.start(t, r, manyEndpoints(4)...)
		c.start(t, r, manyEndpoints(4)...)
		time.Sleep(time.Minute)
		killed.kill()
		c.Jump(-5 * time.Hour)
		time.Sleep(20 * time.Second)
		c.append(event(1, 0))
		time.Sleep(time.Second)
		if n := len(r.got()); n != 4 {
			t.Errorf("%d delivered, want 4", n)
		}
	})
}

// Who asks for what is new waits no longer than they want to for another who has no
// answer from the database.
func TestRefreshIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		p := c.start(t, &receiver{}, endpoint("a", nil))
		time.Sleep(time.Second)
		p.set(&p.silent, true)
		time.Sleep(1500 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := p.relay.Refresh(ctx); err == nil || time.Since(begun) > time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		p.set(&p.silent, false)
	})
}

// A quiet endpoint that fails one event is probed in pauses, also while events that were
// parked are due.
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

// Events of a kind that is refused with 429 for what they are leave those of others at
// full speed, and are parked.
func TestOneKindIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		d := newDelays()
		r := &receiver{delay: 5 * time.Millisecond, answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.Action == tidings.Deleted {
				return throttled
			}
			d.arrived(a.Event.ID)
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		n := 0
		for range 25 * 60 { // 25 a second, for a minute
			n++
			e := event(n, 0)
			if n%7 == 0 {
				e.Action = tidings.Deleted
			}
			d.append(log, e)
			time.Sleep(40 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		stop()
		took := d.took["evt"]
		slices.Sort(took)
		if want := n - n/7; len(took) != want {
			t.Fatalf("%d of %d delivered", len(took), want)
		}
		if last := took[len(took)-1]; last > 3*time.Second {
			t.Errorf("one took %v", last)
		}
	})
}

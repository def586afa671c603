package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

// What was learned about a rate-limiting receiver survives a restart, a reload and an
// outage: the receiver gets most of what it allows immediately, and refuses few requests.
func TestLearnedRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, burst, seconds = 50, 5, 5
		log := eventlogtest.NewMemory()
		var mu sync.Mutex
		level, at := 0.0, time.Now()
		var refusals atomic.Int64
		var away atomic.Bool
		r := &receiver{delay: time.Millisecond, answer: func(tidings.Attempt) tidings.Outcome {
			if away.Load() {
				return unreachable
			}
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
			got, refused := len(r.got())-before, refusals.Load()-refusedBefore
			if got < rate*seconds*8/10 {
				t.Errorf("%d delivered in %d s after %s, %d are allowed", got, seconds, after, rate*seconds)
			}
			if refused > 8 { // 20 without what was learned
				t.Errorf("%d refused in %d s after %s, want 8 at most", refused, seconds, after)
			}
			t.Logf("%d delivered and %d refused in %d s after %s", got, refused, seconds, after)
		}
		ctx, cancel := context.WithCancel(t.Context())
		restarted, err := relay.New(ctx, log, []relay.Endpoint{endpoint("a", r)},
			relay.Options{Logger: slog.New(slog.DiscardHandler)})
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
		away.Store(true)
		time.Sleep(10 * time.Second)
		away.Store(false)
		for before := len(r.got()); len(r.got()) == before; {
			time.Sleep(10 * time.Millisecond)
		}
		goesOn("an outage")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Refusals that do not depend on the rate of requests slow nothing down for long: those
// of a few events, and those of one backend of several.
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
		{
			"one backend in eight", func(_ tidings.Attempt, request int, _ time.Duration) bool { return request%8 == 0 },
			1800,
		},
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

// One backend of several that refuses everything is no reason to slow down, however few
// events there are.
func TestOneBackendRefuses(t *testing.T) {
	const before, seconds = 15, 90
	for _, rate := range []int{4, 20} {
		seed := rand.Uint64()
		for name, refused := range map[string]func(request int) bool{
			"every second": func(n int) bool { return n%2 == 0 },
			"every third":  func(n int) bool { return n%3 == 0 },
			"every fifth":  func(n int) bool { return n%5 == 0 },
			"a random half": func(n int) bool {
				four := rand.New(rand.NewPCG(seed, uint64(n/4))).Perm(4)
				return four[n%4] < 2
			},
		} {
			t.Run(fmt.Sprint(name, " at ", rate, " events a second"), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					log, began := eventlogtest.NewMemory(), time.Now()
					var requests atomic.Int64
					r := &receiver{delay: time.Millisecond, answer: func(tidings.Attempt) tidings.Outcome {
						if n := requests.Add(1); time.Since(began) > before*time.Second && refused(int(n)) {
							return throttled
						}
						return delivered
					}}
					stop := start(t, log, relay.Options{}, endpoint("a", r))
					for n := range (before + seconds) * rate {
						log.Append(event(n%500, n/500))
						time.Sleep(time.Second / time.Duration(rate))
					}
					stop()
					n, want := len(r.got())-before*rate, seconds*rate
					if n < want*8/10 {
						t.Errorf("%d of %d delivered in time", n, want)
					}
					if rows := log.RetryRows(); rows > want/50 {
						t.Errorf("%d events are parked", rows)
					}
					t.Logf("%d of %d delivered, %d requests, %d parked", n, want, requests.Load(), log.RetryRows())
				})
			})
		}
	}
}

// A receiver with one worker, which takes a while for each request, gets no more requests
// at once than it answers in time.
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
			go func() { // it keeps working after the client has disconnected
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
				return tidings.Outcome{
					Verdict: tidings.Failed, Reason: tidings.ReasonTimeout,
					Duration: time.Since(began),
				}
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
		t.Logf("%d executed in a minute, %d timeouts", executed, timeouts)
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		mu.Lock()
		defer mu.Unlock()
		if executed != 200 {
			t.Errorf("%d executed, want each of 200 once", executed)
		}
		t.Logf("%d executed in eleven minutes, each of 200 once", executed)
	})
}

// Answers that take more than half of the time limit lower the number of requests at once,
// before there are timeouts.
func TestReceiverThatBecomesSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var took, now atomic.Int64
		took.Store(int64(10 * time.Millisecond))
		e := endpoint("a", relay.SenderFunc(func(context.Context, tidings.Attempt) tidings.Outcome {
			now.Add(1)
			defer now.Add(-1)
			answer := time.Duration(took.Load())
			time.Sleep(answer)
			return tidings.Outcome{Verdict: tidings.Delivered, Status: 200, Duration: answer}
		}))
		e.MaxInFlight, e.Timeout = 16, 15*time.Second
		stop := start(t, log, relay.Options{}, e)
		defer stop()
		for i := range 2000 {
			log.Append(event(i, 0))
		}
		for _, tt := range []struct {
			answer, lasts time.Duration
			atOnce        int64
		}{
			{10 * time.Millisecond, 500 * time.Millisecond, 16},
			{7 * time.Second, time.Minute, 16},
			{8 * time.Second, 5 * time.Minute, 1},
		} {
			took.Store(int64(tt.answer))
			time.Sleep(tt.lasts)
			synctest.Wait()
			if n := now.Load(); n != tt.atOnce {
				t.Errorf("answers after %v: %d requests at once, want %d", tt.answer, n, tt.atOnce)
			}
		}
	})
}

// A pause that the receiver asked for survives a restart.
func TestRetryAfterOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		until := time.Now().Add(10 * time.Minute)
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if time.Now().Before(until) {
				return tidings.Outcome{
					Verdict: tidings.Throttled, Reason: "http_503", Status: 503,
					RetryAfter: time.Until(until),
				}
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

// Events of a kind that is refused with 429 for what they are do not slow down other
// kinds, and are parked.
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
		parked, err := log.Parked(t.Context(), eventlog.ParkedFilter{Endpoint: "a", Limit: 1000})
		if err != nil || len(parked) != n/7 || parked[0].Attempts == 0 {
			t.Errorf("%d parked, %v; want %d, with attempts spent", len(parked), err, n/7)
		}
	})
}

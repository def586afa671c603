package relay_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// A pause that the receiver asked for holds for all partitions of the endpoint, however its
// configuration changes, and after the process was killed right after the answer.
func TestRetryAfterHoldsForTheEndpoint(t *testing.T) {
	const pause = 30 * time.Second
	started := func(r *receiver, partitions int) relay.Endpoint {
		e := endpoint("a", r)
		e.Partitions, e.MaxInFlight = partitions, 6
		return e
	}
	tests := map[string]struct {
		partitions int
		then       func(t *testing.T, c *cluster, p *process, r *receiver) *process // shortly after the answer
	}{
		"of several partitions": {3, nil},
		"with more partitions": {1, func(t *testing.T, _ *cluster, p *process, r *receiver) *process {
			e := started(r, 3)
			e.Sender = p.sender(e.Sender)
			if err := p.relay.Update(t.Context(), []relay.Endpoint{e}); err != nil {
				t.Error(err)
			}
			return p
		}},
		"after a kill": {1, func(t *testing.T, c *cluster, p *process, r *receiver) *process {
			p.kill()
			return c.start(t, r, started(r, 1))
		}},
		"of several partitions, after a kill": {3, func(t *testing.T, c *cluster, p *process, r *receiver) *process {
			p.kill()
			return c.start(t, r, started(r, 3))
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asks atomic.Bool
				asked := make(chan time.Duration, 1)
				r := &receiver{delay: 7 * time.Millisecond, answer: func(tidings.Attempt) tidings.Outcome {
					if asks.CompareAndSwap(true, false) {
						asked <- time.Duration(time.Now().UnixNano())
						return tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_429", Status: 429, RetryAfter: pause}
					}
					return delivered
				}}
				c := &cluster{Memory: eventlogtest.NewMemory()}
				p := c.start(t, r, started(r, test.partitions))
				n := 0
				write := func(d time.Duration) {
					for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(11 * time.Millisecond) {
						c.append(event(n%100, n/100))
						n++
					}
				}
				write(10 * time.Second) // cursors are saved at long intervals by now
				asks.Store(true)
				write(100 * time.Millisecond)
				at := <-asked
				if test.then != nil {
					p = test.then(t, c, p, r)
				}
				write(time.Minute)
				p.exit()
				var early int
				for _, a := range r.tries() {
					if a.at > at && a.at < at+pause {
						early++
					}
				}
				if early > 0 {
					t.Errorf("%d requests while the receiver wanted none", early)
				}
				if got := len(firstDeliveries(r.got())); got < n-10 {
					t.Errorf("%d of %d delivered in the end", got, n)
				}
			})
		})
	}
}

// A pause that the receiver asks for in its answer to a probe is kept too.
func TestRetryAfterOfAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, began := eventlogtest.NewMemory(), time.Now()
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			switch at := time.Since(began); {
			case at < 10*time.Second:
				return unreachable
			case at < 5*time.Minute:
				return tidings.Outcome{
					Verdict: tidings.Throttled, Reason: "http_503", Status: 503, RetryAfter: 5*time.Minute - at,
				}
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 20 {
			log.Append(event(i, 0))
		}
		time.Sleep(11 * time.Second)
		before := len(r.tries())
		time.Sleep(5 * time.Minute)
		stop()
		if n := len(r.got()); n != 20 {
			t.Errorf("%d of 20 delivered in the end", n)
		}
		if n := len(r.tries()) - before - 20; n > 1 {
			t.Errorf("%d requests while the receiver wanted none, want at most the one that it answered so", n)
		}
	})
}

// An operator ends a pause that the receiver asked for by pausing and resuming the endpoint.
func TestOperatorEndsRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var asked atomic.Bool
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if asked.CompareAndSwap(false, true) {
				return tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_503", Status: 503, RetryAfter: time.Hour}
			}
			return delivered
		}}
		e := endpoint("a", r)
		e.Partitions = 2
		stop := start(t, log, relay.Options{}, e)
		for i := range 20 {
			log.Append(event(i, 0))
			time.Sleep(time.Second)
		}
		for _, reason := range []string{relay.PausedReason, ""} {
			control := eventlog.Control{Endpoint: "a", Disabled: reason, Since: time.Now()}
			if err := log.SaveControl(t.Context(), control); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		stop()
		if n := len(r.got()); n != 20 {
			t.Errorf("%d of 20 delivered after the endpoint was resumed", n)
		}
	})
}

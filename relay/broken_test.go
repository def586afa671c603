package relay_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

var reset = tidings.Outcome{Verdict: tidings.Unreachable, Reason: tidings.ReasonReset}

func impatient(name string, s relay.Sender) relay.Endpoint {
	e := endpoint(name, s)
	e.Retry = relay.Schedule{Delays: []time.Duration{10 * time.Millisecond}, MaxAttempts: 2}
	return e
}

// Broken connections count as an outage, on a busy endpoint and on a quiet one, and
// use up no attempts.
func TestBrokenConnectionsAreAnOutage(t *testing.T) {
	for name, resources := range map[string]int{"one resource": 1, "many": 50} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				begun := time.Now()
				r := &receiver{delay: time.Millisecond, answer: func(tidings.Attempt) tidings.Outcome {
					// One-minute outages, a minute apart.
					if time.Since(begun)/time.Minute%2 == 1 {
						return reset
					}
					return delivered
				}}
				stop := start(t, log, relay.Options{}, impatient("a", r))
				const rounds = 400
				for version := range rounds {
					for resource := range resources {
						log.Append(event(resource, version))
					}
					time.Sleep(time.Second)
				}
				time.Sleep(5 * time.Minute)
				stop()
				if dead := deadLetters(t, log); len(dead) > 0 {
					t.Errorf("dead letters: %v", dead)
				}
				if n := len(r.got()); n != rounds*resources {
					t.Errorf("%d delivered, want %d", n, rounds*resources)
				}
				for _, a := range r.tries() {
					if a.number > 2 {
						t.Errorf("%s: attempt %d", a.id, a.number)
					}
				}
			})
		})
	}
}

// An event that crashes its receiver, so that the connection breaks, is given up
// eventually and does not hold up others in the meantime.
func TestEventThatCrashesItsReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{delay: time.Millisecond, answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-7-0" {
				return reset
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, impatient("a", r))
		begun := time.Now()
		const others = 200
		for resource := range others + 1 {
			log.Append(event(resource, 0))
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(r.got()); n < others-5 {
			t.Errorf("%d of %d others delivered within %v", n, others, time.Since(begun))
		}
		time.Sleep(time.Minute)
		stop()
		if dead := deadLetters(t, log); len(dead) != 1 || dead[0].Event.ID != "evt-7-0" {
			t.Errorf("dead letters: %v", dead)
		}
		if n := len(r.got()); n != others {
			t.Errorf("%d delivered, want %d", n, others)
		}
	})
}

// A connection that breaks now and then, as behind a flaky load balancer, costs an
// event one extra attempt and the endpoint nothing.
func TestConnectionsThatBreakNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		n := 0
		r := &receiver{delay: time.Millisecond}
		r.answer = func(tidings.Attempt) tidings.Outcome {
			r.mu.Lock()
			defer r.mu.Unlock()
			if n++; n%50 == 0 {
				return reset
			}
			return delivered
		}
		stop := start(t, log, relay.Options{}, impatient("a", r))
		begun := time.Now()
		const events = 2000
		for resource := range events {
			log.Append(event(resource, 0))
		}
		for len(r.got()) < events {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		stop()
		if dead := deadLetters(t, log); len(dead) > 0 {
			t.Errorf("dead letters: %v", dead)
		}
	})
}

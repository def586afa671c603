package relay_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

func TestDeliversMatchingEventsOnceAndMovesCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		all, deletions := &receiver{}, &receiver{}
		pattern, err := tidings.ParsePattern("*.deleted")
		if err != nil {
			t.Fatal(err)
		}
		some := endpoint("deletions", deletions)
		some.Patterns = []tidings.Pattern{pattern}
		log.Append(event(9, 1)) // before the endpoints exist
		stop := start(t, log, relay.Options{}, endpoint("all", all), some)
		removed := event(1, 2)
		removed.Action = tidings.Deleted
		log.Append(event(1, 1), removed, event(2, 1))
		synctest.Wait()
		if diff := cmp.Diff([]string{"evt-1-1", "evt-1-2", "evt-2-1"},
			slices.Sorted(slices.Values(all.got()))); diff != "" {
			t.Errorf("all (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"evt-1-2"}, deletions.got()); diff != "" {
			t.Errorf("deletions (-want +got):\n%s", diff)
		}
		time.Sleep(time.Second)
		for _, name := range []string{"all", "deletions"} {
			if got := cursor(t, log, name); got != 4 {
				t.Errorf("cursor of %s = %d, want 4", name, got)
			}
		}
		stop()
	})
}

func TestOneResourceInOrderOthersInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{delay: time.Second}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for version := range 5 {
			for resource := range 8 {
				log.Append(event(resource, version))
			}
		}
		time.Sleep(time.Minute)
		stop()
		last := make(map[string]int)
		for _, id := range r.got() {
			var resource, version int
			fmt.Sscanf(id, "evt-%d-%d", &resource, &version)
			if key := fmt.Sprint(resource); version != last[key] {
				t.Errorf("resource %d: version %d, want %d", resource, version, last[key])
			} else {
				last[key]++
			}
		}
		if len(r.got()) != 40 || r.most != 4 {
			t.Errorf("%d delivered, %d at once; want 40 and max_in_flight 4", len(r.got()), r.most)
		}
	})
}

func TestFailedEventIsParkedAndLaterOnesOfItsResourceWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-1-1" && a.Number < 3 {
				return refused
			}
			return delivered
		}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		log.Append(event(1, 1), event(1, 2), event(2, 1))
		synctest.Wait()
		log.Append(event(1, 3), event(2, 2))
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"evt-2-1", "evt-2-2"}, r.got()); diff != "" {
			t.Errorf("while parked (-want +got):\n%s", diff)
		}
		if got := cursor(t, log, "a"); got != 5 {
			t.Errorf("cursor = %d, want 5: parked is settled", got)
		}
		time.Sleep(10 * time.Minute) // 5 s and 5 min, jittered
		if diff := cmp.Diff([]string{"evt-2-1", "evt-2-2", "evt-1-1", "evt-1-2", "evt-1-3"}, r.got()); diff != "" {
			t.Errorf("after retries (-want +got):\n%s", diff)
		}
		if n := log.RetryRows(); n != 0 {
			t.Errorf("%d parked rows left", n)
		}
		stop()
	})
}

func TestScheduleEndsInDeadLetterAndNextEventGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-1-1" {
				return refused
			}
			return delivered
		}
		e := endpoint("a", r)
		e.Retry.Delays = []time.Duration{time.Second, time.Minute}
		stop := start(t, log, relay.Options{}, e)
		log.Append(event(1, 1), event(1, 2), event(2, 0))
		time.Sleep(time.Hour)
		stop()
		tries := slices.DeleteFunc(r.tries(), func(a attempt) bool { return a.id == "evt-2-0" })
		if len(tries) != 4 {
			t.Fatalf("attempts = %v, want three of the first event and one of the second", tries)
		}
		for i, want := range []time.Duration{time.Second, time.Minute} {
			got := tries[i+1].at - tries[i].at
			if got < want*8/10 || got > want*12/10+time.Millisecond {
				t.Errorf("pause %d = %v, want %v ± 20 %%", i, got, want)
			}
		}
		if diff := cmp.Diff([]string{"evt-2-0", "evt-1-2"}, r.got()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		dead := deadLetters(t, log)
		if len(dead) != 1 || dead[0].Attempts != 3 || dead[0].Reason != "http_400" {
			t.Errorf("dead letters = %+v", dead)
		}
	})
}

func TestRejectedEventIsADeadLetterAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-1-1" {
				return rejected
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		log.Append(event(1, 1), event(1, 2), event(2, 0))
		synctest.Wait()
		stop()
		if diff := cmp.Diff([]string{"evt-2-0", "evt-1-2"}, r.got()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if dead := deadLetters(t, log); len(dead) != 1 {
			t.Errorf("dead letters = %v", dead)
		}
	})
}

// An outage is probed with few requests, uses up no attempts, parks nothing, and is
// followed by everything in order. The reason says whether the receiver refuses.
func TestOutage(t *testing.T) {
	all := maps.Clone(failures)
	all["unreachable"] = unreachable
	all["blocked"] = tidings.Outcome{Verdict: tidings.Blocked, Reason: tidings.ReasonBlockedAddress}
	for name, down := range all {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				back := time.Now().Add(10 * time.Minute)
				r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
					if time.Now().Before(back) {
						return down
					}
					return delivered
				}}
				var lines bytes.Buffer
				logger := slog.New(slog.NewTextHandler(&lines, nil))
				stop := start(t, log, relay.Options{Logger: logger}, endpoint("a", r))
				const resources, versions = 100, 20
				for version := range versions {
					for resource := range resources {
						log.Append(event(resource, version))
					}
				}
				state, reason := "down", down.Reason
				switch down.Verdict {
				case tidings.Throttled:
					state = "throttled"
				case tidings.Refused, tidings.Rejected, tidings.Unauthorized:
					reason = relay.RefusesPrefix + reason
				}
				want := fmt.Sprintf(`"state":%q,"reason":%q`, state, reason)
				const looks = 60
				time.Sleep(time.Until(back) - looks*time.Second)
				saw := 0 // it may be about to probe
				for range looks {
					if strings.Contains(status(t, log), want) {
						saw++
					}
					time.Sleep(time.Second)
				}
				if saw < looks/2 {
					t.Errorf("status = %s, want %s", status(t, log), want)
				}
				if n := len(r.tries()); n > 40 {
					t.Errorf("%d requests in an outage of ten minutes", n)
				}
				if n := log.RetryRows(); n > 0 {
					t.Errorf("%d parked rows in an outage", n)
				}
				t.Logf("%s: %d requests in ten minutes, %d parked", want, len(r.tries()), log.RetryRows())
				time.Sleep(80 * time.Second) // the slowest probe, jittered
				stop()
				if n := len(r.got()); n != resources*versions {
					t.Errorf("%d delivered, want %d", n, resources*versions)
				}
				expectOrder(t, r.got())
				for _, a := range r.tries() {
					if a.number > 1 {
						t.Fatalf("%v: an outage used up attempts", a)
					}
				}
				if n := strings.Count(lines.String(), "\n"); n > 20 {
					t.Errorf("%d log lines for an outage:\n%s", n, lines.String())
				}
			})
		})
	}
}

// expectOrder checks that each resource's events arrived in order and once.
func expectOrder(t *testing.T, ids []string) {
	t.Helper()
	last := make(map[int]int)
	for _, id := range ids {
		var resource, version int
		fmt.Sscanf(id, "evt-%d-%d", &resource, &version)
		if want := last[resource]; version != want {
			t.Fatalf("resource %d: version %d arrived, want %d", resource, version, want)
		}
		last[resource] = version + 1
	}
}

// A single event that makes the receiver fail can't keep the endpoint down.
func TestProbesTakeResourcesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var up atomic.Bool
		r := &receiver{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			if !up.Load() || strings.HasPrefix(a.Event.ID, "evt-0-") {
				return failed
			}
			return delivered
		}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for resource := range 30 {
			log.Append(event(resource, 0))
		}
		time.Sleep(time.Minute)
		up.Store(true)
		time.Sleep(10 * time.Minute)
		stop()
		if n := len(r.got()); n != 29 {
			t.Errorf("%d delivered, want all but the one that fails", n)
		}
	})
}

func TestThrottledEndpointIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		until := time.Now().Add(30 * time.Second)
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if time.Now().Before(until) {
				return tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_429", RetryAfter: 30 * time.Second}
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for resource := range 20 {
			log.Append(event(resource, 0))
		}
		time.Sleep(29 * time.Second)
		if n := len(r.tries()); n > 4 {
			t.Errorf("%d requests while throttled, want at most those in flight", n)
		}
		time.Sleep(5 * time.Second)
		stop()
		if n := len(r.got()); n != 20 {
			t.Errorf("%d delivered, want 20", n)
		}
		for _, a := range r.tries() {
			if a.number != 1 {
				t.Errorf("%v: a pause used up an attempt", a)
			}
		}
	})
}

func TestGoneDisablesUntilConfigurationChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome { return gone }}
		e := endpoint("a", r)
		e.Fingerprint = "1"
		stop := start(t, log, relay.Options{}, e)
		log.Append(event(1, 0), event(1, 1))
		time.Sleep(time.Hour)
		stop()
		r.answer = nil
		stop = start(t, log, relay.Options{}, e)
		time.Sleep(time.Hour)
		stop()
		if n := len(r.tries()); n != 1 {
			t.Errorf("%d requests, want 1: an endpoint stays disabled after a restart", n)
		}
		e.Fingerprint = "2"
		stop = start(t, log, relay.Options{}, e)
		time.Sleep(time.Second)
		stop()
		if diff := cmp.Diff([]string{"evt-1-0", "evt-1-1"}, r.got()); diff != "" {
			t.Errorf("after a change (-want +got):\n%s", diff)
		}
	})
}

func TestHangingEndpointDoesNotSlowAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		hanging, well := &receiver{delay: time.Hour}, &receiver{}
		stop := start(t, log, relay.Options{DrainTimeout: time.Second},
			endpoint("hanging", hanging), endpoint("well", well))
		for i := range 20_000 {
			log.Append(event(i, 0))
		}
		synctest.Wait() // no time passes
		if n := len(well.got()); n != 20_000 {
			t.Errorf("%d delivered, want all", n)
		}
		if n := len(hanging.tries()); n != 4 {
			t.Errorf("%d requests to the hanging endpoint, want max_in_flight", n)
		}
		stop()
	})
}

// A slow event holds up no other, and after a crash nothing is sent
// again but that event.
func TestSlowEventHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-0-0" && len(r.tries()) < 5100 {
				time.Sleep(time.Hour)
			}
			return delivered
		}
		first := c.start(t, r, endpoint("a", nil))
		for i := range 5000 {
			c.append(event(i, 0))
		}
		synctest.Wait() // no time passes
		if n := len(r.got()); n != 4999 {
			t.Errorf("%d delivered past a slow event, want all others", n)
		}
		time.Sleep(time.Second)
		for i := range 100 {
			c.append(event(6000+i, 0))
		}
		time.Sleep(time.Second)
		if got := cursor(t, c.Memory, "a"); got != 0 {
			t.Errorf("cursor = %d, want 0: before the slow event", got)
		}
		first.kill()
		second := c.start(t, r, endpoint("a", nil))
		time.Sleep(time.Minute)
		second.exit()
		if n := len(r.tries()); n != 5101 {
			t.Errorf("%d requests, want one for each event and one more for the slow one", n)
		} else {
			t.Logf("%d requests for 5100 events", n)
		}
		if got := cursor(t, c.Memory, "a"); got != 5100 {
			t.Errorf("cursor = %d, want 5100", got)
		}
	})
}

// One request in a thousand that hangs until it times out takes up its place, and nothing
// else. After a crash, no more is sent again than was in flight or was delivered since the
// last time that cursors were saved.
func TestSomeRequestsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events, atOnce, timeout = 30_000, 16, 15 * time.Second
		c := &cluster{Memory: eventlogtest.NewMemory()}
		var requests atomic.Int64
		r := &receiver{delay: 2 * time.Millisecond, answer: func(tidings.Attempt) tidings.Outcome {
			if requests.Add(1)%1000 == 0 {
				time.Sleep(timeout)
				return failures["timeout"]
			}
			return delivered
		}}
		e := endpoint("a", nil)
		e.MaxInFlight = atOnce
		first := c.start(t, r, e)
		for n := range events {
			c.append(event(n, 0))
		}
		begun := time.Now()
		for len(r.got()) < events/3 {
			time.Sleep(time.Millisecond)
		}
		first.kill()
		before := r.tries()
		const interval = 250*time.Millisecond + 50*time.Millisecond // between saves, and until it is noted
		since := slices.IndexFunc(before, func(a attempt) bool {
			return a.at >= time.Duration(time.Now().Add(-interval).UnixNano())
		})
		second := c.start(t, r, e)
		for len(firstDeliveries(r.got())) < events && time.Since(begun) < 10*time.Minute {
			time.Sleep(time.Second)
		}
		ids, took := r.got(), time.Since(begun)
		second.exit()
		first.exit()
		again, perSecond := len(ids)-len(firstDeliveries(ids)), float64(events)/took.Seconds()
		if len(ids)-again != events || perSecond < 400 {
			t.Errorf("%d of %d delivered, %.0f a second", len(ids)-again, events, perSecond)
		}
		if allowed := atOnce + len(before) - since; again > allowed {
			t.Errorf("%d delivered again after a crash, want %d at most", again, allowed)
		}
		t.Logf("%.0f delivered a second, %d again after a crash", perSecond, again)
	})
}

func TestStopLetsAttemptsFinishWithinTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		quick, slow := &receiver{delay: 2 * time.Second}, &receiver{delay: time.Hour}
		stop := start(t, log, relay.Options{DrainTimeout: 5 * time.Second},
			endpoint("quick", quick), endpoint("slow", slow))
		log.Append(event(1, 0))
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("stopping took %v, want the deadline", took)
		}
		if got := cursor(t, log, "quick"); got != 1 {
			t.Errorf("cursor of quick = %d, want 1: its attempt finished", got)
		}
		if got := cursor(t, log, "slow"); got != 0 {
			t.Errorf("cursor of slow = %d, want 0: its attempt was interrupted", got)
		}
	})
}

func TestTwoEndpointsOfOneNameAreRefused(t *testing.T) {
	log := eventlogtest.NewMemory()
	_, err := relay.New(t.Context(), log, []relay.Endpoint{endpoint("a", &receiver{}), endpoint("a", &receiver{})},
		relay.Options{})
	if err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("error = %v", err)
	}
}

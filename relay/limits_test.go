package relay_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		limited, free := &receiver{}, &receiver{}
		e := endpoint("a", limited)
		e.RateLimit, e.Burst = 10, 5
		stop := start(t, log, relay.Options{}, e, endpoint("b", free))
		for i := range 100 {
			log.Append(event(i, 0))
		}
		synctest.Wait()
		if n := len(limited.tries()); n != 5 {
			t.Errorf("%d requests at once, want the burst of 5", n)
		}
		time.Sleep(5 * time.Second)
		if n := len(limited.tries()); n < 54 || n > 56 {
			t.Errorf("%d requests in 5 s, want 5 and 10 a second", n)
		}
		if n := len(free.got()); n != 100 {
			t.Errorf("the other endpoint got %d of 100", n)
		}
		time.Sleep(5 * time.Second)
		stop()
		if n := len(limited.got()); n != 100 {
			t.Errorf("%d delivered, want 100", n)
		}
	})
}

// records are the history's, by what became of an event.
func records(t *testing.T, log *eventlogtest.Memory) map[string][]eventlog.Record {
	t.Helper()
	all, _, err := log.ReadHistory(t.Context(), eventlog.HistoryFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]eventlog.Record)
	for _, r := range all {
		found[r.Outcome] = append(found[r.Outcome], r)
	}
	return found
}

// Events that wait through an outage are merged: each resource is delivered once, and the
// history records what was merged into what, so that the counts add up.
func TestCoalescingAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		back := time.Now().Add(time.Minute)
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if time.Now().Before(back) {
				return unreachable
			}
			return delivered
		}}
		e := endpoint("a", r)
		e.Coalesce = tidings.CoalesceLatest
		stop := start(t, log, relay.Options{}, e)
		const resources, versions = 900, 30
		log.Append(event(0, 0))
		time.Sleep(100 * time.Millisecond)
		for version := range versions {
			for resource := range resources {
				if version > 0 || resource > 0 {
					log.Append(event(resource, version))
				}
			}
		}
		time.Sleep(3 * time.Minute)
		stop()
		if n := len(r.got()); n < resources || n > resources+5 {
			t.Errorf("%d delivered of %d, want about one for each of %d resources", n, resources*versions, resources)
		}
		last := make(map[string]bool)
		for _, id := range r.got() {
			last[id] = true
		}
		for resource := range resources {
			if id := fmt.Sprintf("evt-%d-%d", resource, versions-1); !last[id] {
				t.Errorf("the last event of resource %d was not delivered", resource)
			}
		}
		found := records(t, log)
		if n := len(found["merged"]) + len(found["delivered"]); n != resources*versions {
			t.Errorf("%d merged and %d delivered in the history, want a total of %d", len(found["merged"]),
				len(found["delivered"]), resources*versions)
		}
		for _, m := range found["merged"] {
			if m.MergedInto <= m.Sequence || m.Sequence == 1 {
				t.Fatalf("position %d was merged into %d, but had been attempted", m.Sequence, m.MergedInto)
			}
		}
		if got := cursor(t, log, "a"); got != resources*versions {
			t.Errorf("cursor = %d, want %d", got, resources*versions)
		}
	})
}

// Events that wait behind a parked one are merged, too; the parked one is not.
func TestCoalescingBehindAParkedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-1-0" && a.Number == 1 {
				return refused
			}
			return delivered
		}}
		e := endpoint("a", r)
		e.Coalesce = tidings.CoalesceUpdates
		stop := start(t, log, relay.Options{}, e)
		log.Append(event(1, 0), event(2, 0))
		time.Sleep(time.Second)
		for version := range 20 {
			log.Append(event(1, version+1))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		stop()
		if diff := cmp.Diff([]string{"evt-2-0", "evt-1-0", "evt-1-20"}, r.got()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if n := log.RetryRows(); n != 0 {
			t.Errorf("%d parked rows left", n)
		}
	})
}

func say(t *testing.T, log *eventlogtest.Memory, disabled string) {
	t.Helper()
	if err := log.SaveControl(t.Context(),
		eventlog.Control{Endpoint: "a", Disabled: disabled, Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := log.Nudge(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		log.Append(event(1, 0))
		time.Sleep(time.Second)
		say(t, log, relay.PausedReason)
		log.Append(event(1, 1), event(2, 0))
		time.Sleep(time.Hour)
		stop() // a pause outlives a restart
		stop = start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Hour)
		if n := len(r.tries()); n != 1 {
			t.Errorf("%d requests, want none while paused", n)
		}
		say(t, log, "")
		time.Sleep(time.Second)
		stop()
		if diff := cmp.Diff([]string{"evt-1-0", "evt-1-1", "evt-2-0"}, r.got()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

// An operator can enable an endpoint that was disabled by its own response.
func TestEnableAfterGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome { return gone }}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		log.Append(event(1, 0))
		time.Sleep(time.Hour)
		if n := len(r.tries()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		r.mu.Lock()
		r.answer = nil
		r.mu.Unlock()
		say(t, log, "")
		time.Sleep(time.Second)
		stop()
		if diff := cmp.Diff([]string{"evt-1-0"}, r.got()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

// An endpoint whose cursor falls off the end of the log is reported, with the range, and
// continues with the oldest event in the log; what is parked stays.
func TestCursorThatFallsOffTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Number == 1 && a.Event.ID == "evt-1-0" {
				return refused
			}
			return delivered
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		log.Append(event(1, 0), event(9, 0))
		time.Sleep(time.Second)
		stop()
		for i := range 10 {
			log.Append(event(2, i))
		}
		log.ExpireBefore(10)
		stop = start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Minute)
		stop()
		gaps, err := log.Gaps(t.Context(), 10)
		if err != nil || len(gaps) != 1 || gaps[0].From != 3 || gaps[0].To != 9 {
			t.Errorf("gaps = %+v, %v; want positions 3 to 9", gaps, err)
		}
		if diff := cmp.Diff([]string{"evt-9-0", "evt-2-7", "evt-2-8", "evt-2-9", "evt-1-0"}, r.got()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

func TestHistoryModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for mode, want := range map[relay.HistoryMode]int{
			relay.HistoryAll:      3,
			relay.HistoryFailures: 1, relay.HistoryOff: 0,
		} {
			log := eventlogtest.NewMemory()
			r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
				if a.Number == 1 && a.Event.ID == "evt-1-0" {
					return refused
				}
				return delivered
			}}
			e := endpoint("a", r)
			e.History = mode
			stop := start(t, log, relay.Options{}, e)
			log.Append(event(1, 0), event(2, 0))
			time.Sleep(time.Minute)
			stop()
			n := 0
			for _, found := range records(t, log) {
				n += len(found)
			}
			if n != want {
				t.Errorf("%s keeps %d records, want %d", mode, n, want)
			}
		}
	})
}

// After a crash, events that were merged before are merged again, and not sent after the
// event that absorbed them.
func TestCoalescingAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory(), readTime: 10 * time.Millisecond}
		back := time.Now().Add(time.Minute)
		const hold = 20 * time.Minute
		r := &receiver{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			switch {
			case time.Now().Before(back):
				return unreachable
			case a.Event.ID == "evt-9-0" && len(r.got()) < 10:
				return unreachable // as a probe, it would hold up all others
			case a.Event.ID == "evt-9-0" && time.Since(back) < hold:
				time.Sleep(hold) // and with it the cursor
			}
			return delivered
		}
		e := endpoint("a", nil)
		e.Coalesce = tidings.CoalesceUpdates
		first := c.start(t, r, e)
		c.append(event(9, 0))
		for i := range 30 { // these are tried during the outage
			c.append(event(1000+i, 0))
		}
		c.append(event(1, 0))
		for i := range 700 { // more than one read returns
			c.append(event(100+i, 0))
		}
		c.append(event(1, 1))
		time.Sleep(hold / 2)
		if ids := r.got(); !slices.Contains(ids, "evt-1-1") || slices.Contains(ids, "evt-1-0") {
			t.Fatalf("%d delivered; want the second event of resource 1 and not the first", len(ids))
		}
		first.kill()
		second := c.start(t, r, e)
		time.Sleep(2 * hold)
		if slices.Contains(r.got(), "evt-1-0") {
			t.Error("the first event of resource 1 was sent after the second")
		}
		second.exit()
	})
}

package relay_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// A replay reports once how much of its range expired before it was sent, and does not
// end as done if the whole range expired.
func TestReplayOfWhatExpired(t *testing.T) {
	for name, test := range map[string]struct {
		before, from, to   int64
		delivered, expired int64
		state              eventlog.ReplayState
	}{
		"nothing":    {1, 3, 8, 6, 0, eventlog.ReplayDone},
		"a part":     {6, 3, 8, 3, 3, eventlog.ReplayDone},
		"all of it":  {9, 3, 8, 0, 6, eventlog.ReplayExpired},
		"everything": {11, 3, 10, 0, 8, eventlog.ReplayExpired},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := eventlogtest.NewMemory()
				r := &replayed{}
				stop := start(t, log, relay.Options{}, endpoint("a", r))
				for i := range 10 {
					log.Append(event(i, 0))
				}
				time.Sleep(time.Minute)
				log.ExpireBefore(test.before)
				begin(t, log, eventlog.Replay{ID: "1", From: test.from, To: test.to})
				time.Sleep(2 * time.Second)
				stop()
				stop = start(t, log, relay.Options{}, endpoint("a", r))
				time.Sleep(time.Minute)
				stop()
				got := replayOf(t, log, "1")
				if got.State != test.state || got.Delivered != test.delivered || got.Expired != test.expired {
					t.Errorf("%s, %d delivered, %d expired; want %s, %d, %d",
						got.State, got.Delivered, got.Expired, test.state, test.delivered, test.expired)
				}
			})
		})
	}
}

// A consumer that waits for its endpoint drops events from its window once they have
// expired: they were reported as missed.
func TestConsumerGoesOnBehindWhatExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var well atomic.Bool
		r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
			if well.Load() {
				return delivered
			}
			return unreachable
		}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 10 {
			log.Append(event(i, 0))
		}
		time.Sleep(time.Minute)
		if gaps := log.ExpireBefore(8); len(gaps) != 1 || gaps[0].From != 1 || gaps[0].To != 7 {
			t.Errorf("gaps = %+v; want 1 to 7", gaps)
		}
		time.Sleep(10 * time.Second)
		well.Store(true)
		time.Sleep(10 * time.Minute)
		stop()
		if diff := cmp.Diff([]string{"evt-7-0", "evt-8-0", "evt-9-0"},
			slices.Sorted(slices.Values(r.got()))); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if gaps, err := log.Gaps(t.Context(), 10); err != nil || len(gaps) != 1 {
			t.Errorf("gaps = %+v, %v; want one", gaps, err)
		}
	})
}

// shortened is a log whose events after a position were deleted.
type shortened struct {
	*eventlogtest.Memory
	last int64
}

// Read implements [eventlog.Reader].
func (s shortened) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	events, err := s.Memory.Read(ctx, after, limit)
	return slices.DeleteFunc(events, func(e tidings.Event) bool { return e.Sequence > s.last }), err
}

// An endpoint that needs events which somebody deleted is told to have missed them, even
// if no event follows.
func TestDeletedEventsAreMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Second)
		stop()
		for i := range 10 {
			log.Append(event(i, 0))
		}
		stop = start(t, shortened{log, 6}, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Minute)
		stop()
		gaps, err := log.Gaps(t.Context(), 10)
		if err != nil || len(gaps) != 1 || gaps[0].From != 7 || gaps[0].To != 10 {
			t.Errorf("gaps = %+v, %v; want 7 to 10", gaps, err)
		}
		if n := len(r.got()); n != 6 {
			t.Errorf("%d events delivered, want 6", n)
		}
	})
}

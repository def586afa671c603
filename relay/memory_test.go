package relay_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/relay"
)

// full is a log with a great many events, which hands out copies as a database does. Parked
// events are made up when they are asked for.
type full struct {
	*eventlogtest.Memory
	lanes  int            // parked resources of each endpoint, each with parked events without end
	due    bool           // they are
	action tidings.Action // of all parked events
	asked  atomic.Int64   // for those that are due
}

func copied(events []tidings.Event) []tidings.Event {
	for i := range events {
		e := &events[i]
		e.Type, e.Action = tidings.ResourceType(strings.Clone(string(e.Type))),
			tidings.Action(strings.Clone(string(e.Action)))
		for _, text := range []*string{&e.ID, &e.ResourceID, &e.ResourceURL, &e.UserID, &e.OwnerID, &e.Trace} {
			*text = strings.Clone(*text)
		}
	}
	return events
}

func (f *full) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	events, err := f.Memory.Read(ctx, after, limit)
	return copied(events), err
}

func (f *full) row(p eventlog.Partition, n, version int) eventlog.Retry {
	e := event(1_000_000+n, version)
	e.Action, e.Sequence = f.action, int64(1+n+version*f.lanes)
	r := eventlog.Retry{Endpoint: p.Endpoint, Event: e}
	if version == 0 {
		r.Attempts, r.First, r.Next = 1, time.Now().Add(-time.Minute), time.Now()
		if !f.due {
			r.Next = time.Now().Add(24 * time.Hour)
		}
	}
	return r
}

func (f *full) ParkedLanes(
	_ context.Context, p eventlog.Partition, after int64, limit int,
) (rows []eventlog.Retry, err error) {
	for n := int(after); n < f.lanes && len(rows) < limit; n++ {
		if r := f.row(p, n, 0); p.Has(r.Event) {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (f *full) Due(
	ctx context.Context, p eventlog.Partition, now time.Time, limit int,
) ([]eventlog.Retry, time.Time, error) {
	if !f.due {
		return nil, now.Add(24 * time.Hour), nil
	}
	f.asked.Add(1)
	rows, err := f.ParkedLanes(ctx, p, 0, limit)
	return rows, time.Time{}, err
}

func (f *full) NextParked(
	_ context.Context, endpoint string, e tidings.Event, limit int,
) (rows []eventlog.Retry, err error) {
	if e.Sequence > int64(f.lanes) {
		return nil, nil // it is not parked
	}
	for version := range limit {
		rows = append(rows, f.row(eventlog.Partition{Endpoint: endpoint}, int(e.Sequence)-1, version))
	}
	return rows, nil
}

// What a relay holds in memory is bounded for the process, however many endpoints and partitions
// there are, whatever their settings and however many events wait.
func TestMemoryIsBounded(t *testing.T) {
	testtool.InAll(t)
	down := &receiver{answer: func(tidings.Attempt) tidings.Outcome { return unreachable }}
	hangs := relay.SenderFunc(func(ctx context.Context, _ tidings.Attempt) tidings.Outcome {
		<-ctx.Done()
		return tidings.Outcome{Verdict: tidings.Interrupted}
	})
	for _, tt := range []struct {
		name                  string
		endpoints, partitions int
		sender                relay.Sender
		coalesce              tidings.Coalesce
		waiting               int // events of the log
		lanes                 int // parked resources
		due                   bool
		replays               bool
		limit                 int64 // MiB
	}{
		{name: "waiting", endpoints: 20, partitions: 1, sender: down, waiting: 70_000, limit: 30},
		{
			name: "waiting, merged", endpoints: 20, partitions: 2, sender: down, waiting: 70_000,
			coalesce: tidings.CoalesceLatest, limit: 110,
		},
		{
			name: "many consumers", endpoints: 64, partitions: 8, sender: down, waiting: 10_000,
			coalesce: tidings.CoalesceLatest, limit: 160,
		},
		{name: "due", endpoints: 40, partitions: 1, sender: hangs, lanes: 200, due: true, limit: 35},
		{
			name: "due, merged", endpoints: 2, partitions: 1, sender: hangs, lanes: 8, due: true,
			coalesce: tidings.CoalesceLatest, limit: 5,
		},
		{name: "parked resources", endpoints: 4, partitions: 1, sender: hangs, lanes: 250_000, limit: 30},
		{name: "replays", endpoints: 1000, partitions: 1, sender: hangs, waiting: 2000, replays: true, limit: 150},
		{
			name: "all of it", endpoints: 50, partitions: 4, sender: hangs, waiting: 70_000, lanes: 1000,
			due: true, replays: true,
			coalesce: tidings.CoalesceLatest, limit: 220,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &full{Memory: eventlogtest.NewMemory(), lanes: tt.lanes, due: tt.due, action: "touched"}
				var all []relay.Endpoint
				for n := range tt.endpoints {
					e := endpoint(fmt.Sprint("e", n), tt.sender)
					e.Coalesce, e.Partitions, e.MaxInFlight = tt.coalesce, tt.partitions, 4*tt.partitions
					all = append(all, e)
				}
				start(t, log, relay.Options{}, all...)()
				for n := range tt.waiting {
					log.Append(event(n, 0))
				}
				for n := range tt.endpoints {
					r := eventlog.Replay{
						ID: fmt.Sprint(n), Endpoint: fmt.Sprint("e", n), From: 1,
						To: int64(tt.waiting), State: eventlog.ReplayRunning,
					}
					if !tt.replays {
						continue
					}
					if err := log.AddReplay(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				within(t, tt.limit, func() (stop func()) {
					stop = start(t, log, relay.Options{}, all...)
					time.Sleep(10 * time.Second)
					return stop
				})
				runtime.KeepAlive(log)
			})
		})
	}
}

// within measures what is held until stop is called, and fails if that exceeds some MiB.
func within(t *testing.T, limit int64, do func() (stop func())) {
	t.Helper()
	heap := func() int64 {
		synctest.Wait()
		runtime.GC()
		runtime.GC() // what the first one finalized
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	stop := do()
	held := heap()
	stop()
	held -= heap()
	t.Logf("%.1f MiB", float64(held)/(1<<20))
	if testtool.Raced {
		limit *= 2
	}
	if held > limit<<20 {
		t.Errorf("%d MiB are held, want at most %d", held>>20, limit)
	}
}

// An endpoint that accepts nothing holds none of the events that came after it stopped,
// except those that it has room for.
func TestDisabledEndpointsHoldNothing(t *testing.T) {
	testtool.InAll(t)
	synctest.Test(t, func(t *testing.T) {
		const endpoints = 20
		log := &full{Memory: eventlogtest.NewMemory()}
		var all []relay.Endpoint
		for n := range endpoints {
			e := endpoint(fmt.Sprint("e", n), &receiver{answer: func(tidings.Attempt) tidings.Outcome { return gone }})
			own, err := tidings.ParsePattern(fmt.Sprintf("type%d.*", n))
			if err != nil {
				t.Fatal(err)
			}
			e.Patterns = []tidings.Pattern{own}
			all = append(all, e)
		}
		within(t, 15, func() (stop func()) {
			stop = start(t, log, relay.Options{}, all...)
			synctest.Wait()
			for n := range endpoints { // one after another is disabled
				e := event(n, 0)
				e.Type = tidings.ResourceType(fmt.Sprint("type", n))
				for range 2 {
					log.Append(e)
					time.Sleep(time.Second)
				}
				for range 20 {
					var some []tidings.Event
					for range 500 {
						some = append(some, event(n, 0))
					}
					log.Append(some...)
					synctest.Wait()
				}
			}
			return stop
		})
		runtime.KeepAlive(log)
	})
}

// The result of merging parked events does not depend on how many are read at
// once.
func TestParkedEventsAreMergedInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const updates = 2000
		log := eventlogtest.NewMemory()
		r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-1-0" && a.Number == 1 {
				return refused
			}
			return delivered
		}}
		e := endpoint("a", r)
		e.Coalesce = tidings.CoalesceLatest
		stop := start(t, log, relay.Options{}, e)
		log.Append(event(1, 0), event(2, 0))
		time.Sleep(time.Second)
		for version := range updates {
			log.Append(event(1, version+1))
		}
		synctest.Wait()
		if n := log.RetryRows(); n != updates+1 {
			t.Fatalf("%d events are parked, want %d", n, updates+1)
		}
		time.Sleep(time.Minute)
		stop()
		if diff := cmp.Diff([]string{"evt-2-0", "evt-1-0", fmt.Sprint("evt-1-", updates)}, r.got()); diff != "" ||
			log.RetryRows() != 0 {
			t.Errorf("%d rows are left; delivered (-want +got):\n%s", log.RetryRows(), diff)
		}
	})
}

// While everything that is due first is in flight, the log is not asked for it over and over.
func TestDueEventsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &full{Memory: eventlogtest.NewMemory(), lanes: 200, due: true, action: "touched"}
		var sent atomic.Int64
		e := endpoint("a", relay.SenderFunc(func(ctx context.Context, _ tidings.Attempt) tidings.Outcome {
			if sent.Add(1) < 500 {
				return delivered
			}
			<-ctx.Done()
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}))
		e.MaxInFlight = 100
		stop := start(t, log, relay.Options{}, e)
		time.Sleep(time.Second)
		before, under := log.asked.Load(), sent.Load()-499
		time.Sleep(10 * time.Second)
		if n := log.asked.Load() - before; n > 100 || under < 64 {
			t.Errorf("asked %d times in 10 s, with %d under way", n, under)
		}
		stop()
	})
}

package eventlogtest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// testParkedKeeper covers what operators do with parked events.
func testParkedKeeper(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	keeper := part[eventlog.ParkedKeeper](t, home)
	held := hold(t, log, "a")
	now := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	later := now.Add(time.Hour)
	row := func(resource int, sequence int64, r eventlog.Retry) eventlog.Retry {
		r.Endpoint, r.Event = "a", Sample(resource, 1)
		r.Event.Sequence = sequence
		return r
	}
	failed := eventlog.Retry{
		Attempts: 2, First: now, Next: later, Reason: "http_422", Detail: "d", Response: "no such thing", Last: now,
	}
	head, waiting := row(1, 3, failed), row(1, 4, eventlog.Retry{})
	dead := failed
	dead.Next, dead.Dead, dead.Reason = time.Time{}, now, "http_413"
	gone, other := row(2, 5, dead), row(3, 6, failed)
	park(t, log, held, head, waiting, gone, other)

	want := waiting
	want.Behind = 3
	wants := func(f eventlog.ParkedFilter, want ...eventlog.Retry) {
		t.Helper()
		f.Limit = 10
		rows, err := log.Parked(ctx, f)
		if diff := cmp.Diff(want, rows); diff != "" || err != nil {
			t.Errorf("parked %+v, %v (-want +got):\n%s", f, err, diff)
		}
		var count eventlog.Count
		for _, r := range want {
			if count.Events++; count.First == 0 {
				count.First = r.Event.Sequence
			}
			count.Last = r.Event.Sequence
		}
		if n, err := keeper.CountParked(ctx, f); n != count || err != nil {
			t.Errorf("parked %+v: counted %+v, %v, want %+v", f, n, err, count)
		}
	}
	wants(eventlog.ParkedFilter{}, head, want, gone, other)
	wants(eventlog.ParkedFilter{Reason: "http_422"}, head, other)
	wants(eventlog.ParkedFilter{Resource: waiting.Event.Resource()}, head, want)
	wants(eventlog.ParkedFilter{Resource: other.Event.ResourceID}, other)
	name, _ := tidings.ParsePattern(head.Event.Name())
	none, _ := tidings.ParsePattern("*.elsewhere")
	all, _ := tidings.ParsePattern("*")
	wants(eventlog.ParkedFilter{Patterns: []tidings.Pattern{name, none}}, head, want, gone, other)
	wants(eventlog.ParkedFilter{Patterns: []tidings.Pattern{all}}, head, want, gone, other)
	wants(eventlog.ParkedFilter{Patterns: []tidings.Pattern{none}})

	groups, err := keeper.ParkedGroups(ctx, eventlog.ParkedFilter{Endpoint: "a"}, 2)
	if diff := cmp.Diff([]eventlog.ParkedGroup{
		{
			Endpoint: "a", Reason: "http_422", Response: "no such thing", Count: 2, First: 3, Last: 6,
			FirstAt: now, LastAt: now, Next: later,
		},
		{Endpoint: "a", Count: 1, First: 4, Last: 4},
	}, groups); diff != "" || err != nil {
		t.Errorf("groups, %v (-want +got):\n%s", err, diff)
	}

	// The one before it becomes due; a dead letter is parked again.
	if err := keeper.RetryParked(ctx, "a", []tidings.Event{waiting.Event, gone.Event}, now); err != nil {
		t.Fatal(err)
	}
	head.Next = now
	gone.Next, gone.Dead, gone.First, gone.Attempts = now, time.Time{}, time.Time{}, 0
	wants(eventlog.ParkedFilter{}, head, want, gone, other)

	// A live event stays until its owner removes it, but is no longer counted.
	n, err := keeper.Discard(ctx, "a", []int64{3, 6, 99}, eventlog.Discard{At: now, By: "ann", Comment: "obsolete"})
	if n != 2 || err != nil {
		t.Errorf("discarded %d, %v, want 2", n, err)
	}
	want.Behind = 0
	wants(eventlog.ParkedFilter{}, want, gone)
	counts, err := keeper.ParkedCounts(ctx)
	if got := counts["a"]; got.Live != 2 || got.Oldest != 4 || err != nil {
		t.Errorf("counts = %+v, %v", got, err)
	}
	park(t, log, held, other) // an attempt in flight failed
	wants(eventlog.ParkedFilter{}, want, gone)
	marked, err := log.Discarded(ctx, held.Partition, 10)
	if len(marked) != 2 || err != nil {
		t.Errorf("marked %v, %v, want two", marked, err)
	}
	unpark(t, log, held, 3, 6)
	if marked, err = log.Discarded(ctx, held.Partition, 10); len(marked) != 0 || err != nil {
		t.Errorf("marked %v, %v, want none", marked, err)
	}
	records, _, err := part[interface {
		ReadHistory(ctx context.Context, f eventlog.HistoryFilter) ([]eventlog.Record, int64, error)
	}](t, home).ReadHistory(ctx, eventlog.HistoryFilter{Endpoint: "a", Limit: 10})
	if len(records) != 2 || records[0].Outcome != eventlog.Discarded || records[0].By != "ann" ||
		records[0].Comment != "obsolete" || err != nil {
		t.Errorf("history: %+v, %v", records, err)
	}
	var settled []int64
	err = log.Settled(ctx, "a", 4, 6, func(sequence int64) { settled = append(settled, sequence) })
	if diff := cmp.Diff([]int64{6}, settled); diff != "" || err != nil {
		t.Errorf("settled, %v (-want +got):\n%s", err, diff)
	}
}

package eventlogtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

func prepare(t *testing.T, log eventlog.Log, s eventlog.Setup) {
	t.Helper()
	if err := log.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func testRemoved(t *testing.T, home Home) {
	home.Append(t, make([]tidings.Event, 7)...)
	advance(t, home.Log)
	log, ctx := home.Log, t.Context()
	archive := part[interface {
		ExpireEndpoints(ctx context.Context, age time.Duration) ([]eventlog.Removed, error)
		ParkedCounts(ctx context.Context) (map[string]eventlog.ParkedCount, error)
	}](t, home)
	expire := func(age time.Duration) []eventlog.Removed {
		t.Helper()
		gone, err := archive.ExpireEndpoints(ctx, age)
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	both := eventlog.Setup{Partitions: []eventlog.Partition{whole("a"), whole("b")}, Head: 7}
	held := hold(t, log, "a")
	prepare(t, log, both)
	fill := func(held eventlog.Lease) {
		t.Helper()
		var rows []eventlog.Retry
		for n := range 1500 {
			e := Sample(n, 1)
			e.Sequence = int64(n) + 1
			rows = append(rows, eventlog.Retry{Endpoint: "a", Event: e, Attempts: 1, First: e.Time, Next: e.Time})
		}
		rows[3].Dead, rows[3].Next = rows[3].Next, time.Time{}
		park(t, log, held, rows...)
		if err := log.SaveControl(ctx,
			eventlog.Control{Endpoint: "a", Disabled: "paused", Since: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := log.SaveGap(ctx, eventlog.Gap{Endpoint: "a", From: 1, To: 2, At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	fill(held)
	justB := eventlog.Setup{Partitions: []eventlog.Partition{whole("b")}, Head: 9}
	prepare(t, log, justB)
	if gone := expire(-time.Hour); gone != nil {
		t.Errorf("an endpoint that still has an owner was removed: %v", gone)
	}
	if err := log.Leave(ctx, held.Owner); err != nil {
		t.Fatal(err)
	}
	if gone := expire(time.Hour); gone != nil {
		t.Errorf("an endpoint was removed before its time: %v", gone)
	}
	// An endpoint that is back, or only disabled, keeps everything.
	for _, s := range []eventlog.Setup{both, {Partitions: justB.Partitions, Disabled: []string{"a"}}} {
		prepare(t, log, s)
		if gone := expire(-time.Hour); gone != nil {
			t.Errorf("a configured endpoint was removed: %v", gone)
		}
		prepare(t, log, justB)
	}
	gone := expire(-time.Hour)
	if len(gone) != 1 || gone[0] != (eventlog.Removed{Endpoint: "a", Parked: 1500}) {
		t.Errorf("removed: %v", gone)
	}
	nothing := func() {
		t.Helper()
		counts, err := archive.ParkedCounts(ctx)
		if err != nil || len(counts) != 0 {
			t.Errorf("parked counts = %v, %v", counts, err)
		}
		rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10})
		if err != nil || len(rows) != 0 {
			t.Errorf("%d parked events, %v", len(rows), err)
		}
		controls, err := log.Controls(ctx)
		if err != nil || len(controls) != 0 {
			t.Errorf("controls = %v, %v", controls, err)
		}
	}
	nothing()
	prepare(t, log, both)
	if got := cursors(t, log); got["a 0/1"] != 7 || got["b 0/1"] != 7 {
		t.Errorf("cursors = %v; a new endpoint begins at the head", got)
	}
	nothing()
}

func testOutdated(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	prepare(t, log, eventlog.Setup{Partitions: []eventlog.Partition{whole("a"), whole("b")}})
	prepare(t, log, eventlog.Setup{Partitions: []eventlog.Partition{whole("a")}})
	before, err := log.Cursors(ctx)
	if err != nil {
		t.Fatal(err)
	}
	setup := eventlog.Setup{Partitions: []eventlog.Partition{whole("b"), whole("c")}}
	for name, known := range map[string]map[string]bool{
		"none is known":           {},
		"one was created":         {"a": true},
		"one was renamed":         {"a": true, "former": false},
		"one was removed":         {"a": true, "b": true},
		"one was restored":        {"a": false, "b": false},
		"one has disappeared":     {"a": true, "b": false, "c": true},
		"all changed their state": {"a": false, "b": true},
	} {
		setup.Known = known
		if err := log.Prepare(ctx, setup); !errors.Is(err, eventlog.ErrEndpointsChanged) {
			t.Errorf("%s: %v, want %v", name, err, eventlog.ErrEndpointsChanged)
		}
	}
	after, err := log.Cursors(ctx)
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("%v, cursors (-want +got):\n%s", err, diff)
	}
	setup.Known = map[string]bool{"a": true, "b": false}
	prepare(t, log, setup)
	if got := cursors(t, log); len(got) != 3 {
		t.Errorf("cursors = %v, want those of a, b and c", got)
	}
}

func testRename(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	held := hold(t, log, "old")
	const parked = 1500
	var rows []eventlog.Retry
	for n := range parked {
		e := Sample(n, 1)
		e.Sequence = int64(n) + 1
		rows = append(rows, eventlog.Retry{Endpoint: "old", Event: e, Attempts: 1, First: e.Time, Next: e.Time})
	}
	park(t, log, held, rows...)
	save(t, log, eventlog.Cursor{Lease: held, Sequence: 40})
	if err := log.SaveControl(ctx,
		eventlog.Control{Endpoint: "old", Disabled: "paused", Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]string{{"nobody", "new"}, {"old", "old"}} {
		if renamed, err := log.Rename(ctx, names[0], names[1]); renamed || err != nil {
			t.Errorf("renamed %v: %v, %v", names, renamed, err)
		}
	}
	if renamed, err := log.Rename(ctx, "old", "new"); !renamed || err != nil {
		t.Fatalf("renamed: %v, %v", renamed, err)
	}
	for _, names := range [][2]string{{"new", "old"}, {"old", "new"}} { // before the parked events have been moved
		if renamed, err := log.Rename(ctx, names[0], names[1]); !renamed || err != nil {
			t.Fatalf("renamed %v: %v, %v", names, renamed, err)
		}
	}
	if lost, err := log.Park(ctx, eventlog.Parking{Lease: held, Retries: rows[:1]}); len(lost) != 1 || err != nil {
		t.Errorf("the old owner parked: %v, %v", lost, err)
	}
	two := []eventlog.Partition{{Endpoint: "new", Index: 0, Of: 2}, {Endpoint: "new", Index: 1, Of: 2}}
	prepare(t, log, eventlog.Setup{Partitions: two, Head: 100})
	if got := cursors(t, log); got["new 0/2"] != 40 || got["new 1/2"] != 40 || len(got) != 2 {
		t.Errorf("cursors = %v", got)
	}
	if err := log.Leave(ctx, held.Owner); err != nil {
		t.Fatal(err)
	}
	join(t, log, "other")
	if got, err := log.Acquire(ctx, "other", two); len(got) != 0 || err != nil {
		t.Errorf("acquired before the parked events were moved: %v, %v", got, err)
	}
	for more, steps := true, 0; more; steps++ {
		var err error
		if more, err = log.MoveParked(ctx); err != nil || steps > 10 {
			t.Fatalf("after %d steps: %v", steps, err)
		}
	}
	acquire(t, log, "other", two...)
	for endpoint, want := range map[string]int{"new": parked, "old": 0} {
		got, err := log.Parked(ctx, eventlog.ParkedFilter{Endpoint: endpoint, Limit: 2 * parked})
		if err != nil || len(got) != want {
			t.Errorf("%d events of %s, %v, want %d", len(got), endpoint, err, want)
		}
	}
	counts, err := part[interface {
		ParkedCounts(ctx context.Context) (map[string]eventlog.ParkedCount, error)
	}](t, home).ParkedCounts(ctx)
	if err != nil || len(counts) != 1 || counts["new"].Live != parked {
		t.Errorf("counts = %v, %v", counts, err)
	}
	controls, err := log.Controls(ctx)
	if err != nil || len(controls) != 1 || controls["new"].Disabled != "paused" {
		t.Errorf("controls = %v, %v", controls, err)
	}
}

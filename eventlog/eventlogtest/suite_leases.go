package eventlogtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const longLife = time.Hour

func whole(endpoint string) eventlog.Partition { return eventlog.Partition{Endpoint: endpoint, Of: 1} }

func join(t *testing.T, log eventlog.Log, id string) {
	t.Helper()
	if err := log.Join(t.Context(), eventlog.Replica{ID: id, Group: "g"}, longLife); err != nil {
		t.Fatal(err)
	}
}

func acquire(t *testing.T, log eventlog.Log, owner string, want ...eventlog.Partition) []eventlog.Cursor {
	t.Helper()
	got, err := log.Acquire(t.Context(), owner, want)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// hold creates an endpoint's cursor and acquires its lease.
func hold(t *testing.T, log eventlog.Log, endpoint string) eventlog.Lease {
	t.Helper()
	if err := log.Prepare(t.Context(),
		eventlog.Setup{Partitions: []eventlog.Partition{whole(endpoint)}, Head: 0}); err != nil {
		t.Fatal(err)
	}
	join(t, log, "holder of "+endpoint)
	got := acquire(t, log, "holder of "+endpoint, whole(endpoint))
	if len(got) != 1 {
		t.Fatalf("acquired %v, want the lease of %s", got, endpoint)
	}
	return got[0].Lease
}

func save(t *testing.T, log eventlog.Log, cursors ...eventlog.Cursor) (lost []eventlog.Lease) {
	t.Helper()
	lost, err := log.SaveCursors(t.Context(), cursors)
	if err != nil {
		t.Fatal(err)
	}
	return lost
}

func cursors(t *testing.T, log eventlog.Log) map[string]int64 {
	t.Helper()
	all, err := log.Cursors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	positions := make(map[string]int64)
	for _, c := range all {
		positions[fmt.Sprintf("%s %d/%d", c.Endpoint, c.Index, c.Of)] = c.Sequence
		if c.Saved.IsZero() {
			t.Errorf("the cursor of %s was never saved", c.Endpoint)
		}
	}
	return positions
}

func testCursors(t *testing.T, home Home) {
	save(t, home.Log)
	home.Append(t, make([]tidings.Event, 7)...)
	advance(t, home.Log)
	held := hold(t, home.Log, "a")
	if err := home.Log.Prepare(t.Context(),
		eventlog.Setup{Partitions: []eventlog.Partition{whole("a"), whole("b")}, Head: 8}); err != nil {
		t.Fatal(err)
	}
	save(t, home.Log, eventlog.Cursor{Lease: held, Sequence: 5, Status: "{}"})
	save(t, home.Log, eventlog.Cursor{Lease: held, Sequence: 3, Status: "new"})
	if diff := cmp.Diff(map[string]int64{"a 0/1": 5, "b 0/1": 7}, cursors(t, home.Log)); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	all, err := home.Log.Cursors(t.Context())
	if err != nil || all[0].Status != "new" || all[0].Lease != held {
		t.Errorf("cursor = %+v, %v; want the new status and the lease %+v", all[0], err, held)
	}
}

func testLeases(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	first := hold(t, log, "a")
	if err := log.Leave(ctx, first.Owner); err != nil { // the replica leaves, but parts of it keep running
		t.Fatal(err)
	}
	join(t, log, "second")
	got := acquire(t, log, "second", whole("a"), whole("unknown"), eventlog.Partition{Endpoint: "a", Of: 2})
	if len(got) != 1 || got[0].Generation <= first.Generation || got[0].Owner != "second" {
		t.Fatalf("acquired %+v after %+v", got, first)
	}
	second := got[0].Lease
	if again := acquire(t, log, "third", whole("a")); len(again) > 0 {
		t.Errorf("a lease that is held was taken: %+v", again)
	}
	lost := save(t, log, eventlog.Cursor{Lease: first, Sequence: 9})
	if diff := cmp.Diff([]eventlog.Lease{first}, lost); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
	retry := eventlog.Retry{Endpoint: "a", Event: Sample(1, 1), Attempts: 1, Next: time.Unix(1, 0)}
	retry.Event.Sequence = 1
	// A lost lease does not make the others fail.
	other := retry
	other.Event.Sequence = 2
	refused, err := log.Park(ctx, eventlog.Parking{Lease: first, Retries: []eventlog.Retry{other}},
		eventlog.Parking{Lease: second, Retries: []eventlog.Retry{retry}})
	if len(refused) != 1 || !errors.Is(refused[first], eventlog.ErrLeaseLost) || err != nil {
		t.Errorf("refused %v, %v", refused, err)
	}
	if lost, err := log.Park(ctx, eventlog.Parking{Lease: first, Done: []int64{1}}); len(lost) != 1 || err != nil {
		t.Errorf("lost %v, %v", lost, err)
	}
	if rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10}); len(rows) != 1 || err != nil {
		t.Errorf("%d rows, %v; a lost lease must not unpark", len(rows), err)
	}
	if _, err := log.SaveReplay(ctx, first, eventlog.Replay{}); !errors.Is(err, eventlog.ErrLeaseLost) {
		t.Errorf("saved a replay under a lost lease: %v", err)
	}
	if err := log.Release(ctx, []eventlog.Lease{first}); err != nil { // no longer its own
		t.Fatal(err)
	}
	if again := acquire(t, log, "third", whole("a")); len(again) > 0 {
		t.Errorf("releasing a lost lease released the current one: %+v", again)
	}
	if err := log.Release(ctx, []eventlog.Lease{second}); err != nil {
		t.Fatal(err)
	}
	if again := acquire(t, log, "second", whole("a")); len(again) != 1 {
		t.Errorf("a released lease could not be acquired: %+v", again)
	}
	if positions := cursors(t, log); positions["a 0/1"] != 0 {
		t.Errorf("cursor = %d: it was moved under a lost lease", positions["a 0/1"])
	}
}

func testDeadReplica(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	if err := log.Prepare(ctx, eventlog.Setup{Partitions: []eventlog.Partition{whole("a")}, Head: 0}); err != nil {
		t.Fatal(err)
	}
	paused := eventlog.Replica{ID: "paused", Group: "g"}
	if err := log.Join(ctx, paused, 0); err != nil { // dead at once, but only if somebody removes it
		t.Fatal(err)
	}
	if alive, err := log.KeepAlive(ctx, paused, 0); !alive || err != nil {
		t.Fatalf("alive = %v, %v; no replica has removed it", alive, err)
	}
	if live, err := log.Replicas(ctx); len(live) != 0 || err != nil {
		t.Errorf("live = %v, %v; want none", live, err)
	}
	if got := acquire(t, log, "other", whole("a")); len(got) != 1 {
		t.Fatalf("acquired %v", got)
	}
	if alive, err := log.KeepAlive(ctx, paused, longLife); alive || err != nil {
		t.Errorf("alive = %v, %v; it was removed", alive, err)
	}
}

func testLongLife(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	here := eventlog.Replica{ID: "here"}
	if err := log.Join(ctx, eventlog.Replica{ID: "gone"}, 100*time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := log.Join(ctx, here, time.Minute); err != nil { // on SQLite, the replica "gone" has to leave first
		t.Fatal(err)
	}
	live := func() (ids []string) {
		t.Helper()
		all, err := log.Replicas(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			ids = append(ids, r.ID)
		}
		return ids
	}
	if alive, err := log.KeepAlive(ctx, here, time.Millisecond); !alive || err != nil {
		t.Fatalf("alive = %v, %v", alive, err)
	}
	for deadline := time.Now().Add(time.Minute); len(live()) > 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("live = %v; want none", live())
		}
	}
}

func testPartitions(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	old := hold(t, log, "a")
	save(t, log, eventlog.Cursor{Lease: old, Sequence: 5})
	two := []eventlog.Partition{{Endpoint: "a", Index: 0, Of: 2}, {Endpoint: "a", Index: 1, Of: 2}}
	if err := log.Prepare(ctx, eventlog.Setup{Partitions: two, Head: 100}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int64{"a 0/2": 5, "a 1/2": 5}, cursors(t, log)); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	if lost := save(t, log, eventlog.Cursor{Lease: old, Sequence: 50}); len(lost) != 1 {
		t.Errorf("lost = %v; the lease of the whole endpoint no longer exists", lost)
	}
	if got := acquire(t, log, old.Owner+"2", two...); len(got) > 0 {
		t.Errorf("acquired %v while the old owner may still deliver", got)
	}
	if err := log.Leave(ctx, old.Owner); err != nil {
		t.Fatal(err)
	}
	join(t, log, "new")
	got := acquire(t, log, "new", two...)
	if len(got) != 2 {
		t.Fatalf("acquired %v", got)
	}
	slices.SortFunc(got, func(a, b eventlog.Cursor) int { return a.Index - b.Index })
	ahead := eventlog.Mark{Index: 1, Of: 2, Low: 6, High: 12, Open: []int64{7, 11}, Ahead: []int64{20}}
	save(t, log, eventlog.Cursor{Lease: got[0].Lease, Sequence: 8},
		eventlog.Cursor{Lease: got[1].Lease, Sequence: 6, Marks: eventlog.Marks{ahead}})
	if err := log.Prepare(ctx, eventlog.Setup{Partitions: []eventlog.Partition{whole("a")}, Head: 100}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int64{"a 0/1": 6}, cursors(t, log)); diff != "" {
		t.Errorf("cursors of a single partition again (-want +got):\n%s", diff)
	}
	again, err := log.Cursors(ctx)
	want := eventlog.Marks{{Index: 0, Of: 2, Low: 8}, ahead}
	if diff := cmp.Diff(want, again[0].Marks); diff != "" || err != nil {
		t.Errorf("what the two had settled: %v (-want +got):\n%s", err, diff)
	}
	parts := make(map[int]bool)
	for n := range 64 {
		for _, p := range two {
			if p.Has(Sample(n, 1)) {
				parts[p.Index] = true
			}
		}
		if two[0].Has(Sample(n, 1)) == two[1].Has(Sample(n, 1)) {
			t.Errorf("resource %d is in both partitions, or in none", n)
		}
	}
	if len(parts) != 2 {
		t.Error("one partition has all resources")
	}
}

func testReplicaDetails(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	r := eventlog.Replica{
		ID: "one", Group: "g", Version: "1.2", Started: time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC), Memory: 64 << 20,
	}
	if err := log.Join(ctx, r, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, memory := range []int64{r.Memory, 65 << 20} {
		r.Memory = memory
		if alive, err := log.KeepAlive(ctx, r, time.Minute); !alive || err != nil {
			t.Fatal(alive, err)
		}
		all, err := log.Replicas(ctx)
		if diff := cmp.Diff([]eventlog.Replica{r}, all); diff != "" || err != nil {
			t.Errorf("replicas, %v (-want +got):\n%s", err, diff)
		}
	}
}

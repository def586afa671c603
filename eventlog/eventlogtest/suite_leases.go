package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// hold makes an endpoint's cursor and takes its lease.
func hold(t *testing.T, log eventlog.Log, endpoint string) eventlog.Lease {
	t.Helper()
	if err := log.Prepare(t.Context(), eventlog.Setup{Partitions: []eventlog.Partition{whole(endpoint)}, Head: 0}); err != nil {
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
			t.Errorf("cursor of %s was never saved", c.Endpoint)
		}
	}
	return positions
}

func testCursors(t *testing.T, home Home) {
	save(t, home.Log)
	home.Append(t, make([]tidings.Event, 7)...)
	advance(t, home.Log)
	held := hold(t, home.Log, "a")
	if err := home.Log.Prepare(t.Context(), eventlog.Setup{Partitions: []eventlog.Partition{whole("a"), whole("b")}, Head: 8}); err != nil {
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
	if err := log.Leave(ctx, first.Owner); err != nil { // it leaves, and some of it goes on
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
	// Who has lost a lease does not fail the others.
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
	if err := log.Release(ctx, []eventlog.Lease{first}); err != nil { // not its own any more
		t.Fatal(err)
	}
	if again := acquire(t, log, "third", whole("a")); len(again) > 0 {
		t.Errorf("a lost lease released the one that is held: %+v", again)
	}
	if err := log.Release(ctx, []eventlog.Lease{second}); err != nil {
		t.Fatal(err)
	}
	if again := acquire(t, log, "second", whole("a")); len(again) != 1 {
		t.Errorf("a lease that was released was not to be had: %+v", again)
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
	if err := log.Join(ctx, paused, 0); err != nil { // dead at once, unless nobody minds
		t.Fatal(err)
	}
	if alive, err := log.KeepAlive(ctx, paused, 0); !alive || err != nil {
		t.Fatalf("alive = %v, %v; nobody has removed it", alive, err)
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
		t.Errorf("lost = %v; the whole endpoint is no lease any more", lost)
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
	save(t, log, eventlog.Cursor{Lease: got[0].Lease, Sequence: 8}, eventlog.Cursor{Lease: got[1].Lease, Sequence: 6, Marks: eventlog.Marks{ahead}})
	if err := log.Prepare(ctx, eventlog.Setup{Partitions: []eventlog.Partition{whole("a")}, Head: 100}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int64{"a 0/1": 6}, cursors(t, log)); diff != "" {
		t.Errorf("cursors of one again (-want +got):\n%s", diff)
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

func testControls(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	want := eventlog.Control{Endpoint: "a", Disabled: "http_410", Fingerprint: "f", Since: at}
	for _, c := range []eventlog.Control{{Endpoint: "a", Disabled: "paused", Since: at}, want} {
		if err := log.SaveControl(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	want.Since = at.Add(time.Microsecond) // said later, whatever the clock said
	got, err := log.Controls(ctx)
	if diff := cmp.Diff(map[string]eventlog.Control{"a": want}, got); diff != "" || err != nil {
		t.Errorf("controls, %v (-want +got):\n%s", err, diff)
	}
	for n := range 3 {
		gap := eventlog.Gap{Endpoint: "a", From: int64(n)*10 + 1, To: int64(n)*10 + 5, At: at.Add(time.Duration(n) * time.Second)}
		if err := log.SaveGap(ctx, gap); err != nil {
			t.Fatal(err)
		}
	}
	gaps, err := part[interface {
		Gaps(ctx context.Context, limit int) ([]eventlog.Gap, error)
	}](t, home).Gaps(ctx, 2)
	if err != nil || len(gaps) != 2 || gaps[0].From != 21 || gaps[1].To != 15 {
		t.Errorf("gaps = %v, %v; want the newest two", gaps, err)
	}
	if err := log.Nudge(ctx); err != nil {
		t.Fatal(err)
	}
	<-log.Nudged()
}

func testExpiry(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	oldest := func() int64 {
		t.Helper()
		n, err := log.Oldest(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := oldest(); n != 1 {
		t.Errorf("an empty log begins at %d, want 1", n)
	}
	home.Append(t, Sample(1, 1), Sample(1, 2))
	advance(t, log)
	held := hold(t, log, "a")
	retry := eventlog.Retry{Endpoint: "a", Event: Sample(1, 1), Attempts: 1, Next: time.Unix(1, 0)}
	retry.Event.Sequence = 1
	park(t, log, held, retry)
	expirer := part[interface {
		ExpireEvents(ctx context.Context, keep time.Duration) (eventlog.Expiry, error)
	}](t, home)
	if x, err := expirer.ExpireEvents(ctx, 100*365*24*time.Hour); err != nil || time.Since(x.At).Abs() > time.Minute || len(x.Gaps) > 0 {
		t.Fatalf("%+v, %v; want nothing but the time", x, err)
	}
	if n := oldest(); n != 1 {
		t.Errorf("the log begins at %d; nothing has expired", n)
	}
	home.Expire(t)
	home.Append(t, Sample(1, 3))
	head := advance(t, log)
	if n := oldest(); n != 3 || head != 3 {
		t.Errorf("the log begins at %d, its head is %d; want 3", n, head)
	}
	if events := read(t, log, 0, 10); len(events) != 1 || events[0].Sequence != 3 {
		t.Errorf("after 0 come %v, want what there is", events)
	}
	if rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10}); len(rows) != 1 || err != nil {
		t.Errorf("%d parked, %v; they survive the log's expiry", len(rows), err)
	}
}

// When events go, cursors that need them move on, and what they missed is noted: once,
// and in one gap where it follows on another.
func testExpiredGaps(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	partitions := []eventlog.Partition{{Endpoint: "behind", Of: 1}, {Endpoint: "divided", Of: 2}, {Endpoint: "divided", Index: 1, Of: 2}}
	if err := log.Prepare(ctx, eventlog.Setup{Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	type told struct {
		Endpoint string
		Index    int
		From, To int64
	}
	gaps := func() (all []told) {
		t.Helper()
		noted, err := part[interface {
			Gaps(ctx context.Context, limit int) ([]eventlog.Gap, error)
		}](t, home).Gaps(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range noted {
			all = append(all, told{g.Endpoint, g.Index, g.From, g.To})
		}
		slices.SortFunc(all, func(a, b told) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return all
	}
	for round := range int64(2) {
		home.Append(t, Sample(1, 1), Sample(1, 2))
		advance(t, log)
		home.Expire(t)
		end := 2 * (round + 1)
		want := []told{{"behind", 0, 1, end}, {"divided", 0, 1, end}, {"divided", 1, 1, end}}
		if diff := cmp.Diff(want, gaps()); diff != "" {
			t.Errorf("gaps (-want +got):\n%s", diff)
		}
		got := cursors(t, log)
		if got["behind 0/1"] != end || got["divided 1/2"] != end {
			t.Errorf("cursors = %v; want all at %d", got, end)
		}
	}
	// A consumer that finds out by itself adds nothing to it.
	if err := log.SaveGap(ctx, eventlog.Gap{Endpoint: "behind", From: 3, To: 4, At: time.Now(), Reason: eventlog.GapExpired}); err != nil {
		t.Fatal(err)
	}
	if n := len(gaps()); n != 3 {
		t.Errorf("%d gaps, want 3", n)
	}
}

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
		if err := log.SaveControl(ctx, eventlog.Control{Endpoint: "a", Disabled: "paused", Since: time.Now()}); err != nil {
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
		t.Errorf("an endpoint that is still delivered to was removed: %v", gone)
	}
	if err := log.Leave(ctx, held.Owner); err != nil {
		t.Fatal(err)
	}
	if gone := expire(time.Hour); gone != nil {
		t.Errorf("an endpoint was removed before its time: %v", gone)
	}
	// One that is back, or only disabled, keeps all.
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
	if err := log.SaveControl(ctx, eventlog.Control{Endpoint: "old", Disabled: "paused", Since: time.Now()}); err != nil {
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
	if lost, err := log.Park(ctx, eventlog.Parking{Lease: held, Retries: rows[:1]}); len(lost) != 1 || err != nil {
		t.Errorf("the old owner parks: %v, %v", lost, err)
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
		t.Errorf("acquired before the parked events have followed: %v, %v", got, err)
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

func testDeadLetters(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	archive := part[interface {
		ExpireDead(ctx context.Context, before time.Time) (map[string]int64, error)
		DiscardDead(ctx context.Context, endpoint string, sequence int64) (int64, error)
		ParkedCounts(ctx context.Context) (map[string]eventlog.ParkedCount, error)
	}](t, home)
	held := hold(t, log, "a")
	now := time.Now()
	var rows []eventlog.Retry
	for n := range 10 {
		e := Sample(n, 1)
		e.Sequence = int64(n) + 1
		r := eventlog.Retry{Endpoint: "a", Event: e, Attempts: 1, First: e.Time, Next: now}
		if n >= 2 {
			r.Dead, r.Next = now.Add(time.Duration(n)*time.Hour), time.Time{}
		}
		rows = append(rows, r)
	}
	park(t, log, held, rows...)
	wants := func(live, dead int64) {
		t.Helper()
		counts, err := archive.ParkedCounts(ctx)
		if err != nil || counts["a"] != (eventlog.ParkedCount{Live: live, Dead: dead}) {
			t.Errorf("counts = %v, %v, want %d live and %d dead", counts, err, live, dead)
		}
	}
	wants(2, 8)
	if n, err := archive.DiscardDead(ctx, "a", 3); n != 1 || err != nil {
		t.Errorf("discarded %d, %v", n, err)
	}
	for _, sequence := range []int64{1, 3, 99} {
		if n, err := archive.DiscardDead(ctx, "a", sequence); n != 0 || err != nil {
			t.Errorf("discarded %d at %d, %v", n, sequence, err)
		}
	}
	wants(2, 7)
	if n, err := archive.ExpireDead(ctx, now.Add(5*time.Hour-time.Minute)); n["a"] != 2 || err != nil {
		t.Errorf("expired %v, %v", n, err)
	}
	wants(2, 5)
	rows[0].Next, rows[0].Dead = time.Time{}, now // given up
	park(t, log, held, rows[0], eventlog.Retry{Endpoint: "a", Event: rows[1].Event})
	wants(1, 6)
	if n, err := archive.DiscardDead(ctx, "a", 0); n != 6 || err != nil {
		t.Errorf("discarded %d, %v", n, err)
	}
	wants(1, 0)
	unpark(t, log, held, 2)
	wants(0, 0)
}

func testFind(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	finder := part[eventlog.Finder](t, home)
	begin := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	events := make([]tidings.Event, 50)
	for i := range events {
		events[i] = Sample(i, 1)
		events[i].ID = ""
		events[i].Time = begin.Add(time.Duration(i) * time.Hour)
	}
	last := Sample(99, 1) // with an id of its own
	last.Time = begin.Add(50 * time.Hour)
	home.Append(t, append(events, last)...)
	advance(t, log)
	all := read(t, log, 0, 100)
	for _, want := range []tidings.Event{all[0], all[49], all[50]} {
		got, found, err := finder.Find(ctx, want.ID)
		if diff := cmp.Diff(want, got); diff != "" || !found || err != nil {
			t.Errorf("found %v, %v (-want +got):\n%s", found, err, diff)
		}
	}
	if _, found, err := finder.Find(ctx, "01900000-0000-7000-8000-000000000000"); found || err != nil {
		t.Errorf("found %v, %v; there is no such event", found, err)
	}
	for hours, want := range map[int]int64{-100: 1, 0: 1, 10: 11, 49: 50} {
		got, err := log.SequenceAt(ctx, begin.Add(time.Duration(hours)*time.Hour))
		if err != nil || got != want {
			t.Errorf("events of hour %d begin at %d, %v; want %d", hours, got, err, want)
		}
	}
}

func testReplays(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	keeper := part[eventlog.ReplayKeeper](t, home)
	held := hold(t, log, "a")
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	one := eventlog.Replay{
		ID: "1", Endpoint: "a", From: 1, To: 9, Since: at, Patterns: []string{"provider.*", "*.deleted"}, Resource: "provider/x",
		State: eventlog.ReplayRunning, Created: at, Updated: at, CreatedBy: "somebody",
	}
	two := eventlog.Replay{ID: "2", Endpoint: "a", Dead: true, State: eventlog.ReplayRunning, Created: at.Add(time.Second), Updated: at}
	for _, r := range []eventlog.Replay{one, two} {
		if err := keeper.AddReplay(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range [][]string{{""}, {"provider.*", "provider"}, {"provider.*,*.deleted"}, {"a.b.c"}} {
		if err := keeper.AddReplay(ctx, eventlog.Replay{ID: "3", Endpoint: "a", Patterns: bad, State: eventlog.ReplayRunning}); err == nil {
			t.Errorf("a replay of the patterns %q was added", bad)
		}
	}
	got, err := log.Replays(ctx, true, 10)
	if diff := cmp.Diff([]eventlog.Replay{one, two}, got); diff != "" || err != nil {
		t.Errorf("running, %v (-want +got):\n%s", err, diff)
	}
	one.Position, one.Delivered, one.Failed, one.Expired, one.Reason, one.State = 9, 4, 1, 3, "http_500", eventlog.ReplayDone
	if state, err := log.SaveReplay(ctx, held, one); state != eventlog.ReplayDone || err != nil {
		t.Errorf("saved as %q, %v", state, err)
	}
	for _, want := range []bool{true, false} {
		if canceled, err := keeper.CancelReplay(ctx, "2"); canceled != want || err != nil {
			t.Errorf("canceled %v, %v; want %v", canceled, err, want)
		}
	}
	two.Position = 3
	if state, err := log.SaveReplay(ctx, held, two); state != eventlog.ReplayCanceled || err != nil {
		t.Errorf("saved as %q, %v; it was canceled", state, err)
	}
	saved, found, err := keeper.Replay(ctx, "1")
	if diff := cmp.Diff(one, saved, cmpopts.IgnoreFields(one, "Updated")); diff != "" || !found || err != nil {
		t.Errorf("saved, %v, %v (-want +got):\n%s", found, err, diff)
	}
	if all, err := log.Replays(ctx, false, 10); len(all) != 2 || all[0].ID != "2" || err != nil {
		t.Errorf("all = %v, %v; want the newest first", all, err)
	}
	if err := part[eventlog.Expirer](t, home).ExpireReplays(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, found, err := keeper.Replay(ctx, "1"); found || err != nil {
		t.Errorf("an old replay is still there, %v", err)
	}
}

func testHistory(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	reader := part[interface {
		ReadHistory(ctx context.Context, f eventlog.HistoryFilter) ([]eventlog.Record, int64, error)
	}](t, home)
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	record := func(endpoint string, sequence int64, outcome string) eventlog.Record {
		return eventlog.Record{
			Endpoint: endpoint, At: at.Add(time.Duration(sequence) * time.Minute), Sequence: sequence, EventID: "id", Event: "provider.created",
			Resource: "provider/x", Outcome: outcome, Attempt: 2, Replay: true, Reason: "http_500", Status: 500, Address: "127.0.0.1:80",
			Response: "a \"b\"\n\x00\xff<", MergedInto: 7, DNS: 1, Connect: 2, TLS: 3, FirstByte: 4, Total: 5,
		}
	}
	block := func(records ...eventlog.Record) *eventlog.HistoryBlock {
		var b eventlog.HistoryBlock
		for _, r := range records {
			b.Endpoint = r.Endpoint
			b.Add(r)
		}
		return &b
	}
	err := log.AppendHistory(ctx, []*eventlog.HistoryBlock{
		block(record("a", 1, "delivered"), record("a", 3, "merged")),
		block(record("b", 2, "failed")),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		filter eventlog.HistoryFilter
		want   []int64
	}{
		"all":      {eventlog.HistoryFilter{}, []int64{2, 1, 3}},
		"endpoint": {eventlog.HistoryFilter{Endpoint: "a"}, []int64{1, 3}},
		"event":    {eventlog.HistoryFilter{Sequence: 3}, []int64{1, 3}},
		"failures": {eventlog.HistoryFilter{Failures: true}, []int64{2}},
		"since":    {eventlog.HistoryFilter{Since: at.Add(150 * time.Second)}, []int64{1, 3}},
		"until":    {eventlog.HistoryFilter{Until: at.Add(90 * time.Second)}, []int64{1, 3}},
	} {
		tt.filter.Limit = 10
		records, oldest, err := reader.ReadHistory(ctx, tt.filter)
		var got []int64
		for _, r := range records {
			got = append(got, r.Sequence)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s, %v (-want +got):\n%s", name, err, diff)
		}
		if name == "failures" {
			want := record("b", 2, "failed")
			want.Response = "a \"b\"\n\x00\ufffd<"
			if diff := cmp.Diff(want, records[0]); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			older, _, err := reader.ReadHistory(ctx, eventlog.HistoryFilter{Before: oldest, Limit: 1})
			if len(older) != 2 || err != nil {
				t.Errorf("before it: %v, %v", older, err)
			}
		}
	}
	if err := part[eventlog.Expirer](t, home).ExpireHistory(context.WithoutCancel(ctx), time.Hour); err != nil {
		t.Fatal(err)
	}
	if records, _, err := reader.ReadHistory(ctx, eventlog.HistoryFilter{Limit: 10}); len(records) != 3 || err != nil {
		t.Errorf("%d records, %v; none is that old", len(records), err)
	}
}

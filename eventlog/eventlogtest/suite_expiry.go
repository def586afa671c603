package eventlogtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

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
	if x, err := expirer.ExpireEvents(ctx, 100*365*24*time.Hour); err != nil ||
		time.Since(x.At).Abs() > time.Minute || len(x.Gaps) > 0 {
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

// When events expire, cursors that need them move on and the gap is recorded once,
// merged with an adjacent one.
func testExpiredGaps(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	partitions := []eventlog.Partition{
		{Endpoint: "behind", Of: 1},
		{Endpoint: "divided", Of: 2},
		{Endpoint: "divided", Index: 1, Of: 2},
	}
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
	if err := log.SaveGap(ctx, eventlog.Gap{
		Endpoint: "behind", From: 3, To: 4, At: time.Now(),
		Reason: eventlog.GapExpired,
	}); err != nil {
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
		t.Errorf("an endpoint that is still delivered to was removed: %v", gone)
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
	for _, names := range [][2]string{{"new", "old"}, {"old", "new"}} { // before the parked events have followed
		if renamed, err := log.Rename(ctx, names[0], names[1]); !renamed || err != nil {
			t.Fatalf("renamed %v: %v, %v", names, renamed, err)
		}
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

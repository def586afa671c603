package eventlogtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		t.Errorf("the log begins at %d, but nothing has expired", n)
	}
	home.Expire(t)
	home.Append(t, Sample(1, 3))
	head := advance(t, log)
	if n := oldest(); n != 3 || head != 3 {
		t.Errorf("the log begins at %d, its head is %d; want 3", n, head)
	}
	if events := read(t, log, 0, 10); len(events) != 1 || events[0].Sequence != 3 {
		t.Errorf("after 0: %v, want the remaining events", events)
	}
	if rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10}); len(rows) != 1 || err != nil {
		t.Errorf("%d parked, %v; they survive the log's expiry", len(rows), err)
	}
}

// When events expire, cursors that need them move forward and the gap is recorded once,
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
	// A consumer that notices the gap itself adds nothing to it.
	if err := log.SaveGap(ctx, eventlog.Gap{
		Endpoint: "behind", From: 3, To: 4, At: time.Now(),
		Reason: eventlog.GapExpired,
	}); err != nil {
		t.Fatal(err)
	}
	if n := len(gaps()); n != 3 {
		t.Errorf("%d gaps, want 3", n)
	}
	archive, ok := log.(eventlog.Archive)
	if !ok {
		return
	}
	for _, test := range []struct {
		before time.Duration
		left   int
	}{{-time.Hour, 3}, {time.Hour, 0}} {
		if err := archive.ExpireGaps(ctx, time.Now().Add(test.before)); err != nil {
			t.Fatal(err)
		}
		if n := len(gaps()); n != test.left {
			t.Errorf("%d gaps are left, want %d", n, test.left)
		}
	}
}

func testDeadLetters(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	archive := part[interface {
		ExpireDead(ctx context.Context, before time.Time) (map[string]int64, error)
		Discard(ctx context.Context, endpoint string, sequences []int64, d eventlog.Discard) (int64, error)
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
		if err != nil || counts["a"].Live != live || counts["a"].Dead != dead {
			t.Errorf("counts = %v, %v, want %d live and %d dead", counts, err, live, dead)
		}
	}
	wants(2, 8)
	if n, err := archive.Discard(ctx, "a", []int64{3}, eventlog.Discard{}); n != 1 || err != nil {
		t.Errorf("discarded %d, %v", n, err)
	}
	for _, sequence := range []int64{3, 99} {
		if n, err := archive.Discard(ctx, "a", []int64{sequence}, eventlog.Discard{}); n != 0 || err != nil {
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
	if n, err := archive.Discard(ctx, "a", []int64{1, 6, 7, 8, 9, 10}, eventlog.Discard{}); n != 6 || err != nil {
		t.Errorf("discarded %d, %v", n, err)
	}
	wants(1, 0)
	unpark(t, log, held, 2)
	wants(0, 0)
}

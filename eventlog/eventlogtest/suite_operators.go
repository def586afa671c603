package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

func testControls(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	want := eventlog.Control{
		Endpoint: "a", Disabled: "http_410", Fingerprint: "f", Since: at, By: "ada", Comment: "why",
		Until: at.Add(time.Hour),
	}
	for _, c := range []eventlog.Control{{Endpoint: "a", Disabled: "paused", Since: at}, want} {
		if err := log.SaveControl(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	want.Since = at.Add(time.Microsecond) // later, whatever the clock says
	got, err := log.Controls(ctx)
	if diff := cmp.Diff(map[string]eventlog.Control{"a": want}, got); diff != "" || err != nil {
		t.Errorf("controls, %v (-want +got):\n%s", err, diff)
	}
	for n := range 3 {
		gap := eventlog.Gap{
			Endpoint: "a", From: int64(n)*10 + 1, To: int64(n)*10 + 5,
			At: at.Add(time.Duration(n) * time.Second),
		}
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
	last := Sample(99, 1) // with its own id
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
		t.Errorf("found %v, %v; want none", found, err)
	}
	following, err := finder.Following(ctx, []int64{49, 0, 7, 8, 51, 7, 1000})
	if diff := cmp.Diff([]tidings.Event{all[0], all[7], all[8], all[49]}, following); diff != "" || err != nil {
		t.Errorf("events after positions, %v (-want +got):\n%s", err, diff)
	}
	if none, err := finder.Following(ctx, nil); len(none) > 0 || err != nil {
		t.Errorf("events after no positions: %v, %v", none, err)
	}
	for hours, want := range map[int]int64{-100: 1, 0: 1, 10: 11, 49: 50} {
		got, err := log.SequenceAt(ctx, begin.Add(time.Duration(hours)*time.Hour))
		if err != nil || got != want {
			t.Errorf("events of hour %d begin at %d, %v; want %d", hours, got, err, want)
		}
	}
}

func testSearch(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	finder := part[eventlog.Finder](t, home)
	begin := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	events := make([]tidings.Event, 20)
	for i := range events {
		events[i] = Sample(i%4, i)
		events[i].Time = begin.Add(time.Duration(i) * time.Hour)
		if i%2 == 1 {
			events[i].Type, events[i].Action = "context", tidings.Deleted
		}
	}
	home.Append(t, events...)
	advance(t, log)
	patterns := func(texts ...string) (all []tidings.Pattern) {
		for _, text := range texts {
			p, err := tidings.ParsePattern(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		return all
	}
	for name, tt := range map[string]struct {
		filter eventlog.EventFilter
		limit  int
		want   []int64
	}{
		"positions": {eventlog.EventFilter{From: 3, To: 5}, 9, []int64{5, 4, 3}},
		"newest":    {eventlog.EventFilter{From: 1, To: 20}, 2, []int64{20, 19}},
		"resource":  {eventlog.EventFilter{From: 1, To: 19, Resource: events[2].Resource()}, 9, []int64{19, 15, 11, 7, 3}},
		"id":        {eventlog.EventFilter{From: 4, To: 20, Resource: events[1].ResourceID}, 2, []int64{18, 14}},
		"wrong type": {
			eventlog.EventFilter{From: 1, To: 20, Resource: "context/" + events[2].ResourceID}, 9, nil,
		},
		"patterns": {
			eventlog.EventFilter{From: 1, To: 6, Patterns: patterns("user.*", "*.deleted")}, 9, []int64{6, 4, 2},
		},
		"both patterns": {
			eventlog.EventFilter{From: 1, To: 6, Patterns: patterns("context.*"), Wanted: patterns("user.*", "*.deleted")},
			9,
			[]int64{6, 4, 2},
		},
		"either, not both": {
			eventlog.EventFilter{From: 1, To: 6, Patterns: patterns("provider.*"), Wanted: patterns("*.deleted")}, 9, nil,
		},
		"every pattern": {eventlog.EventFilter{From: 1, To: 2, Patterns: patterns("user.*", "*")}, 9, []int64{2, 1}},
		"times": {
			eventlog.EventFilter{
				From: 1, To: 20, Since: begin.Add(5 * time.Hour), Until: begin.Add(9 * time.Hour),
				Patterns: patterns("provider.*"), Resource: events[2].ResourceID,
			}, 9, []int64{7},
		},
	} {
		found, err := finder.Search(ctx, tt.filter, tt.limit)
		var got []int64
		for _, e := range found {
			got = append(got, e.Sequence)
			if !tt.filter.Matches(e) {
				t.Errorf("%s: found %+v", name, e)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s, %v (-want +got):\n%s", name, err, diff)
		}
		// All of them, over two ranges that leave out position 5.
		if found, err = finder.Search(ctx, tt.filter, 100); err != nil {
			t.Fatal(err)
		}
		var want eventlog.Count
		for _, e := range found {
			if e.Sequence != 5 {
				want.Events, want.First, want.Last = want.Events+1, e.Sequence, max(want.Last, e.Sequence)
			}
		}
		n, err := finder.Count(ctx, tt.filter, []eventlog.Range{
			{From: 6, To: tt.filter.To},
			{From: tt.filter.From, To: min(4, tt.filter.To)},
		})
		if n != want || err != nil {
			t.Errorf("%s: counted %+v, %v; want %+v", name, n, err, want)
		}
	}
}

func testReplays(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	keeper := part[eventlog.ReplayKeeper](t, home)
	held := hold(t, log, "a")
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	one := eventlog.Replay{
		ID: "1", Endpoint: "a", From: 1, To: 9, Since: at, Patterns: []string{"provider.*", "*.deleted"},
		Resource: "provider/x",
		State:    eventlog.ReplayRunning, Created: at, Updated: at, CreatedBy: "somebody",
	}
	two := eventlog.Replay{
		ID: "2", Endpoint: "a", Dead: true, State: eventlog.ReplayRunning,
		Created: at.Add(time.Second), Updated: at,
	}
	for _, r := range []eventlog.Replay{one, two} {
		if err := keeper.AddReplay(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range [][]string{{""}, {"provider.*", "provider"}, {"provider.*,*.deleted"}, {"a.b.c"}} {
		if err := keeper.AddReplay(ctx,
			eventlog.Replay{ID: "3", Endpoint: "a", Patterns: bad, State: eventlog.ReplayRunning}); err == nil {
			t.Errorf("a replay of the patterns %q was added", bad)
		}
	}
	got, err := log.Replays(ctx, true, 10)
	if diff := cmp.Diff([]eventlog.Replay{one, two}, got); diff != "" || err != nil {
		t.Errorf("running, %v (-want +got):\n%s", err, diff)
	}
	one.Position, one.Delivered, one.Failed, one.Expired, one.Reason, one.State = 9, 4, 1, 3,
		"http_500", eventlog.ReplayDone
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

// The number of unfinished replays is limited per endpoint.
func testManyReplays(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	keeper := part[eventlog.ReplayKeeper](t, home)
	prepare(t, log, eventlog.Setup{Partitions: []eventlog.Partition{whole("a"), whole("b")}})
	at := time.Now()
	add := func(endpoint string, n int) error {
		return keeper.AddReplay(ctx, eventlog.Replay{
			ID: fmt.Sprint(endpoint, n), Endpoint: endpoint, State: eventlog.ReplayRunning,
			Created: at.Add(time.Duration(n) * time.Second),
		})
	}
	for n := range eventlog.MaxReplays - 5 {
		if err := add("a", n); err != nil {
			t.Fatal(err)
		}
	}
	errs := make(chan error)
	for n := range 20 { // at the same time
		go func() { errs <- add("a", 100+n) }()
	}
	refused := 0
	for range 20 {
		if err := <-errs; errors.Is(err, eventlog.ErrManyReplays) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused != 15 {
		t.Errorf("%d of 20 were refused, want 15", refused)
	}
	if err := add("b", 1000); err != nil {
		t.Errorf("another endpoint: %v", err)
	}
	var ids []string
	got, err := log.Replays(ctx, true, 2)
	for _, r := range got {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"a0", "a1", "b1000"}, ids); diff != "" || err != nil {
		t.Errorf("the oldest of each, %v (-want +got):\n%s", err, diff)
	}
	if canceled, err := keeper.CancelReplay(ctx, "a0"); !canceled || err != nil {
		t.Fatal(canceled, err)
	}
	if err := add("a", 200); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

func testHistory(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	reader := part[interface {
		ReadHistory(ctx context.Context, f eventlog.HistoryFilter) ([]eventlog.Record, int64, error)
	}](t, home)
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	const uuid = "0190b0a0-1c2d-7e3f-8a4b-000000000001"
	ids := []string{"", uuid, "plain-2", `a "third"`}
	record := func(endpoint string, sequence int64, outcome string) eventlog.Record {
		return eventlog.Record{
			Endpoint: endpoint, At: at.Add(time.Duration(sequence) * time.Minute), Sequence: sequence,
			EventID: ids[sequence], Event: "provider.created",
			Resource: "provider/x", Outcome: outcome, Attempt: 2, Replay: true, Reason: "http_500", Status: 500,
			Address:  "127.0.0.1:80",
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
		"position": {eventlog.HistoryFilter{Sequence: 3}, []int64{1, 3}},
		"uuid":     {eventlog.HistoryFilter{Sequence: 1, EventID: uuid}, []int64{1, 3}},
		"plain id": {eventlog.HistoryFilter{Sequence: 2, EventID: "plain-2"}, []int64{2}},
		"quotes":   {eventlog.HistoryFilter{Sequence: 3, EventID: ids[3]}, []int64{1, 3}},
		"half":     {eventlog.HistoryFilter{EventID: "plain"}, nil},
		"between":  {eventlog.HistoryFilter{Endpoint: "a", Sequence: 2, EventID: "plain-2"}, nil},
		"resource": {eventlog.HistoryFilter{Resource: "provider/x"}, []int64{2, 1, 3}},
		"id":       {eventlog.HistoryFilter{Resource: "x"}, []int64{2, 1, 3}},
		"another":  {eventlog.HistoryFilter{Resource: "provider/vider"}, nil},
		"after":    {eventlog.HistoryFilter{After: 1}, []int64{2}},
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
		t.Errorf("%d records, %v; want none that old", len(records), err)
	}
}

// Blocks are found by the positions of their events, however many they span.
func testHistoryPositions(t *testing.T, home Home) {
	log, ctx := home.Log, t.Context()
	var blocks []*eventlog.HistoryBlock
	for _, positions := range [][]int64{ // in the order of ids
		{5}, {1, 10_000}, {1, 10_001}, {100, 5_000, 20_000}, {9_999, 10_000}, {30_000},
	} {
		b := &eventlog.HistoryBlock{Endpoint: "a"}
		for _, p := range positions {
			b.Add(eventlog.Record{
				Endpoint: "a", At: time.Unix(p, 0), Sequence: p, EventID: fmt.Sprint("evt", p),
				Event: "provider.created", Resource: "provider/x", Outcome: "delivered",
			})
		}
		blocks = append(blocks, b)
	}
	if err := log.AppendHistory(ctx, blocks); err != nil {
		t.Fatal(err)
	}
	for sequence, want := range map[int64][]int64{
		1:      {1, 10_001, 1, 10_000},
		5:      {5},
		5_000:  {100, 5_000, 20_000},
		10_000: {9_999, 10_000, 1, 10_000},
		10_001: {1, 10_001},
		20_000: {100, 5_000, 20_000},
		20_001: nil,
		30_000: {30_000},
	} {
		records, _, err := part[eventlog.Archive](t, home).ReadHistory(ctx, eventlog.HistoryFilter{
			Endpoint: "a", Sequence: sequence, EventID: fmt.Sprint("evt", sequence), Limit: 10,
		})
		var got []int64
		for _, r := range records {
			got = append(got, r.Sequence)
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("blocks around %d, %v (-want +got):\n%s", sequence, err, diff)
		}
	}
	for r, want := range map[eventlog.Range][]int64{
		{From: 1, To: 9_998}:         {5, 1, 1, 100, 5_000},
		{From: 10_000, To: 10_000}:   {10_000, 10_000},
		{From: 10_001, To: 40_000}:   {10_001, 20_000, 30_000},
		{From: 20_001, To: 29_999}:   nil,
		{From: 30_000, To: 1 << 40}:  {30_000},
		{From: 19_999, To: 20_000}:   {20_000},
		{From: 5_000, To: 5_000}:     {5_000},
		{From: 40_000, To: 41_000}:   nil,
		{From: 9_999, To: 9_999 + 1}: {10_000, 9_999, 10_000},
	} {
		var got []int64
		err := log.Settled(ctx, "a", r.From, r.To, func(sequence int64) { got = append(got, sequence) })
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("settled in %v, %v (-want +got):\n%s", r, err, diff)
		}
	}
}

package eventlogtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/eventlog"
)

func testActions(t *testing.T, home Home) {
	journal, ctx := part[eventlog.Journal](t, home), t.Context()
	at := time.Now().UTC().Truncate(time.Microsecond)
	var want []eventlog.Action
	for n := range 5 {
		a := eventlog.Action{
			At: at.Add(time.Duration(n)), By: "ada", Action: "pause", Endpoint: fmt.Sprint("e", n%2),
			Subject: "until then", Comment: "why",
		}
		if n == 0 {
			a.At = at.Add(-eventlog.ActionLife - time.Hour)
		}
		a.At = a.At.Truncate(time.Microsecond)
		if err := journal.AddAction(ctx, a); err != nil {
			t.Fatal(err)
		}
		want = append([]eventlog.Action{a}, want...)
	}
	got := actions(ctx, t, journal, eventlog.ActionFilter{Limit: 10})
	for i := range got {
		want[i].ID = got[i].ID
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("actions (-want +got):\n%s", diff)
	}
	page := eventlog.ActionFilter{Endpoint: "e1", Before: got[1].ID, Limit: 10}
	if diff := cmp.Diff(want[3:4], actions(ctx, t, journal, page)); diff != "" {
		t.Errorf("older actions of e1 (-want +got):\n%s", diff)
	}
	if err := journal.ExpireJournal(ctx, at); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[:4], actions(ctx, t, journal, eventlog.ActionFilter{Limit: 10})); diff != "" {
		t.Errorf("actions kept (-want +got):\n%s", diff)
	}
}

func actions(
	ctx context.Context, t *testing.T, journal eventlog.Journal, f eventlog.ActionFilter,
) []eventlog.Action {
	t.Helper()
	found, err := journal.Actions(ctx, f)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func testStates(t *testing.T, home Home) {
	journal, ctx := part[eventlog.Journal](t, home), t.Context()
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	var all []eventlog.StateChange
	for n := range 6 {
		all = append(all, eventlog.StateChange{
			Endpoint: "a", Index: n % 2, At: at.Add(time.Duration(n) * time.Minute), State: "down", Reason: "connect",
			Detail: "refused", By: "ada", Comment: fmt.Sprint(n),
		})
	}
	other := eventlog.StateChange{Endpoint: "b", At: at, State: "healthy"}
	replaced := all[5]
	replaced.State = "probing"
	for _, changes := range [][]eventlog.StateChange{{replaced, other}, all} {
		if err := home.Log.AddStates(ctx, changes); err != nil {
			t.Fatal(err)
		}
	}
	check := func(since time.Time, limit int, want []eventlog.StateChange) {
		t.Helper()
		got, err := journal.States(ctx, "a", since, limit)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("since %s, %v (-want +got):\n%s", since, err, diff)
		}
	}
	check(at.Add(-time.Hour), 10, all)
	check(at.Add(3*time.Minute), 10, all[2:])
	check(at.Add(210*time.Second), 10, all[2:])
	check(at.Add(-time.Hour), 2, all[2:])
	if err := journal.ExpireJournal(ctx, at.Add(3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	check(at.Add(-time.Hour), 10, all[2:])
	if left, err := journal.States(ctx, "b", at.Add(time.Hour), 10); err != nil || len(left) != 1 {
		t.Errorf("the state of another endpoint: %v, %v", left, err)
	}
}

func testSeries(t *testing.T, home Home) {
	journal, ctx := part[eventlog.Journal](t, home), t.Context()
	now := time.Now().UTC().Truncate(10 * time.Minute)
	sample := func(endpoint string, minutes int, delivered, waiting int64) eventlog.Sample {
		s := eventlog.Sample{
			Endpoint: endpoint, At: now.Add(time.Duration(minutes) * time.Minute), Delivered: delivered, Failed: 1,
			Waiting: waiting, Oldest: time.Duration(waiting) * time.Second,
		}
		for range delivered {
			s.Answer.Observe(20 * time.Millisecond)
			s.Delay.Observe(5 * time.Hour)
		}
		return s
	}
	for range 2 { // the second time, they are added up
		err := home.Log.AddSamples(ctx, []eventlog.Sample{
			sample("a", 1, 2, 3), sample("a", 2, 4, 5), sample("b", 1, 9, 9), sample("a", -20, 1, 0),
			sample("a", -8*24*60, 7, 7),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(since time.Time, step time.Duration) []eventlog.Sample {
		t.Helper()
		found, err := journal.Series(ctx, []string{"a"}, since, step)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	want := sample("a", 0, 12, 10)
	want.Failed, want.Oldest = 4, 5*time.Second
	got := read(now, 10*time.Minute)
	if diff := cmp.Diff([]eventlog.Sample{want}, got); diff != "" {
		t.Errorf("ten minutes (-want +got):\n%s", diff)
	}
	if n := len(read(now, time.Minute)); n != 2 {
		t.Errorf("%d minutes, want 2", n)
	}
	if p := got[0].Answer.Quantile(0.5); p < 10*time.Millisecond || p > 30*time.Millisecond {
		t.Errorf("the median is %s", p)
	}
	if n := len(read(now.Add(-9*24*time.Hour), time.Minute)); n != 4 {
		t.Errorf("%d samples, want 4", n)
	}
	if err := journal.ExpireJournal(ctx, now); err != nil {
		t.Fatal(err)
	}
	if n := len(read(now.Add(-9*24*time.Hour), time.Minute)); n != 3 {
		t.Errorf("%d samples are kept, want 3", n)
	}
}

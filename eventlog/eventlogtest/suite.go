package eventlogtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Home is a log under test and the way to append to it.
type Home struct {
	Log eventlog.Log
	// Append commits events in a transaction of their own.
	Append func(t *testing.T, events ...tidings.Event)
	// Rollback appends events in a transaction that is rolled back; nil where
	// the log has no transactions.
	Rollback func(t *testing.T, events ...tidings.Event)
}

// Run checks that a log keeps the promises of [eventlog.Log]. The function
// returns a new, empty log at each call.
func Run(t *testing.T, open func(t *testing.T) Home) {
	t.Run("events come back numbered in order without gaps", func(t *testing.T) { testRead(t, open(t)) })
	t.Run("a rollback leaves neither event nor gap", func(t *testing.T) { testRollback(t, open(t)) })
	t.Run("the reader is woken", func(t *testing.T) { testWake(t, open(t)) })
	t.Run("a cursor never moves back", func(t *testing.T) { testCursors(t, open(t)) })
	t.Run("parked events keep the order of their resource", func(t *testing.T) { testRetries(t, open(t)) })
	t.Run("many rows are written at once", func(t *testing.T) { testManyRows(t, open(t)) })
}

// Sample returns an event of resource n; successive versions of it differ.
func Sample(n, version int) tidings.Event {
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
	return tidings.Event{
		ID:   fmt.Sprintf("evt-%d-%d", n, version),
		Type: tidings.Provider, Action: tidings.Updated,
		ResourceID: id, ResourceURL: "/api/v1/providers/" + id, UserID: "somebody",
		Time:            time.Date(2026, 3, 26, 12, 0, version, 123456000, time.UTC),
		ResourceVersion: int64(version),
	}
}

func testRead(t *testing.T, home Home) {
	ctx := t.Context()
	if head := advance(t, home.Log); head != 0 {
		t.Errorf("head of an empty log = %d, want 0", head)
	}
	if got := read(t, home.Log, 0, 10); len(got) != 0 {
		t.Errorf("an empty log has %d events", len(got))
	}
	want := []tidings.Event{Sample(1, 1), Sample(2, 1), Sample(1, 2)}
	want[1].UserID = ""
	home.Append(t, want[0], want[1])
	home.Append(t, want[2])
	if head := advance(t, home.Log); head != 3 {
		t.Errorf("head = %d, want 3", head)
	}
	for i := range want {
		want[i].Sequence = int64(i) + 1
	}
	if diff := cmp.Diff(want, read(t, home.Log, 0, 10)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[1:2], read(t, home.Log, 1, 1)); diff != "" {
		t.Errorf("one event after 1 (-want +got):\n%s", diff)
	}
	if got := read(t, home.Log, 3, 10); len(got) != 0 {
		t.Errorf("%d events after the head", len(got))
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := home.Log.Read(canceled, 0, 1); err == nil && home.Rollback != nil {
		t.Error("reading with a canceled context gave no error")
	}
}

func testRollback(t *testing.T, home Home) {
	if home.Rollback == nil {
		return
	}
	home.Append(t, Sample(1, 1))
	home.Rollback(t, Sample(2, 1), Sample(3, 1))
	home.Append(t, Sample(4, 1))
	advance(t, home.Log)
	var got []string
	for _, e := range read(t, home.Log, 0, 10) {
		got = append(got, fmt.Sprint(e.Sequence, " ", e.ID))
	}
	if diff := cmp.Diff([]string{"1 evt-1-1", "2 evt-4-1"}, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func testWake(t *testing.T, home Home) {
	select {
	case <-home.Log.Woken():
		t.Error("woken before any event")
	default:
	}
	home.Log.Wake()
	home.Log.Wake()
	<-home.Log.Woken()
	select {
	case <-home.Log.Woken():
		t.Error("two wakes before anybody looked must yield once")
	default:
	}
}

func testCursors(t *testing.T, home Home) {
	ctx := t.Context()
	save := func(cursors ...eventlog.Cursor) {
		t.Helper()
		if err := home.Log.SaveCursors(ctx, cursors); err != nil {
			t.Fatal(err)
		}
	}
	save()
	save(eventlog.Cursor{Endpoint: "a", Sequence: 5}, eventlog.Cursor{Endpoint: "b", Sequence: 7, Fingerprint: "f"})
	save(eventlog.Cursor{Endpoint: "a", Sequence: 3, Disabled: "http_410"})
	got, err := home.Log.Cursors(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]eventlog.Cursor{
		"a": {Endpoint: "a", Sequence: 5, Disabled: "http_410"},
		"b": {Endpoint: "b", Sequence: 7, Fingerprint: "f"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
}

func testRetries(t *testing.T, home Home) {
	ctx := t.Context()
	log := home.Log
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	event := func(sequence int64, resource int) tidings.Event {
		e := Sample(resource, int(sequence))
		e.Sequence = sequence
		return e
	}
	failed := eventlog.Retry{Endpoint: "a", Event: event(1, 1), Attempts: 1, First: at, Next: at.Add(time.Second), Reason: "http_500"}
	waiting := eventlog.Retry{Endpoint: "a", Event: event(3, 1)}
	other := eventlog.Retry{Endpoint: "a", Event: event(2, 2), Attempts: 2, First: at, Next: at, Reason: "timeout"}
	foreign := eventlog.Retry{Endpoint: "b", Event: event(1, 1), Attempts: 1, First: at, Next: at, Reason: "dns"}
	park(t, log, failed, waiting, other, foreign)
	park(t, log, eventlog.Retry{Endpoint: "a", Event: event(1, 1)}) // a waiting row replaces nothing

	lanes, err := log.ParkedLanes(ctx, "a", 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eventlog.Retry{failed, other}, lanes); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
	expectNext(t, log, waiting.Event, failed)

	failed.Attempts, failed.Reason = 2, "http_503"
	park(t, log, failed)
	expectNext(t, log, waiting.Event, failed)

	failed.Dead = at.Add(time.Hour)
	park(t, log, failed)
	expectNext(t, log, waiting.Event, waiting)
	dead, err := log.DeadLetters(ctx, "a", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eventlog.Retry{failed}, dead); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}

	if err := log.Unpark(ctx, "a", waiting.Event.Sequence); err != nil {
		t.Fatal(err)
	}
	if r, ok, err := log.NextParked(ctx, "a", waiting.Event); ok || err != nil {
		t.Errorf("next parked = %v, %v, %v; want none", r, ok, err)
	}
}

func testManyRows(t *testing.T, home Home) {
	const n = 1500 // more than one statement holds
	events := make([]tidings.Event, n)
	retries := make([]eventlog.Retry, n)
	cursors := make([]eventlog.Cursor, n)
	for i := range n {
		events[i] = Sample(i, 1)
		retries[i] = eventlog.Retry{Endpoint: "a", Event: Sample(i, 1), Attempts: 1, Next: time.Unix(1, 0)}
		retries[i].Event.Sequence = int64(i) + 1
		cursors[i] = eventlog.Cursor{Endpoint: fmt.Sprint("e", i), Sequence: 1}
	}
	home.Append(t, events...)
	if head := advance(t, home.Log); head != n {
		t.Errorf("head = %d, want %d", head, n)
	}
	park(t, home.Log, retries...)
	if err := home.Log.SaveCursors(t.Context(), cursors); err != nil {
		t.Fatal(err)
	}
	lanes, err := home.Log.ParkedLanes(t.Context(), "a", n+1)
	if err != nil || len(lanes) != n {
		t.Errorf("%d lanes, %v; want %d", len(lanes), err, n)
	}
	saved, err := home.Log.Cursors(t.Context())
	if err != nil || len(saved) != n {
		t.Errorf("%d cursors, %v; want %d", len(saved), err, n)
	}
}

func expectNext(t *testing.T, log eventlog.Log, e tidings.Event, want eventlog.Retry) {
	t.Helper()
	got, ok, err := log.NextParked(t.Context(), "a", e)
	if err != nil || !ok {
		t.Fatalf("next parked: %v, %v", ok, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("next parked (-want +got):\n%s", diff)
	}
}

func advance(t *testing.T, log eventlog.Log) int64 {
	t.Helper()
	head, err := log.Advance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func read(t *testing.T, log eventlog.Log, after int64, limit int) []tidings.Event {
	t.Helper()
	events, err := log.Read(t.Context(), after, limit)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func park(t *testing.T, log eventlog.Log, retries ...eventlog.Retry) {
	t.Helper()
	if err := log.Park(t.Context(), retries); err != nil {
		t.Fatal(err)
	}
}

package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Home is a log under test with the operations that the suite needs.
type Home struct {
	// Log may also implement [eventlog.Archive], or parts of it.
	Log eventlog.Log
	// Append commits events in a transaction of their own, and gives them to
	// [eventlog.Waker.Committed].
	Append func(t *testing.T, events ...tidings.Event)
	// Rollback appends events in a transaction that is rolled back; nil if the log
	// has no transactions.
	Rollback func(t *testing.T, events ...tidings.Event)
	// Expire removes all events.
	Expire func(t *testing.T)
	// Cut removes the events after a position, as if the database had lost them.
	Cut func(t *testing.T, after int64)
	// Backup copies the tables. restore deletes their rows and loads the copies, without
	// a restart of the database.
	Backup func(t *testing.T) (restore func(t *testing.T))
	// Restart restarts the database, and returns the log as a newly started process
	// sees it.
	Restart func(t *testing.T) eventlog.Log
	// Start returns the log as a newly started process sees it.
	Start func(t *testing.T) eventlog.Log
}

// Run checks that a log fulfills the contract of [eventlog.Log]. open returns a
// new, empty log at each call.
func Run(t *testing.T, open func(t *testing.T) Home) {
	t.Run("events come back numbered in order without gaps", func(t *testing.T) { testRead(t, open(t)) })
	t.Run("a rollback leaves neither event nor gap", func(t *testing.T) { testRollback(t, open(t)) })
	t.Run("committed events are given as they are read", func(t *testing.T) { testCommitted(t, open(t)) })
	t.Run("the reader is woken", func(t *testing.T) { testWake(t, open(t)) })
	t.Run("a cursor never moves back", func(t *testing.T) { testCursors(t, open(t)) })
	t.Run("a lease has one owner, and a lost one writes nothing", func(t *testing.T) { testLeases(t, open(t)) })
	t.Run("a replica that was declared dead has lost its leases", func(t *testing.T) { testDeadReplica(t, open(t)) })
	t.Run("replicas say what they are", func(t *testing.T) { testReplicaDetails(t, open(t)) })
	t.Run("a clock that was set back keeps no dead replica alive", func(t *testing.T) { testLongLife(t, open(t)) })
	t.Run("new partitions begin at the lowest cursor of the old ones", func(t *testing.T) { testPartitions(t, open(t)) })
	t.Run("controls of an endpoint are kept", func(t *testing.T) { testControls(t, open(t)) })
	t.Run("expired events that a cursor had not reached are recorded", func(t *testing.T) { testExpiredGaps(t, open(t)) })
	t.Run("expired events are gone, and the start of the log is known", func(t *testing.T) { testExpiry(t, open(t)) })
	t.Run("a removed endpoint leaves nothing", func(t *testing.T) { testRemoved(t, open(t)) })
	t.Run("a setup for other endpoints changes nothing", func(t *testing.T) { testOutdated(t, open(t)) })
	t.Run("an endpoint is renamed", func(t *testing.T) { testRename(t, open(t)) })
	t.Run("dead letters expire, are discarded and counted", func(t *testing.T) { testDeadLetters(t, open(t)) })
	t.Run("parked events are listed, retried and discarded", func(t *testing.T) { testParkedKeeper(t, open(t)) })
	t.Run("a log that went back begins an epoch", func(t *testing.T) { testWentBack(t, open(t)) })
	t.Run("a log that went back is noticed at a start", func(t *testing.T) { testStartAfterCut(t, open(t)) })
	t.Run("a backup was loaded", func(t *testing.T) {
		for _, began := range []bool{false, true} {
			for _, alone := range []bool{false, true} {
				t.Run(fmt.Sprintf("an epoch began since=%t, one process=%t", began, alone), func(t *testing.T) {
					testLoaded(t, open(t), began, alone)
				})
			}
		}
	})
	t.Run("a restart that lost nothing changes nothing", func(t *testing.T) { testRestart(t, open(t)) })
	t.Run("positions that were lost are used again", func(t *testing.T) { testLostAndUsedAgain(t, open(t)) })
	t.Run("events are found by id and by time", func(t *testing.T) { testFind(t, open(t)) })
	t.Run("events are found by resource, type and time", func(t *testing.T) { testSearch(t, open(t)) })
	t.Run("replays are kept until they end", func(t *testing.T) { testReplays(t, open(t)) })
	t.Run("at most a hundred replays of an endpoint wait", func(t *testing.T) { testManyReplays(t, open(t)) })
	t.Run("history comes back, newest block first", func(t *testing.T) { testHistory(t, open(t)) })
	t.Run("history is found by positions", func(t *testing.T) { testHistoryPositions(t, open(t)) })
	t.Run("parked events keep the order of their resource", func(t *testing.T) { testRetries(t, open(t)) })
	t.Run("parked events are found when they are due", func(t *testing.T) { testDue(t, open(t)) })
	t.Run("actions of operators are kept", func(t *testing.T) { testActions(t, open(t)) })
	t.Run("sessions are kept until they end", func(t *testing.T) { testSessions(t, open(t)) })
	t.Run("changes of states are kept", func(t *testing.T) { testStates(t, open(t)) })
	t.Run("samples are added up", func(t *testing.T) { testSeries(t, open(t)) })
	t.Run("changes of parked events have one owner", func(t *testing.T) { testParkedChanges(t, open(t)) })
	t.Run("many rows are written at once", func(t *testing.T) { testManyRows(t, open(t)) })
}

// part returns the log as a part of [eventlog.Home], and skips the test if the log
// does not implement it, like the in-memory one. That the SQL logs implement all
// parts is checked at compile time.
func part[T any](t *testing.T, home Home) T {
	t.Helper()
	p, ok := home.Log.(T)
	if !ok {
		t.Skip("the log does not implement this")
	}
	return p
}

// Sample returns an event of resource n; successive versions of it differ.
func Sample(n, version int) tidings.Event {
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
	return tidings.Event{
		ID:   fmt.Sprintf("evt-%d-%d", n, version),
		Type: "provider", Action: tidings.Updated,
		ResourceID: id, ResourceURL: "/api/v1/providers/" + id, UserID: "somebody",
		Time:            time.Date(2026, 3, 26, 12, 0, version, 123456000, time.UTC),
		ResourceVersion: int64(version), OwnerID: "owner", Trace: "00-trace",
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

func testCommitted(t *testing.T, home Home) {
	var taken []tidings.Event
	takes := true
	home.Log.OnCommitted(func(events []tidings.Event) bool {
		if takes {
			taken = append(taken, events...)
		}
		return takes
	})
	one := Sample(1, 1)
	one.Time = time.Date(2026, 3, 26, 13, 0, 0, 123456789, time.FixedZone("CET", 3600))
	home.Append(t, one, Sample(2, 1))
	advance(t, home.Log)
	if home.Rollback != nil {
		home.Rollback(t, Sample(3, 1))
	}
	many := make([]tidings.Event, 150) // several statements
	for n := range many {
		many[n] = Sample(n, 2)
	}
	home.Append(t, many...)
	advance(t, home.Log)
	if diff := cmp.Diff(read(t, home.Log, 0, 1000), taken); diff != "" {
		t.Errorf("events read and events given (-read +given):\n%s", diff)
	}
	select {
	case <-home.Log.Woken():
	default:
	}
	takes = false
	home.Append(t, Sample(3, 3))
	advance(t, home.Log)
	select {
	case <-home.Log.Woken():
	default:
		t.Error("a reader that does not take an event is not woken")
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
		t.Error("two wakes before a read must yield once")
	default:
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
	failed := eventlog.Retry{
		Endpoint: "a", Event: event(1, 1), Attempts: 1, First: at,
		Next: at.Add(time.Second), Reason: "http_500",
	}
	waiting := eventlog.Retry{Endpoint: "a", Event: event(3, 1)}
	other := eventlog.Retry{Endpoint: "a", Event: event(2, 2), Attempts: 2, First: at, Next: at, Reason: "timeout"}
	foreign := eventlog.Retry{Endpoint: "b", Event: event(1, 1), Attempts: 1, First: at, Next: at, Reason: "dns"}
	held := hold(t, log, "a")
	park(t, log, held, failed, waiting, other, foreign)
	park(t, log, held, eventlog.Retry{Endpoint: "a", Event: event(1, 1)}) // a waiting row replaces nothing

	lanes, err := log.ParkedLanes(ctx, held.Partition, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eventlog.Retry{failed, other}, lanes); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
	expectNext(t, log, waiting.Event, failed)

	failed.Attempts, failed.Reason = 2, "http_503"
	park(t, log, held, failed)
	expectNext(t, log, waiting.Event, failed)

	failed.Dead = at.Add(time.Hour)
	park(t, log, held, failed)
	expectNext(t, log, waiting.Event, waiting)
	dead, err := log.Parked(ctx, eventlog.ParkedFilter{Endpoint: "a", Dead: true, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eventlog.Retry{failed}, dead); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}

	if archive, ok := log.(eventlog.Archive); ok {
		counts, err := archive.ParkedCounts(ctx)
		want := map[string]eventlog.ParkedCount{
			"a": {Live: 2, Dead: 1, Oldest: 2, At: other.Event.Time},
			"b": {Live: 1, Oldest: 1, At: foreign.Event.Time},
		}
		if diff := cmp.Diff(want, counts); diff != "" || err != nil {
			t.Errorf("counts, %v (-want +got):\n%s", err, diff)
		}
	}
	unpark(t, log, held, waiting.Event.Sequence, 12345)
	if r, err := log.NextParked(ctx, "a", waiting.Event, 5); len(r) > 0 || err != nil {
		t.Errorf("next parked = %v, %v; want none", r, err)
	}
}

func testDue(t *testing.T, home Home) {
	ctx, log := t.Context(), home.Log
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	row := func(sequence int64, next time.Duration, reason string) eventlog.Retry {
		e := Sample(int(sequence), 1)
		e.Sequence = sequence
		return eventlog.Retry{Endpoint: "a", Event: e, Attempts: 1, First: at, Next: at.Add(next), Reason: reason}
	}
	first, second, later, dead := row(3, time.Second, "http_500"), row(1, 2*time.Second, "http_500"),
		row(2, time.Hour, "http_500"), row(4, 0, "http_500")
	other, early := row(5, 2*time.Hour, "timeout"), row(6, 2*time.Hour, "http_500")
	dead.Dead, early.First = at, at.Add(-time.Minute)
	waiting := eventlog.Retry{Endpoint: "a", Event: row(7, 0, "").Event}
	held := hold(t, log, "a")
	park(t, log, held, first, second, later, dead, other, early, waiting)

	due := func(now time.Duration, limit int, next time.Time, want ...eventlog.Retry) {
		t.Helper()
		rows, at, err := log.Due(ctx, held.Partition, at.Add(now), limit)
		if diff := cmp.Diff(want, rows); diff != "" || err != nil || !at.Equal(next) {
			t.Errorf("due after %v: next %v, want %v; %v (-want +got):\n%s", now, at, next, err, diff)
		}
	}
	due(0, 10, first.Next)
	due(time.Minute, 10, later.Next, first, second)
	due(time.Minute, 1, later.Next, first)

	n, err := log.Requeue(ctx, held, "http_500", at, at.Add(time.Minute))
	if n != 1 || err != nil {
		t.Errorf("%d are due again, %v; want 1: not what is already due or dead, or failed earlier or for another reason",
			n, err)
	}
	later.Next = at.Add(time.Minute)
	due(time.Minute, 10, other.Next, first, second, later)
	lost := held
	lost.Generation++
	if _, err := log.Requeue(ctx, lost, "timeout", at, at); !errors.Is(err, eventlog.ErrLeaseLost) {
		t.Errorf("without the lease: %v", err)
	}
	lanes, err := log.ParkedLanes(ctx, held.Partition, 5, 10)
	if diff := cmp.Diff([]eventlog.Retry{early, waiting}, lanes); diff != "" || err != nil {
		t.Errorf("lanes after position 5: %v (-want +got):\n%s", err, diff)
	}
}

func testManyRows(t *testing.T, home Home) {
	const n = 1500 // more than one statement holds
	events := make([]tidings.Event, n)
	retries := make([]eventlog.Retry, n)
	partitions := make([]eventlog.Partition, n)
	for i := range n {
		events[i] = Sample(i, 1)
		retries[i] = eventlog.Retry{Endpoint: "a", Event: Sample(i, 1), Attempts: 1, Next: time.Unix(1, 0)}
		retries[i].Event.Sequence = int64(i) + 1
		partitions[i] = eventlog.Partition{Endpoint: fmt.Sprint("e", i), Of: 1}
	}
	home.Append(t, events...)
	if head := advance(t, home.Log); head != n {
		t.Errorf("head = %d, want %d", head, n)
	}
	held := hold(t, home.Log, "a")
	park(t, home.Log, held, retries...)
	lanes, err := home.Log.ParkedLanes(t.Context(), held.Partition, 0, n+1)
	if err != nil || len(lanes) != n {
		t.Errorf("%d lanes, %v; want %d", len(lanes), err, n)
	}
	if err := home.Log.Prepare(t.Context(), eventlog.Setup{Partitions: partitions, Head: 0}); err != nil {
		t.Fatal(err)
	}
	join(t, home.Log, "many")
	cursors := acquire(t, home.Log, "many", partitions...)
	for i := range cursors {
		cursors[i].Sequence = 1
	}
	save(t, home.Log, cursors...)
	saved, err := home.Log.Cursors(t.Context())
	if err != nil || len(cursors) != n || len(saved) != n+1 {
		t.Errorf("%d cursors acquired, %d saved, %v; want %d", len(cursors), len(saved), err, n)
	}
}

func expectNext(t *testing.T, log eventlog.Log, e tidings.Event, want eventlog.Retry) {
	t.Helper()
	got, err := log.NextParked(t.Context(), "a", e, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eventlog.Retry{want}, got); diff != "" {
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

func park(t *testing.T, log eventlog.Log, held eventlog.Lease, retries ...eventlog.Retry) {
	t.Helper()
	const atOnce = 500 // more than one statement holds, and few enough for the race detector
	for some := range slices.Chunk(retries, atOnce) {
		if lost, err := log.Park(t.Context(), eventlog.Parking{Lease: held, Retries: some}); len(lost) > 0 ||
			err != nil {
			t.Fatalf("lost %v, %v", lost, err)
		}
	}
}

func unpark(t *testing.T, log eventlog.Log, held eventlog.Lease, sequences ...int64) {
	t.Helper()
	if lost, err := log.Park(t.Context(), eventlog.Parking{Lease: held, Done: sequences}); len(lost) > 0 || err != nil {
		t.Fatalf("lost %v, %v", lost, err)
	}
}

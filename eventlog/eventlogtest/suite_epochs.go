package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidings-dev/tidings/eventlog"
)

func epochs(t *testing.T, log eventlog.Log) eventlog.Epochs {
	t.Helper()
	all, err := log.Epochs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if current := all.Current().ID; current == "" || current != log.Epoch() {
		t.Errorf("the current epoch is %q; Advance found the log in %q", current, log.Epoch())
	}
	return all
}

// gapsOf returns the gaps without their times; nil if the log can't list them.
func gapsOf(t *testing.T, log eventlog.Log) []string {
	t.Helper()
	teller, ok := log.(interface {
		Gaps(ctx context.Context, limit int) ([]eventlog.Gap, error)
	})
	if !ok {
		return nil
	}
	gaps, err := teller.Gaps(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, g := range gaps {
		if g.At.IsZero() {
			t.Errorf("gap %+v has no time", g)
		}
		all = append(all, fmt.Sprintf("%s %d: %d to %d, %s", g.Endpoint, g.Index, g.From, g.To, g.Reason))
	}
	return all
}

func sampleAt(sequence int64) eventlog.Retry {
	r := eventlog.Retry{Endpoint: "a", Event: Sample(int(sequence), 1), Attempts: 1, Next: time.Unix(1, 0)}
	r.Event.Sequence = sequence
	return r
}

// testWentBack makes a database lose the end of the log although a process knows more.
func testWentBack(t *testing.T, home Home) {
	ctx, log := t.Context(), home.Log
	home.Append(t, Sample(1, 1), Sample(2, 1), Sample(3, 1), Sample(4, 1), Sample(5, 1))
	advance(t, log)
	before := epochs(t, log)
	a, b := hold(t, log, "a"), hold(t, log, "b")
	park(t, log, a, sampleAt(2), sampleAt(5))
	marks := eventlog.Marks{{Of: 1, Low: 1, High: 5, Open: []int64{2, 4}, Ahead: []int64{7}}}
	save(t, log, eventlog.Cursor{Lease: a, Sequence: 1, Marks: marks}, eventlog.Cursor{Lease: b, Sequence: 5})

	home.Cut(t, 3)
	if head := advance(t, log); head != 3 {
		t.Fatalf("head = %d, want 3", head)
	}
	after := epochs(t, log)
	if now := after.Current(); now.Base != 3 || now.Beyond != 5 || now.Began.IsZero() || len(after) != len(before)+1 {
		t.Errorf("epochs %+v after %+v", after, before)
	}
	if kept := after.Kept(before); kept != 3 {
		t.Errorf("kept up to %d, want 3", kept)
	}
	if diff := cmp.Diff(map[string]int64{"a 0/1": 1, "b 0/1": 3}, cursors(t, log)); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	saved, err := log.Cursors(ctx)
	want := eventlog.Marks{{Of: 1, Low: 1, High: 3, Open: []int64{2}}}
	if diff := cmp.Diff(want, saved[0].Marks, cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Errorf("marks, %v (-want +got):\n%s", err, diff)
	}
	rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10})
	if len(rows) != 1 || err != nil || rows[0].Event.Sequence != 2 {
		t.Errorf("parked: %+v, %v; want the one at 2", rows, err)
	}
	if diff := cmp.Diff([]string{"a 0: 4 to 5, lost", "b 0: 4 to 5, lost"}, gapsOf(t, log),
		cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	refusesEarlierEpoch(t, log, a)
	a.Epoch = log.Epoch()
	home.Append(t, Sample(6, 1), Sample(7, 1))
	if head := advance(t, log); head != 5 {
		t.Errorf("head = %d, want 5", head)
	}
	park(t, log, a, sampleAt(4))
	if lost := save(t, log, eventlog.Cursor{Lease: a, Sequence: 5}); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	if diff := cmp.Diff(map[string]int64{"a 0/1": 5, "b 0/1": 3}, cursors(t, log)); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	for _, to := range []int64{9, 8} { // by replicas that knew different heads
		if err := log.SaveLoss(ctx, 4, to, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"a 0: 4 to 9, lost", "b 0: 4 to 9, lost"}, gapsOf(t, log),
		cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// refusesEarlierEpoch checks that writes under an earlier epoch are refused: the
// writer may have read what was lost.
func refusesEarlierEpoch(t *testing.T, log eventlog.Log, stale eventlog.Lease) {
	t.Helper()
	ctx := t.Context()
	if _, err := log.SaveCursors(ctx, []eventlog.Cursor{{Lease: stale, Sequence: 5}}); !errors.Is(err,
		eventlog.ErrNewEpoch) {
		t.Errorf("saved a cursor: %v", err)
	}
	refused, err := log.Park(ctx,
		eventlog.Parking{Lease: stale, Retries: []eventlog.Retry{sampleAt(4)}, Done: []int64{2}})
	if !errors.Is(refused[stale], eventlog.ErrNewEpoch) || err != nil {
		t.Errorf("parked: %v, %v", refused, err)
	}
	if _, err := log.SaveReplay(ctx, stale, eventlog.Replay{}); !errors.Is(err, eventlog.ErrNewEpoch) {
		t.Errorf("saved a replay: %v", err)
	}
	if _, err := log.Requeue(ctx, stale, "", time.Time{}, time.Now()); !errors.Is(err, eventlog.ErrNewEpoch) {
		t.Errorf("requeued: %v", err)
	}
	rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10})
	if len(rows) != 1 || err != nil {
		t.Errorf("%d parked, %v; want what was before", len(rows), err)
	}
}

// testStartAfterCut makes a database lose the end of the log, but no cursor, while no
// process runs.
func testStartAfterCut(t *testing.T, home Home) {
	log := home.Log
	home.Append(t, Sample(1, 1), Sample(2, 1), Sample(3, 1), Sample(4, 1))
	advance(t, log)
	before := epochs(t, log)
	save(t, log, eventlog.Cursor{Lease: hold(t, log, "a"), Sequence: 4})
	home.Cut(t, 2)
	log = home.Start(t)
	if head := advance(t, log); head != 2 {
		t.Errorf("head = %d, want 2", head)
	}
	after := epochs(t, log)
	if now := after.Current(); now.Base != 2 || now.Beyond != 4 || after.Kept(before) != 2 {
		t.Errorf("epochs %+v after %+v", after, before)
	}
	if diff := cmp.Diff(map[string]int64{"a 0/1": 2}, cursors(t, log)); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
}

// testLoaded loads a backup of all tables, so that all of them agree, while a process
// runs. Unless it is alone, another one uses the lost positions again before it looks.
func testLoaded(t *testing.T, home Home, began, alone bool) {
	running := home.Log
	home.Append(t, Sample(1, 1), Sample(2, 1))
	advance(t, running)
	held := hold(t, running, "a")
	save(t, running, eventlog.Cursor{Lease: held, Sequence: 1})
	restore := home.Backup(t)
	first := running.Epoch()
	home.Append(t, Sample(3, 1))
	advance(t, running)
	if began {
		running = home.Restart(t)
		advance(t, running)
	}
	home.Append(t, Sample(4, 1))
	if head := advance(t, running); head != 4 {
		t.Fatalf("head = %d, want 4", head)
	}
	before := epochs(t, running)
	held.Epoch = running.Epoch()
	save(t, running, eventlog.Cursor{Lease: held, Sequence: 4})

	restore(t)
	if _, err := running.SaveCursors(t.Context(), []eventlog.Cursor{{Lease: held, Sequence: 4}}); err != nil &&
		!errors.Is(err, eventlog.ErrNewEpoch) {
		t.Fatal(err)
	}
	started := running
	if !alone {
		started = home.Start(t)
	}
	if head := advance(t, started); head != 2 {
		t.Errorf("head = %d, want 2", head)
	}
	home.Append(t, Sample(5, 1), Sample(6, 1), Sample(7, 1))
	for name, log := range map[string]eventlog.Log{"started": started, "running": running} {
		if head := advance(t, log); head != 5 {
			t.Errorf("%s: head = %d, want 5", name, head)
		}
		after := epochs(t, log)
		if after.Current().ID == before.Current().ID || after.Kept(before) != 2 {
			t.Errorf("%s: up to %d kept, want 2: epochs %+v after %+v", name, after.Kept(before), after, before)
		}
		if kept, known := after.KeptOf(first); kept != 2 || !known {
			t.Errorf("%s: up to %d of the first epoch kept, want 2", name, kept)
		}
	}
	if at := cursors(t, running)["a 0/1"]; at > 2 {
		t.Errorf("the cursor is at %d: the events there are others now", at)
	}
	begun := len(epochs(t, running))
	for _, log := range []eventlog.Log{started, running, started} {
		advance(t, log)
	}
	if n := len(epochs(t, running)); n != begun {
		t.Errorf("%d more epochs began", n-begun)
	}
}

func testRestart(t *testing.T, home Home) {
	log := home.Log
	home.Append(t, Sample(1, 1), Sample(2, 1))
	advance(t, log)
	before := epochs(t, log)
	held := hold(t, log, "a")
	marks := eventlog.Marks{{Of: 1, Low: 1, High: 2}}
	save(t, log, eventlog.Cursor{Lease: held, Sequence: 1, Marks: marks})
	park(t, log, held, sampleAt(2))

	log = home.Restart(t)
	if head := advance(t, log); head != 2 {
		t.Errorf("head = %d, want 2", head)
	}
	after := epochs(t, log)
	if now := after.Current(); now.Base != 2 || now.Beyond != 0 || now.ID == before.Current().ID ||
		after.Kept(before) != 2 {
		t.Errorf("epochs %+v after %+v", after, before)
	}
	for range 2 { // it is kept
		advance(t, log)
		if again := epochs(t, log); again.Current() != after.Current() {
			t.Errorf("another epoch began: %+v", again)
		}
	}
	saved, err := log.Cursors(t.Context())
	if err != nil || len(saved) != 1 || saved[0].Sequence != 1 || saved[0].Marks.String() != marks.String() ||
		!saved[0].Same(held) || saved[0].Epoch != log.Epoch() {
		t.Errorf("cursors %+v, %v", saved, err)
	}
	rows, err := log.Parked(t.Context(), eventlog.ParkedFilter{Limit: 10})
	if len(rows) != 1 || err != nil || len(gapsOf(t, log)) > 0 {
		t.Errorf("%d parked, %v; gaps %v", len(rows), err, gapsOf(t, log))
	}
}

// testLostAndUsedAgain reuses the lost positions before any process that knew more
// reads the log.
func testLostAndUsedAgain(t *testing.T, home Home) {
	ctx, log := t.Context(), home.Log
	home.Append(t, Sample(1, 1), Sample(2, 1), Sample(3, 1), Sample(4, 1))
	advance(t, log)
	before := epochs(t, log)
	held := hold(t, log, "a")
	save(t, log, eventlog.Cursor{Lease: held, Sequence: 2})
	home.Cut(t, 2)
	// A process that has not noticed continues.
	stale := func(err error) {
		if err != nil && !errors.Is(err, eventlog.ErrNewEpoch) {
			t.Fatal(err)
		}
	}
	_, err := log.SaveCursors(ctx, []eventlog.Cursor{{Lease: held, Sequence: 4}})
	stale(err)
	refused, err := log.Park(ctx, eventlog.Parking{Lease: held, Retries: []eventlog.Retry{sampleAt(3)}})
	stale(errors.Join(err, refused[held]))
	if keeper, ok := log.(interface {
		AddReplay(ctx context.Context, r eventlog.Replay) error
	}); ok {
		r := eventlog.Replay{
			ID: "r", Endpoint: "a", From: 1, To: 4, Position: 3, State: eventlog.ReplayRunning,
			Created: time.Now(), Updated: time.Now(),
		}
		if err := keeper.AddReplay(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	log = home.Restart(t)
	if head := advance(t, log); head != 2 {
		t.Fatalf("head = %d, want 2", head)
	}
	home.Append(t, Sample(5, 1), Sample(6, 1), Sample(7, 1), Sample(8, 1))
	if head := advance(t, log); head != 6 {
		t.Errorf("head = %d, want 6", head)
	}
	advance(t, home.Log)
	if after := epochs(t, home.Log); after.Kept(before) != 2 {
		t.Errorf("the other process learns from %+v that %d is kept, want 2", after, after.Kept(before))
	}
	if diff := cmp.Diff(map[string]int64{"a 0/1": 2}, cursors(t, log)); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10})
	if len(rows) != 0 || err != nil {
		t.Errorf("parked: %+v, %v", rows, err)
	}
	replays, err := log.Replays(ctx, true, 10)
	for _, r := range replays {
		if r.To != 2 || r.Position != 2 {
			t.Errorf("a replay of lost events: %+v", r)
		}
	}
	if err != nil {
		t.Error(err)
	}
	refusal := func() error {
		_, err := log.SaveCursors(ctx, []eventlog.Cursor{{Lease: held, Sequence: 4}})
		return err
	}()
	if !errors.Is(refusal, eventlog.ErrNewEpoch) {
		t.Errorf("the process that has not noticed saved its cursor: %v", refusal)
	}
	var ids []string
	for _, e := range read(t, log, 0, 10) {
		ids = append(ids, e.ID)
	}
	want := []string{
		Sample(1, 1).ID, Sample(2, 1).ID, Sample(5, 1).ID, Sample(6, 1).ID,
		Sample(7, 1).ID, Sample(8, 1).ID,
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

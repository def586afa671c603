package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// replayed is a receiver that distinguishes replayed events from others.
type replayed struct {
	receiver
	again []string // under mu
}

func (r *replayed) Send(ctx context.Context, a tidings.Attempt) tidings.Outcome {
	o := r.receiver.Send(ctx, a)
	if a.Replay && o.Verdict == tidings.Delivered {
		r.mu.Lock()
		r.again = append(r.again, a.Event.ID)
		r.mu.Unlock()
	}
	return o
}

func (r *replayed) sentAgain() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.again...)
}

func begin(t *testing.T, log *eventlogtest.Memory, r eventlog.Replay) {
	t.Helper()
	r.Endpoint, r.State = "a", eventlog.ReplayRunning
	if err := log.AddReplay(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := log.Nudge(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func replayOf(t *testing.T, log *eventlogtest.Memory, id string) eventlog.Replay {
	t.Helper()
	r, found, err := log.Replay(t.Context(), id)
	if err != nil || !found {
		t.Fatalf("replay %s: %v, %v", id, found, err)
	}
	return r
}

func TestReplayOfARangeOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &replayed{receiver: receiver{delay: 100 * time.Millisecond}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 300 {
			log.Append(event(i%7, i))
		}
		time.Sleep(time.Minute)
		begin(t, log, eventlog.Replay{ID: "1", From: 101, To: 200})
		time.Sleep(3 * time.Second)
		stop()
		before := len(r.sentAgain())
		if state := replayOf(t, log, "1").State; before == 0 || before > 90 || state != eventlog.ReplayRunning {
			t.Fatalf("%d sent again, %s; want some of 100", before, state)
		}
		stop = start(t, log, relay.Options{}, endpoint("a", r))
		time.Sleep(time.Minute)
		stop()
		got := replayOf(t, log, "1")
		if got.State != eventlog.ReplayDone || got.Position != 200 || got.Failed != 0 {
			t.Errorf("replay = %+v", got)
		}
		unique := make(map[string]bool)
		for _, id := range r.sentAgain() {
			unique[id] = true
		}
		if len(unique) != 100 || len(r.sentAgain()) > 130 {
			t.Errorf("%d events sent again, %d times; want 100, and few twice", len(unique), len(r.sentAgain()))
		}
	})
}

// Live events go first, whatever is being replayed.
func TestReplayDoesNotDelayLiveEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &replayed{receiver: receiver{delay: 100 * time.Millisecond}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 1000 {
			log.Append(event(i, 0))
		}
		time.Sleep(time.Minute)
		begin(t, log, eventlog.Replay{ID: "1", From: 1, To: 1000})
		time.Sleep(time.Second)
		for i := range 20 {
			began := time.Now()
			log.Append(event(2000+i, 0))
			for len(r.got()) == 0 || !slices.Contains(r.got(), fmt.Sprintf("evt-%d-0", 2000+i)) {
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(began); took > 120*time.Millisecond {
				t.Errorf("a live event took %v during a replay, want its own 100 ms", took)
			}
		}
		if n := len(r.sentAgain()); n == 0 || n == 1000 {
			t.Errorf("%d sent again in the meantime; the test needs some", n)
		}
		time.Sleep(10 * time.Minute)
		stop()
		if r.most > 4 {
			t.Errorf("%d requests at once, more than max_in_flight", r.most)
		}
		if n := len(r.sentAgain()); n != 1000 {
			t.Errorf("%d sent again, want 1000", n)
		}
	})
}

func TestReplayOfDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var broken atomic.Bool
		broken.Store(true)
		r := &replayed{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			if broken.Load() && a.Event.Resource() < event(7, 0).Resource() || a.Event.ID == "evt-3-0" {
				return rejected
			}
			return delivered
		}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 6 {
			log.Append(event(i, 0))
		}
		for i := range 3 { // they get through, so the endpoint is not at fault
			log.Append(event(7+i, 0))
			time.Sleep(time.Minute)
		}
		if n := len(deadLetters(t, log)); n != 6 {
			t.Fatalf("%d dead letters, want 6", n)
		}
		broken.Store(false)
		begin(t, log, eventlog.Replay{ID: "1", Dead: true, From: 1, To: 9})
		time.Sleep(10 * time.Second)
		stop()
		got := replayOf(t, log, "1")
		if got.State != eventlog.ReplayDone || got.Delivered != 5 || got.Failed != 1 || got.Reason != "http_413" {
			t.Errorf("replay = %+v", got)
		}
		dead := deadLetters(t, log)
		if len(dead) != 1 || dead[0].Event.ID != "evt-3-0" {
			t.Errorf("dead letters = %v, want the one that failed again", dead)
		}
	})
}

// A replay never sends more than was asked for: an embedding program's own types count, and
// patterns that can't be read are refused.
func TestReplayOfPatterns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &replayed{}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 10 {
			e := event(i, 0)
			if i < 3 {
				e.Type = "order"
			}
			log.Append(e)
		}
		time.Sleep(time.Second)
		begin(t, log, eventlog.Replay{ID: "1", From: 1, To: 10, Patterns: []string{"order.*"}})
		time.Sleep(time.Minute)
		if n := len(r.sentAgain()); n != 3 || replayOf(t, log, "1").State != eventlog.ReplayDone {
			t.Errorf("%d sent again, want 3", n)
		}
		stop()
		bad := eventlog.Replay{
			ID: "2", Endpoint: "a", From: 1, To: 10, Patterns: []string{"order.Made"},
			State: eventlog.ReplayRunning,
		}
		if err := log.AddReplay(t.Context(), bad); err == nil {
			t.Error("a replay whose patterns can't be read was added")
		}
	})
}

// Waiting replays run one after another, each once.
func TestReplaysRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &replayed{}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 10 {
			log.Append(event(i, 0))
		}
		time.Sleep(time.Second)
		for i := range 3 {
			begin(t, log, eventlog.Replay{ID: fmt.Sprint(i), From: 1, To: 10})
		}
		time.Sleep(time.Minute)
		stop()
		if n := len(r.sentAgain()); n != 30 {
			t.Errorf("%d sent again, want 30", n)
		}
	})
}

func TestCanceledReplayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &replayed{receiver: receiver{delay: time.Second}}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 200 {
			log.Append(event(i, 0))
		}
		time.Sleep(2 * time.Minute)
		begin(t, log, eventlog.Replay{ID: "1", From: 1, To: 200})
		begin(t, log, eventlog.Replay{ID: "2", From: 1, To: 1})
		time.Sleep(10 * time.Second)
		if canceled, err := log.CancelReplay(t.Context(), "1"); !canceled || err != nil {
			t.Fatal(canceled, err)
		}
		time.Sleep(5 * time.Second)
		before := len(r.sentAgain())
		time.Sleep(time.Minute)
		stop()
		if n := len(r.sentAgain()) - before; n > 1 || before > 60 {
			t.Errorf("%d sent again before it was canceled, %d after", before, n)
		}
		if got := replayOf(t, log, "2"); got.State != eventlog.ReplayDone {
			t.Errorf("the next replay is %s", got.State)
		}
	})
}

// A reload stops and starts what changed and nothing else: no event is lost,
// none is sent twice, and unchanged endpoints do not notice.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		stays, changes, added := &receiver{delay: 50 * time.Millisecond}, &receiver{delay: 50 * time.Millisecond},
			&receiver{}
		configured := func(name, fingerprint string, r relay.Sender) relay.Endpoint {
			e := endpoint(name, r)
			e.Fingerprint = fingerprint
			return e
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := relay.New(ctx, log,
			[]relay.Endpoint{configured("stays", "1", stays), configured("changes", "1", changes)},
			relay.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		done := background(func() error { return r.Run(ctx) })
		time.Sleep(time.Second)
		version := 0
		load := func() {
			for range 40 {
				log.Append(event(version%5, version/5))
				version++
			}
		}
		closed := 0
		for round := range 5 {
			load()
			time.Sleep(120 * time.Millisecond)
			next := configured("changes", fmt.Sprint("new", round), changes)
			next.Closed = func() { closed++ }
			unused := configured("stays", "1", stays)
			unused.Closed = func() { closed += 100 }
			endpoints := []relay.Endpoint{unused, next}
			if round == 2 {
				endpoints = append(endpoints, configured("added", "1", added))
			}
			if err := r.Update(ctx, endpoints); err != nil {
				t.Fatal(err)
			}
		}
		load()
		time.Sleep(time.Minute)
		if err := r.Update(ctx,
			[]relay.Endpoint{configured("a", "1", added), configured("a", "1", added)}); err == nil {
			t.Error("two endpoints with the same name were accepted")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for name, got := range map[string][]string{"stays": stays.got(), "changes": changes.got()} {
			if len(got) != version {
				t.Errorf("%s: %d delivered, want %d, each once", name, len(got), version)
			}
			expectOrder(t, firstDeliveries(got))
		}
		if n := len(added.got()); n < 40 || n > 80 { // until the removal is noticed
			t.Errorf("an endpoint that existed for one round got %d events, want 40 or a few more", n)
		}
		if closed != 505 {
			t.Errorf("closed = %d, want those no longer used, once each", closed)
		}
		if diff := cmp.Diff([]string{"added", "changes", "stays"}, cursorNames(t, log)); diff != "" {
			t.Errorf("cursors (-want +got):\n%s", diff)
		}
	})
}

func background(do func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return done
}

func cursorNames(t *testing.T, log *eventlogtest.Memory) (names []string) {
	t.Helper()
	cursors, err := log.Cursors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cursors {
		names = append(names, c.Endpoint)
	}
	return names
}

// A removed endpoint keeps its cursor: added back, it gets what it missed, while a
// new one starts at the end of the log.
func TestRemovedEndpointGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		back, added := &receiver{}, &receiver{}
		stop := start(t, log, relay.Options{}, endpoint("back", back))
		log.Append(event(1, 0))
		time.Sleep(time.Second)
		stop()
		stop = start(t, log, relay.Options{})
		log.Append(event(1, 1), event(1, 2))
		time.Sleep(time.Second)
		stop()
		stop = start(t, log, relay.Options{}, endpoint("back", back), endpoint("added", added))
		log.Append(event(1, 3))
		time.Sleep(time.Second)
		stop()
		if diff := cmp.Diff([]string{"evt-1-0", "evt-1-1", "evt-1-2", "evt-1-3"}, back.got()); diff != "" {
			t.Errorf("added back (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"evt-1-3"}, added.got()); diff != "" {
			t.Errorf("new (-want +got):\n%s", diff)
		}
	})
}

// A replay settles what it delivers: neither the parked event nor the dead letter is
// sent again on schedule. And it never sends an event before older ones of its
// resource that the endpoint has not received.
func TestReplaySettlesAndDoesNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var mended atomic.Bool
		r := &replayed{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			switch {
			case mended.Load():
			case strings.HasPrefix(a.Event.ID, "evt-1-"):
				return refused
			case strings.HasPrefix(a.Event.ID, "evt-2-"):
				return rejected
			}
			return delivered
		}
		e := endpoint("a", r)
		e.Retry.Delays = []time.Duration{time.Hour}
		stop := start(t, log, relay.Options{}, e)
		log.Append(event(3, 0), event(1, 0), event(1, 1), event(2, 0), event(3, 1))
		time.Sleep(time.Second)
		if n := log.RetryRows(); n != 3 {
			t.Fatalf("%d rows, want a parked event, one behind it, and a dead letter", n)
		}
		mended.Store(true)
		begin(t, log, eventlog.Replay{ID: "1", From: 3, To: 5}) // not the parked event itself
		time.Sleep(10 * time.Second)
		if got := slices.Sorted(slices.Values(r.sentAgain())); !slices.Equal(got, []string{"evt-2-0", "evt-3-1"}) {
			t.Errorf("sent again: %v, want the dead letter and what was delivered", got)
		}
		begin(t, log, eventlog.Replay{ID: "2", From: 2, To: 2})
		time.Sleep(10 * time.Second)
		if n := log.RetryRows(); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		time.Sleep(3 * time.Hour)
		stop()
		count := make(map[string]int)
		for _, id := range r.got() {
			count[id]++
		}
		want := map[string]int{"evt-3-0": 1, "evt-3-1": 2, "evt-2-0": 1, "evt-1-0": 1, "evt-1-1": 1}
		if diff := cmp.Diff(want, count); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

// A replay, which one partition runs, knows what the others have not yet delivered: it
// neither overtakes those events nor sends them twice.
func TestReplayOverPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		var mended atomic.Bool
		r := &replayed{}
		r.answer = func(a tidings.Attempt) tidings.Outcome {
			if !mended.Load() && strings.HasSuffix(a.Event.ID, "-1") { // the second of each resource
				return refused
			}
			return delivered
		}
		e := endpoint("a", r)
		// Events that an outage made due again have attempts left.
		e.Partitions, e.Retry.Delays = 4, slices.Repeat([]time.Duration{time.Hour}, 5)
		stop := start(t, log, relay.Options{}, e)
		const resources = 20
		for version := range 4 {
			for i := range resources {
				log.Append(event(i, version))
			}
			time.Sleep(time.Second)
		}
		for i := range resources { // they get through: the refused events are at fault
			log.Append(event(100+i, 0))
			time.Sleep(2 * time.Minute)
		}
		mended.Store(true)
		begin(t, log, eventlog.Replay{ID: "1", From: 2*resources + 1, To: 4 * resources}) // not the refused ones
		time.Sleep(10 * time.Second)
		if got := replayOf(t, log, "1"); got.State != eventlog.ReplayDone {
			t.Errorf("replay = %+v", got)
		}
		time.Sleep(3 * time.Hour)
		stop()
		first := make(map[string]bool)
		var order []string
		for _, id := range r.got() {
			if !first[id] {
				order = append(order, id)
			}
			first[id] = true
		}
		expectOrder(t, order)
		if again := len(r.got()) - len(order); again > len(r.sentAgain()) || len(order) != 5*resources {
			t.Errorf("%d events delivered, %d again, %d by the replay", len(order), again, len(r.sentAgain()))
		}
	})
}

// losesEnd is a log that loses the first end of a replay, as a failover can.
type losesEnd struct {
	*eventlogtest.Memory
	lost atomic.Bool
}

func (l *losesEnd) SaveReplay(
	ctx context.Context, lease eventlog.Lease, r eventlog.Replay,
) (eventlog.ReplayState, error) {
	if r.State == eventlog.ReplayDone && l.lost.CompareAndSwap(false, true) {
		return r.State, nil
	}
	return l.Memory.SaveReplay(ctx, lease, r)
}

// If the database lost the end of a replay, it ends again, without a restart.
func TestReplayWhoseEndWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &losesEnd{Memory: eventlogtest.NewMemory()}
		stop := start(t, log, relay.Options{}, endpoint("a", &replayed{}))
		log.Append(event(1, 0), event(2, 0))
		time.Sleep(time.Second)
		begin(t, log.Memory, eventlog.Replay{ID: "1", From: 1, To: 2})
		time.Sleep(time.Minute)
		stop()
		if r := replayOf(t, log.Memory, "1"); r.State != eventlog.ReplayDone || !log.lost.Load() {
			t.Errorf("replay = %+v", r)
		}
	})
}

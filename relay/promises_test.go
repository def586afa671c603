package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// crashed is a log that a killed process can no longer write to.
type crashed struct {
	*eventlogtest.Memory
	dead *bool
}

func (c crashed) SaveCursors(ctx context.Context, cursors []eventlog.Cursor) ([]eventlog.Lease, error) {
	if *c.dead {
		return nil, context.Canceled
	}
	return c.Memory.SaveCursors(ctx, cursors)
}

func (c crashed) Park(ctx context.Context, all ...eventlog.Parking) (map[eventlog.Lease]error, error) {
	if *c.dead {
		return nil, context.Canceled
	}
	return c.Memory.Park(ctx, all...)
}

func (c crashed) Release(ctx context.Context, leases []eventlog.Lease) error {
	if *c.dead {
		return context.Canceled
	}
	return c.Memory.Release(ctx, leases)
}

func (c crashed) Leave(ctx context.Context, id string) error {
	if *c.dead {
		return context.Canceled
	}
	return c.Memory.Leave(ctx, id)
}

// Whatever the receiver answers and however often the process is killed, every
// event is delivered or a dead letter, and first deliveries of one resource come
// in commit order.
func TestPromisesUnderRandomFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		outcomes := rapid.SliceOfN(rapid.SampledFrom([]tidings.Outcome{
			delivered, delivered, delivered, failed, refused, rejected, unreachable,
			{Verdict: tidings.Throttled, Reason: "http_429", RetryAfter: 3 * time.Second},
			{Verdict: tidings.Unauthorized, Reason: "http_401"},
		}), 1, 60).Draw(rt, "outcomes")
		resources := rapid.SliceOfN(rapid.IntRange(0, 4), 1, 80).Draw(rt, "resources")
		lives := rapid.SliceOfN(rapid.IntRange(0, 20), 0, 4).Draw(rt, "events per life")
		synctest.Test(t, func(t *testing.T) { checkPromises(t, rt, outcomes, resources, lives) })
	})
}

func checkPromises(t *testing.T, rt *rapid.T, outcomes []tidings.Outcome, resources, lives []int) {
	log := eventlogtest.NewMemory()
	r := &receiver{delay: time.Millisecond}
	n := 0
	r.answer = func(tidings.Attempt) tidings.Outcome {
		r.mu.Lock()
		defer r.mu.Unlock()
		n++
		if n > 3*len(outcomes) { // eventually the receiver recovers
			return delivered
		}
		return outcomes[n%len(outcomes)]
	}
	versions := make(map[int]int)
	add := func(count int) {
		for range count {
			if len(resources) == 0 {
				return
			}
			resource := resources[0]
			resources = resources[1:]
			log.Append(event(resource, versions[resource]))
			versions[resource]++
		}
	}
	for _, count := range lives {
		live(t, log, r, func() { add(count) }, true)
	}
	live(t, log, r, func() { add(len(resources)) }, false)

	seen := make(map[string]bool)
	for _, d := range deadLetters(t, log) {
		seen[d.Event.ID] = true
	}
	first := make(map[int]int) // the next version whose first delivery is due
	for _, id := range r.got() {
		var resource, version int
		fmt.Sscanf(id, "evt-%d-%d", &resource, &version)
		if !seen[id] && version < first[resource] {
			rt.Fatalf("first delivery of %s came after version %d", id, first[resource]-1)
		}
		seen[id] = true
		first[resource] = max(first[resource], version+1)
	}
	for resource, count := range versions {
		for version := range count {
			if id := fmt.Sprintf("evt-%d-%d", resource, version); !seen[id] {
				rt.Fatalf("%s was lost", id)
			}
		}
	}
}

// live runs a relay for a while; a kill ends it without a chance to write.
func live(t *testing.T, log *eventlogtest.Memory, r *receiver, load func(), kill bool) {
	ctx, cancel := context.WithCancel(t.Context())
	dead := false
	e := endpoint("a", r)
	e.Retry.Delays = []time.Duration{time.Second, 10 * time.Second}
	options := relay.Options{Logger: slog.New(slog.DiscardHandler), DrainTimeout: time.Nanosecond}
	running, err := relay.New(ctx, crashed{log, &dead}, []relay.Endpoint{e}, options)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- running.Run(ctx) }()
	load()
	if kill {
		time.Sleep(10*time.Second + 30*time.Millisecond) // the leases of the previous one end
	} else {
		time.Sleep(time.Hour)
	}
	synctest.Wait()
	dead = kill
	cancel()
	if err := <-done; err != nil && !kill {
		t.Error(err)
	}
}

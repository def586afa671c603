package relay_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// step is an event in the life of a cluster.
type step struct {
	what    string
	process int
	n       int
}

func drawSteps(rt *rapid.T) []step {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			what: rapid.SampledFrom([]string{
				"append", "append", "append", "append", "wait", "wait", "wait a minute",
				"kill", "exit", "stop", "go on", "cut", "join again",
			}).Draw(t, "what"),
			process: rapid.IntRange(0, 2).Draw(t, "process"),
			n:       rapid.IntRange(1, 30).Draw(t, "n"),
		}
	}), 1, 40).Draw(rt, "steps")
}

// The log, the cursors and the leases together: whatever happens to three
// processes that share an endpoint, and whenever, every event is delivered or
// becomes a dead letter, none is invented, and each resource's first deliveries come in
// commit order. Where updates are merged, the last one counts for the earlier ones,
// and the order of requests in flight is not checked.
func TestProtocolUnderRandomFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := drawSteps(rt)
		partitions := rapid.IntRange(1, 3).Draw(rt, "partitions")
		outcomes := rapid.SliceOfN(rapid.SampledFrom([]tidings.Outcome{
			delivered, delivered, delivered, delivered, failed, refused, unreachable,
		}), 1, 20).Draw(rt, "outcomes")
		coalesce := rapid.SampledFrom([]tidings.Coalesce{tidings.CoalesceOff, tidings.CoalesceUpdates}).Draw(rt,
			"coalesce")
		delay := time.Duration(rapid.IntRange(0, 2000).Draw(rt, "delay")) * time.Millisecond
		var broken error // reported outside of the bubble, where rapid can shrink it
		synctest.Test(t, func(t *testing.T) { broken = checkProtocol(t, steps, partitions, coalesce, outcomes, delay) })
		if broken != nil {
			rt.Fatal(broken)
		}
	})
}

func checkProtocol(
	t *testing.T, steps []step, partitions int, coalesce tidings.Coalesce,
	outcomes []tidings.Outcome, delay time.Duration,
) (broken error) {
	c := &cluster{Memory: eventlogtest.NewMemory()}
	var well atomic.Bool
	n := 0
	r := &receiver{delay: delay}
	r.answer = func(tidings.Attempt) tidings.Outcome {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n++; well.Load() {
			return delivered
		}
		return outcomes[n%len(outcomes)]
	}
	start := func() *process {
		e := endpoint("a", nil)
		e.Partitions, e.Coalesce = partitions, coalesce
		e.Retry.Delays = []time.Duration{time.Second, 10 * time.Second}
		return c.start(t, r, e)
	}
	processes := []*process{start(), start(), start()}
	versions := make(map[int]int)
	for i, s := range steps {
		p := processes[s.process]
		switch s.what {
		case "append":
			for k := range s.n {
				resource := (i + k) % 5
				c.append(event(resource, versions[resource]))
				versions[resource]++
			}
		case "wait":
			time.Sleep(time.Duration(s.n) * 50 * time.Millisecond)
		case "wait a minute":
			time.Sleep(time.Minute)
		case "kill":
			p.kill()
		case "exit":
			p.set(&p.cut, false)
			p.exit()
		case "stop":
			p.stop()
		case "go on":
			p.goOn()
			p.set(&p.cut, false)
		case "cut":
			p.set(&p.cut, true)
		case "join again":
			p.kill()
			processes[s.process] = start()
		}
	}
	well.Store(true)
	last := start() // whatever became of the others
	for _, p := range processes {
		p.goOn()
		p.set(&p.cut, false)
	}
	time.Sleep(10 * time.Minute)

	seen := make(map[string]bool)
	for _, d := range deadLetters(t, c.Memory) {
		seen[d.Event.ID] = true
	}
	first := make(map[int]int) // the next version whose first delivery is due
	for _, id := range r.got() {
		var resource, version int
		fmt.Sscanf(id, "evt-%d-%d", &resource, &version)
		if version >= versions[resource] {
			broken = fmt.Errorf("%s was never committed", id)
		}
		// A request in flight when its owner was stopped may arrive late if another
		// owner merges it.
		if !seen[id] && version < first[resource] && coalesce == tidings.CoalesceOff {
			broken = fmt.Errorf("first delivery of %s came after version %d", id, first[resource]-1)
		}
		seen[id] = true
		first[resource] = max(first[resource], version+1)
	}
	for resource, count := range versions {
		for version := range count {
			told := false
			for later := version; later < count && (later == version || coalesce != tidings.CoalesceOff); later++ {
				told = told || seen[fmt.Sprintf("evt-%d-%d", resource, later)]
			}
			if id := fmt.Sprintf("evt-%d-%d", resource, version); !told {
				broken = fmt.Errorf("%s was lost; %s", id, c.state(t))
			}
		}
	}
	for _, p := range append(processes, last) {
		p.exit()
	}
	return broken
}

// state is what the log says about the endpoint.
func (c *cluster) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	head, _ := c.Advance(t.Context())
	fmt.Fprintf(&b, "head %d", head)
	cursors, _ := c.Cursors(t.Context())
	for _, cursor := range cursors {
		fmt.Fprintf(&b, "; partition %d of %d at %d, generation %d, owner %q, %s", cursor.Index, cursor.Of,
			cursor.Sequence, cursor.Generation, cursor.Owner, cursor.Status)
	}
	replicas, _ := c.Replicas(t.Context())
	fmt.Fprintf(&b, "; replicas %v", replicas)
	rows, _ := c.Parked(t.Context(), eventlog.ParkedFilter{Limit: 10})
	for _, r := range rows {
		fmt.Fprintf(&b, "; parked %s", r.Event.ID)
	}
	return b.String()
}

// A creation that the previous owner may have sent absorbs no update: a receiver that
// has handled its id would not hear of the update.
func TestCreationSentBeforeACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		merging := endpoint("a", nil)
		merging.Coalesce = tidings.CoalesceLatest
		var mu sync.Mutex
		handled := make(map[string]bool)
		receiver := relay.SenderFunc(func(_ context.Context, a tidings.Attempt) tidings.Outcome {
			mu.Lock()
			handled[a.Event.ID] = true
			mu.Unlock()
			time.Sleep(time.Second)
			return delivered
		})
		news := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Sorted(maps.Keys(handled))
		}
		first := c.start(t, receiver, merging)
		created := event(1, 1)
		created.Action = tidings.Created
		c.Append(created)
		synctest.Wait()
		if diff := cmp.Diff([]string{"evt-1-1"}, news()); diff != "" {
			t.Fatalf("before the crash (-want +got):\n%s", diff)
		}
		first.kill() // it does not get the answer
		c.Append(event(1, 2), event(1, 3))
		merging.Sender = nil
		c.start(t, receiver, merging)
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"evt-1-1", "evt-1-3"}, news()); diff != "" {
			t.Errorf("ids that the receiver handled (-want +got):\n%s", diff)
		}
	})
}

package relay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// cluster is a log that several processes share.
type cluster struct {
	*eventlogtest.Memory
	readTime time.Duration // how long a batch takes
	staging  bool          // events wait until a process numbers them, as in PostgreSQL
	mu       sync.Mutex
	views    []*view
	staged   []tidings.Event
}

// view is the log as one process sees it, which can be killed, stopped, or cut
// off.
type view struct {
	*eventlogtest.Memory
	cluster       *cluster
	woken, nudged eventlog.Signal

	mu      sync.Mutex
	dead    bool
	cut     bool
	stopped chan struct{} // closed once it goes on; nil while it runs
}

func (c *cluster) join() *view {
	v := &view{Memory: c.Memory, cluster: c, woken: eventlog.NewSignal(), nudged: eventlog.NewSignal()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.views = append(c.views, v)
	return v
}

func (c *cluster) append(events ...tidings.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.staging {
		c.staged = append(c.staged, events...)
	} else {
		c.Append(events...)
	}
	for _, v := range c.views {
		v.woken.Give()
	}
}

var errCut = errors.New("no connection")

// pass lets an operation through, later if the process is stopped, and not at
// all if it is dead.
func (v *view) pass(ctx context.Context) error {
	for {
		v.mu.Lock()
		stopped, dead, cut := v.stopped, v.dead, v.cut
		v.mu.Unlock()
		switch {
		case dead:
			<-ctx.Done()
			return ctx.Err()
		case stopped != nil:
			<-stopped
		case cut:
			return errCut
		default:
			return nil
		}
	}
}

func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped == nil {
		v.stopped = make(chan struct{})
	}
}

func (v *view) goOn() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped != nil {
		close(v.stopped)
		v.stopped = nil
	}
}

func (v *view) set(flag *bool, value bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	*flag = value
}

func (v *view) Wake()                   { v.woken.Give() }
func (v *view) Woken() <-chan struct{}  { return v.woken.Given() }
func (v *view) Nudged() <-chan struct{} { return v.nudged.Given() }

func (v *view) Nudge(ctx context.Context) error {
	if err := v.pass(ctx); err != nil {
		return err
	}
	v.cluster.mu.Lock()
	defer v.cluster.mu.Unlock()
	for _, other := range v.cluster.views {
		other.nudged.Give()
	}
	return nil
}

func (v *view) Advance(ctx context.Context) (int64, error) {
	if err := v.pass(ctx); err != nil {
		return 0, err
	}
	v.cluster.mu.Lock()
	v.Append(v.cluster.staged...)
	v.cluster.staged = nil
	v.cluster.mu.Unlock()
	return v.Memory.Advance(ctx)
}

func (v *view) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	if err := v.pass(ctx); err != nil {
		return nil, err
	}
	time.Sleep(v.cluster.readTime)
	return v.Memory.Read(ctx, after, limit)
}

func (v *view) Join(ctx context.Context, r eventlog.Replica, ttl time.Duration) error {
	if err := v.pass(ctx); err != nil {
		return err
	}
	return v.Memory.Join(ctx, r, ttl)
}

func (v *view) KeepAlive(ctx context.Context, r eventlog.Replica, ttl time.Duration) (bool, error) {
	if err := v.pass(ctx); err != nil {
		return false, err
	}
	return v.Memory.KeepAlive(ctx, r, ttl)
}

func (v *view) Leave(ctx context.Context, id string) error {
	if err := v.pass(ctx); err != nil {
		return err
	}
	return v.Memory.Leave(ctx, id)
}

func (v *view) Acquire(ctx context.Context, owner string, want []eventlog.Partition) ([]eventlog.Cursor, error) {
	if err := v.pass(ctx); err != nil {
		return nil, err
	}
	return v.Memory.Acquire(ctx, owner, want)
}

func (v *view) Release(ctx context.Context, leases []eventlog.Lease) error {
	if err := v.pass(ctx); err != nil {
		return err
	}
	return v.Memory.Release(ctx, leases)
}

func (v *view) SaveCursors(ctx context.Context, cursors []eventlog.Cursor) ([]eventlog.Lease, error) {
	if err := v.pass(ctx); err != nil {
		return nil, err
	}
	return v.Memory.SaveCursors(ctx, cursors)
}

func (v *view) Park(ctx context.Context, all ...eventlog.Parking) (map[eventlog.Lease]error, error) {
	if err := v.pass(ctx); err != nil {
		return nil, err
	}
	return v.Memory.Park(ctx, all...)
}

func (v *view) Due(ctx context.Context, p eventlog.Partition, now time.Time, limit int) ([]eventlog.Retry, time.Time, error) {
	if err := v.pass(ctx); err != nil {
		return nil, time.Time{}, err
	}
	return v.Memory.Due(ctx, p, now, limit)
}

func (v *view) Requeue(ctx context.Context, l eventlog.Lease, reason string, since, now time.Time) (int64, error) {
	if err := v.pass(ctx); err != nil {
		return 0, err
	}
	return v.Memory.Requeue(ctx, l, reason, since, now)
}

func (v *view) NextParked(ctx context.Context, endpoint string, e tidings.Event, limit int) ([]eventlog.Retry, error) {
	if err := v.pass(ctx); err != nil {
		return nil, err
	}
	return v.Memory.NextParked(ctx, endpoint, e, limit)
}

// process is a relay on a view.
type process struct {
	*view
	relay *relay.Relay
	end   context.CancelFunc
	done  chan struct{}
}

// sender is one that is stopped, and dies, with the process. A process that is stopped
// begins no attempt; here it looks as though it had.
func (v *view) sender(to relay.Sender) relay.Sender {
	return relay.SenderFunc(func(ctx context.Context, a tidings.Attempt) tidings.Outcome {
		v.mu.Lock()
		stopped := v.stopped
		v.mu.Unlock()
		if stopped != nil {
			<-stopped
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		if v.pass(ctx) != nil && ctx.Err() != nil {
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		return to.Send(ctx, a)
	})
}

// start runs a relay as a process of its own. Endpoints without a sender get to.
func (c *cluster) start(t *testing.T, to relay.Sender, endpoints ...relay.Endpoint) *process {
	t.Helper()
	v := c.join()
	for i := range endpoints {
		if endpoints[i].Sender == nil {
			endpoints[i].Sender = to
		}
		endpoints[i].Sender = v.sender(endpoints[i].Sender)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := relay.New(ctx, v, endpoints, relay.Options{Logger: slog.New(slog.DiscardHandler), DrainTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{view: v, relay: r, end: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = r.Run(ctx) // it may be cut off
	}()
	t.Cleanup(p.exit) // one that was killed waits in vain for its last writes
	return p
}

// exit stops the process as SIGTERM does.
func (p *process) exit() {
	p.goOn()
	p.end()
	<-p.done
}

// kill ends the process as SIGKILL does: nothing it does is seen any more.
func (p *process) kill() {
	p.set(&p.dead, true)
	p.goOn()
	p.end()
}

func manyEndpoints(n int) []relay.Endpoint {
	endpoints := make([]relay.Endpoint, n)
	for i := range endpoints {
		endpoints[i] = endpoint(fmt.Sprint("e", i), nil)
	}
	return endpoints
}

func TestReplicasShareEndpointsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{}
		first := c.start(t, r, manyEndpoints(10)...)
		time.Sleep(time.Second)
		if n := first.relay.Held(); n != 10 {
			t.Fatalf("alone it holds %d of 10", n)
		}
		second := c.start(t, r, manyEndpoints(10)...)
		third := c.start(t, r, manyEndpoints(10)...)
		time.Sleep(10 * time.Second)
		for i, p := range []*process{first, second, third} {
			if n := p.relay.Held(); n < 3 || n > 4 {
				t.Errorf("replica %d of three holds %d of 10", i, n)
			}
		}
		second.exit()
		time.Sleep(100 * time.Millisecond)
		if n := first.relay.Held() + third.relay.Held(); n != 10 {
			t.Errorf("%d of 10 are held right after a replica has left", n)
		}
		third.kill()
		time.Sleep(15 * time.Second)
		if n := first.relay.Held(); n != 10 {
			t.Errorf("%d of 10 are held 15 s after a kill", n)
		}
		for i := range 5 {
			c.append(event(i, 0))
		}
		time.Sleep(time.Second)
		if n := len(r.got()); n != 50 {
			t.Errorf("%d delivered to 10 endpoints, want 50", n)
		}
		first.exit()
	})
}

// A process that is stopped for a minute can't move a cursor when it goes on,
// and delivers nothing but what was under way.
func TestStoppedProcessHasLostItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		old, now := &receiver{delay: 10 * time.Millisecond}, &receiver{}
		first := c.start(t, old, endpoint("a", nil))
		time.Sleep(time.Second)
		for i := range 100 {
			c.append(event(i%10, i/10))
		}
		time.Sleep(25 * time.Millisecond)
		first.stop()
		before := len(old.tries())
		second := c.start(t, now, endpoint("a", nil))
		time.Sleep(time.Minute)
		if n := second.relay.Held(); n != 1 {
			t.Fatal("the other replica has not taken over")
		}
		if got := cursor(t, c.Memory, "a"); got != 100 {
			t.Errorf("cursor = %d, want 100", got)
		}
		for i := range 10 {
			c.append(event(i, 10))
		}
		first.goOn()
		time.Sleep(time.Minute)
		if n := len(old.tries()) - before; n > 4 {
			t.Errorf("%d requests after it went on, more than were under way", n)
		}
		if got := cursor(t, c.Memory, "a"); got != 110 {
			t.Errorf("cursor = %d, want 110", got)
		}
		expectOrder(t, firstDeliveries(append(old.got(), now.got()...)))
		first.exit()
		second.exit()
	})
}

// A replica that can't reach the database stops delivering before others begin.
func TestCutOffReplicaStopsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{delay: 500 * time.Millisecond}
		first := c.start(t, r, endpoint("a", nil))
		time.Sleep(time.Second)
		first.set(&first.cut, true)
		for i := range 1000 {
			c.append(event(i, 0))
		}
		time.Sleep(11 * time.Second)
		before := len(r.tries())
		time.Sleep(time.Minute)
		if n := len(r.tries()) - before; n != 0 {
			t.Errorf("%d requests without a lease", n)
		}
		first.set(&first.cut, false)
		time.Sleep(10 * time.Minute)
		if n := len(firstDeliveries(r.got())); n != 1000 {
			t.Errorf("%d delivered once it is back, want 1000", n)
		}
		first.exit()
	})
}

// firstDeliveries drops what was delivered before.
func firstDeliveries(ids []string) (first []string) {
	seen := make(map[string]bool)
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			first = append(first, id)
		}
	}
	return first
}

// More partitions deliver all events, each once, and each resource's in order.
func TestPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{delay: time.Millisecond}
		whole, parts := endpoint("a", nil), endpoint("a", nil)
		parts.Partitions = 4
		first := c.start(t, r, whole)
		time.Sleep(time.Second)
		for i := range 200 {
			c.append(event(i%20, i/20))
		}
		time.Sleep(10 * time.Millisecond)
		first.exit()
		second, third := c.start(t, r, parts), c.start(t, r, parts)
		time.Sleep(15 * time.Second)
		if a, b := second.relay.Held(), third.relay.Held(); a != 2 || b != 2 {
			t.Errorf("two replicas hold %d and %d of 4 partitions", a, b)
		}
		for i := range 200 {
			c.append(event(i%20, 10+i/20))
		}
		time.Sleep(time.Minute)
		ids := r.got()
		if len(ids) != 400 {
			t.Errorf("%d delivered, want 400 and no duplicate: nobody was killed", len(ids))
		}
		expectOrder(t, firstDeliveries(ids))
		second.exit()
		third.exit()
	})
}

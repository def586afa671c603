package relay_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
)

// cluster is a log that several processes share.
type cluster struct {
	*eventlogtest.Memory
	readTime time.Duration // how long a batch takes
	staging  bool          // events wait until a process numbers them, as in PostgreSQL
	limit    int           // of requests of a process at once; 0 for the default
	mu       sync.Mutex
	views    []*view
	staged   []tidings.Event
}

// view is the log as seen by one process, which can be killed, stopped or disconnected, or
// whose connections can go silent.
type view struct {
	*eventlogtest.Memory
	cluster       *cluster
	woken, nudged eventlog.Signal

	mu      sync.Mutex
	dead    bool
	cut     bool
	silent  bool
	unheard bool // the last statement was performed, although its answer was lost
	epoch   string
	stopped chan struct{} // closed once it resumes; nil while it runs

	meanwhile func() // see beforePrepare
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

// statementTime is how long a statement waits for an answer.
const statementTime = 10 * time.Second

var errSilent = &eventlog.UnavailableError{Reason: "the database did not answer in time"}

// ask performs an operation, as far as it gets through. While the connections are silent there
// is no answer; every other one is performed nevertheless.
func ask[T any](ctx context.Context, v *view, do func() (T, error)) (answer T, err error) {
	if err := v.pass(ctx); err != nil {
		return answer, err
	}
	v.mu.Lock()
	silent := v.silent
	v.unheard = silent && !v.unheard
	performed := !silent || v.unheard
	v.mu.Unlock()
	if performed {
		answer, err = do()
	}
	if !silent {
		return answer, err
	}
	limit := time.NewTimer(statementTime)
	defer limit.Stop()
	var none T
	select {
	case <-limit.C:
		return none, errSilent
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// tell is ask for an operation that returns only an error.
func tell(ctx context.Context, v *view, do func() error) error {
	_, err := ask(ctx, v, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

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

func (v *view) Wake()                  { v.woken.Give() }
func (v *view) Woken() <-chan struct{} { return v.woken.Given() }

// OnCommitted lets a process that runs and is connected take what is appended. In
// PostgreSQL, it reads what it has numbered.
func (v *view) OnCommitted(take func([]tidings.Event) bool) {
	if v.cluster.staging {
		return
	}
	v.Memory.OnCommitted(func(events []tidings.Event) bool {
		v.mu.Lock()
		able := v.stopped == nil && !v.dead && !v.cut && !v.silent
		v.mu.Unlock()
		return able && take(events)
	})
}

func (v *view) Nudged() <-chan struct{} { return v.nudged.Given() }

func (v *view) Nudge(ctx context.Context) error {
	return tell(ctx, v, func() error {
		v.cluster.nudge()
		return nil
	})
}

func (c *cluster) nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.views {
		v.nudged.Give()
	}
}

func (v *view) Advance(ctx context.Context) (int64, error) {
	return ask(ctx, v, func() (head int64, err error) {
		v.cluster.mu.Lock()
		defer v.cluster.mu.Unlock()
		v.Append(v.cluster.staged...)
		v.cluster.staged = nil
		head, err = v.Memory.Advance(ctx)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.epoch = v.Memory.Epoch()
		return head, err
	})
}

// Epoch is the epoch as known to this process.
func (v *view) Epoch() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.epoch
}

func (v *view) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	return ask(ctx, v, func() ([]tidings.Event, error) {
		time.Sleep(v.cluster.readTime)
		return v.Memory.Read(ctx, after, limit)
	})
}

func (v *view) Epochs(ctx context.Context) (eventlog.Epochs, error) {
	return ask(ctx, v, func() (eventlog.Epochs, error) { return v.Memory.Epochs(ctx) })
}

func (v *view) Oldest(ctx context.Context) (int64, error) {
	return ask(ctx, v, func() (int64, error) { return v.Memory.Oldest(ctx) })
}

func (v *view) Join(ctx context.Context, r eventlog.Replica, ttl time.Duration) error {
	return tell(ctx, v, func() error { return v.Memory.Join(ctx, r, ttl) })
}

func (v *view) KeepAlive(ctx context.Context, r eventlog.Replica, ttl time.Duration) (bool, error) {
	return ask(ctx, v, func() (bool, error) { return v.Memory.KeepAlive(ctx, r, ttl) })
}

func (v *view) Leave(ctx context.Context, id string) error {
	return tell(ctx, v, func() error { return v.Memory.Leave(ctx, id) })
}

func (v *view) Replicas(ctx context.Context) ([]eventlog.Replica, error) {
	return ask(ctx, v, func() ([]eventlog.Replica, error) { return v.Memory.Replicas(ctx) })
}

func (v *view) Acquire(ctx context.Context, owner string, want []eventlog.Partition) ([]eventlog.Cursor, error) {
	return ask(ctx, v, func() ([]eventlog.Cursor, error) { return v.Memory.Acquire(ctx, owner, want) })
}

func (v *view) Release(ctx context.Context, leases []eventlog.Lease) error {
	return tell(ctx, v, func() error { return v.Memory.Release(ctx, leases) })
}

func (v *view) Prepare(ctx context.Context, s eventlog.Setup) error {
	return tell(ctx, v, func() error {
		if meanwhile := v.beforePrepare(nil); meanwhile != nil {
			meanwhile()
		}
		return v.Memory.Prepare(ctx, s)
	})
}

// beforePrepare sets what happens just before this process next prepares cursors, and
// returns what was set before.
func (v *view) beforePrepare(do func()) (instead func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	instead, v.meanwhile = v.meanwhile, do
	return instead
}

func (v *view) Rename(ctx context.Context, from string, to string) (bool, error) {
	return ask(ctx, v, func() (bool, error) { return v.Memory.Rename(ctx, from, to) })
}

func (v *view) MoveParked(ctx context.Context) (bool, error) {
	return ask(ctx, v, func() (bool, error) { return v.Memory.MoveParked(ctx) })
}

func (v *view) Cursors(ctx context.Context) ([]eventlog.Cursor, error) {
	return ask(ctx, v, func() ([]eventlog.Cursor, error) { return v.Memory.Cursors(ctx) })
}

func (v *view) SaveCursors(ctx context.Context, cursors []eventlog.Cursor) ([]eventlog.Lease, error) {
	return ask(ctx, v, func() ([]eventlog.Lease, error) { return v.Memory.SaveCursors(ctx, cursors) })
}

func (v *view) SaveGap(ctx context.Context, g eventlog.Gap) error {
	return tell(ctx, v, func() error { return v.Memory.SaveGap(ctx, g) })
}

func (v *view) SaveLoss(ctx context.Context, from int64, to int64, at time.Time) error {
	return tell(ctx, v, func() error { return v.Memory.SaveLoss(ctx, from, to, at) })
}

func (v *view) Park(ctx context.Context, all ...eventlog.Parking) (map[eventlog.Lease]error, error) {
	return ask(ctx, v, func() (map[eventlog.Lease]error, error) { return v.Memory.Park(ctx, all...) })
}

func (v *view) ParkedLanes(
	ctx context.Context, p eventlog.Partition, after int64, limit int,
) ([]eventlog.Retry, error) {
	return ask(ctx, v, func() ([]eventlog.Retry, error) { return v.Memory.ParkedLanes(ctx, p, after, limit) })
}

func (v *view) Requeue(
	ctx context.Context, l eventlog.Lease, reason string, since time.Time, now time.Time,
) (int64, error) {
	return ask(ctx, v, func() (int64, error) { return v.Memory.Requeue(ctx, l, reason, since, now) })
}

func (v *view) NextParked(ctx context.Context, endpoint string, e tidings.Event, limit int) ([]eventlog.Retry, error) {
	return ask(ctx, v, func() ([]eventlog.Retry, error) { return v.Memory.NextParked(ctx, endpoint, e, limit) })
}

func (v *view) Parked(ctx context.Context, f eventlog.ParkedFilter) ([]eventlog.Retry, error) {
	return ask(ctx, v, func() ([]eventlog.Retry, error) { return v.Memory.Parked(ctx, f) })
}

func (v *view) Controls(ctx context.Context) (map[string]eventlog.Control, error) {
	return ask(ctx, v, func() (map[string]eventlog.Control, error) { return v.Memory.Controls(ctx) })
}

func (v *view) SaveControl(ctx context.Context, c eventlog.Control) error {
	return tell(ctx, v, func() error { return v.Memory.SaveControl(ctx, c) })
}

func (v *view) Replays(ctx context.Context, running bool, limit int) ([]eventlog.Replay, error) {
	return ask(ctx, v, func() ([]eventlog.Replay, error) { return v.Memory.Replays(ctx, running, limit) })
}

func (v *view) SaveReplay(ctx context.Context, l eventlog.Lease, r eventlog.Replay) (eventlog.ReplayState, error) {
	return ask(ctx, v, func() (eventlog.ReplayState, error) { return v.Memory.SaveReplay(ctx, l, r) })
}

func (v *view) AppendHistory(ctx context.Context, blocks []*eventlog.HistoryBlock) error {
	return tell(ctx, v, func() error { return v.Memory.AppendHistory(ctx, blocks) })
}

func (v *view) Due(
	ctx context.Context, p eventlog.Partition, now time.Time, limit int,
) (due []eventlog.Retry, next time.Time, err error) {
	due, err = ask(ctx, v, func() (due []eventlog.Retry, err error) {
		due, next, err = v.Memory.Due(ctx, p, now, limit)
		return due, err
	})
	return due, next, err
}

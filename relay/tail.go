package relay

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const (
	readBatch = 512
	tailSize  = 4096 // events kept at the least; twice as many at the most
	// pollInterval is the backstop of the wake-up signal.
	pollInterval = time.Second
)

// tail keeps the newest events of the log in memory, so that a thousand
// endpoints near the head do not mean a thousand reads. It is also what makes
// committed events readable, by calling Advance.
type tail struct {
	log    eventlog.Log
	logger *slog.Logger

	mu      sync.Mutex
	events  []tidings.Event // consecutive; the last one is at head
	head    int64
	changed chan struct{} // closed, and replaced, when head moves
	moved   time.Time     // when the log was read last
	failure error         // why it could not be read since
}

func newTail(log eventlog.Log, logger *slog.Logger) *tail {
	return &tail{log: log, logger: logger, changed: make(chan struct{})}
}

// start sets the head to the end of the log as it is.
func (t *tail) start(ctx context.Context) error {
	head, err := t.log.Advance(ctx)
	t.head = head
	return err
}

// run follows the log until the context ends.
func (t *tail) run(ctx context.Context) {
	ctx = eventlog.Urgent(ctx)
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	t.done(nil)
	failing := false
	for {
		err := t.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			t.logger.Error("event log cannot be read, trying again every second", "error", err)
		} else if err == nil && failing {
			t.logger.Info("event log can be read again")
		}
		failing = err != nil
		t.done(err)
		select {
		case <-ctx.Done():
			return
		case <-t.log.Woken():
		case <-poll.C:
		}
	}
}

// follow reads what was added to the log.
func (t *tail) follow(ctx context.Context) error {
	end, err := t.log.Advance(ctx)
	if err != nil {
		return err
	}
	for after := t.position(); after < end; after = t.position() {
		events, err := t.log.Read(ctx, after, readBatch)
		if err != nil {
			return err
		}
		if len(events) == 0 { // they have expired while nobody looked
			t.skip(end)
			return nil
		}
		t.add(events)
		t.done(nil)
	}
	return nil
}

// done notes how the last look at the log ended.
func (t *tail) done(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure = err; err == nil {
		t.moved = time.Now()
	}
}

// stuckTime is how long the log may not be read before that is said.
const stuckTime = 5 * time.Second

// stuck returns an error if committed events have not been numbered for a while.
func (t *tail) stuck() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := time.Since(t.moved)
	if t.moved.IsZero() || since < stuckTime {
		return nil
	}
	return &eventlog.UnavailableError{
		Reason: fmt.Sprintf("the database has not let events be numbered for %d s", int(since.Seconds())), Err: t.failure,
	}
}

func (t *tail) position() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

func (t *tail) add(events []tidings.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.events); n > 0 && events[0].Sequence != t.events[n-1].Sequence+1 {
		t.events = nil // some expired in between
	}
	// Readers hold parts of the old array, so it is left behind, not shifted;
	// only every tailSize events, so that a copy is cheap for each.
	if len(t.events)+len(events) > 2*tailSize {
		t.events = append(make([]tidings.Event, 0, 2*tailSize), t.events[len(t.events)-tailSize:]...)
	}
	t.events = append(t.events, events...)
	t.moveTo(events[len(events)-1].Sequence)
}

func (t *tail) skip(head int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = nil
	t.moveTo(head)
}

// moveTo sets the head and wakes those who wait for it to move.
func (t *tail) moveTo(head int64) {
	t.head = head
	close(t.changed)
	t.changed = make(chan struct{})
}

// read returns at most limit events after a position: from memory near the head,
// from the log behind it. Callers share the events and must not change them.
// Where the events after the position have expired, those that come next follow,
// and missed is the position before them: more than after.
func (t *tail) read(ctx context.Context, after int64, limit int) (events []tidings.Event, missed int64, err error) {
	t.mu.Lock()
	head, near := t.head, t.events
	t.mu.Unlock()
	if after >= head {
		return nil, after, nil
	}
	if len(near) > 0 && after >= near[0].Sequence-1 {
		from := int(after - (near[0].Sequence - 1))
		return near[from:min(from+limit, len(near))], after, nil
	}
	events, err = t.log.Read(ctx, after, limit)
	switch {
	case err != nil:
		return nil, after, err
	case len(events) == 0: // all up to the head have expired
		return nil, head, nil
	}
	return events, events[0].Sequence - 1, nil
}

// more returns a channel that is closed once there are events after a position.
func (t *tail) more(after int64) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if after < t.head {
		return closedChannel
	}
	return t.changed
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

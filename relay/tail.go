package relay

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const (
	readBatch = 512
	tailSize  = 4096 // minimum number of events kept; the maximum is twice as many
	// pollInterval is the fallback if the wake-up signal is missed.
	pollInterval = time.Second
)

// tail caches the newest events of the log, so that a thousand endpoints near the
// head do not cause a thousand reads. It also makes committed events readable by
// calling Advance.
type tail struct {
	log    eventlog.Log
	logger *slog.Logger
	// began is called first in a new epoch. The check that it returns ends the
	// consumers whose writes the database lost; no writes are counted while it
	// runs.
	began     func(ctx context.Context, base int64) (check func(), err error)
	lost      func(ctx context.Context, from, to int64) error // records what the database lost
	rewound   func()                                          // called after lost
	following chan struct{}                                   // semaphore held while the log is followed
	epochs    eventlog.Epochs                                 // up to the one that head belongs to
	view      atomic.Pointer[view]
	chunks    chunks
	entering  sync.RWMutex // locked while an epoch is entered, read-locked while a write is counted

	mu      sync.Mutex
	events  []tidings.Event // consecutive; the last one is at head
	head    int64
	changed chan struct{} // closed, and replaced, when head moves
	moved   time.Time     // when the log was last read
	failure error         // why it could not be read since then
}

// view identifies the state of the log that this process knows: the epoch and the
// number of losses. What was learned under another number of losses must not be
// used.
type view struct {
	epoch  string
	losses int
}

func newTail(log eventlog.Log, logger *slog.Logger) *tail {
	t := &tail{log: log, logger: logger, changed: make(chan struct{}), following: make(chan struct{}, 1)}
	t.view.Store(new(view))
	return t
}

// start sets the head to the current end of the log.
func (t *tail) start(ctx context.Context) error {
	ctx = eventlog.Urgent(ctx)
	before, err := t.log.Epochs(ctx)
	if err != nil {
		return err
	}
	if _, err := t.log.Advance(ctx); err != nil { // this may begin an epoch
		return err
	}
	epochs, err := t.log.Epochs(ctx)
	if err != nil {
		return err
	}
	head, err := t.log.Advance(ctx)
	if err != nil {
		return err
	}
	if now := epochs.Current(); now.Beyond > 0 && now.ID != before.Current().ID {
		tellLoss(t.logger, now.Base, now.Beyond)
	}
	t.epochs, t.head = epochs, head
	t.view.Store(&view{epoch: epochs.Current().ID})
	t.log.OnCommitted(t.committed)
	return nil
}

func tellLoss(logger *slog.Logger, kept, seen int64) {
	logger.Error("the database lost the end of the event log: it failed over to a standby that lagged behind, or was "+
		"restored from a backup; "+
		"these events and the changes they describe are gone, and their positions are reused; events "+
		"written from now on are delivered",
		"from", kept+1, "to", seen, "count", seen-kept)
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

// follow reads new events from the log.
func (t *tail) follow(ctx context.Context) error {
	select {
	case t.following <- struct{}{}:
		defer func() { <-t.following }()
	case <-ctx.Done():
		return ctx.Err()
	}
	end, err := t.log.Advance(ctx)
	if err != nil {
		return err
	}
	if t.log.Epoch() != t.view.Load().epoch {
		if err := t.enter(ctx); err != nil {
			return err
		}
		if end, err = t.log.Advance(ctx); err != nil { // the end may be that of the old epoch
			return err
		}
	}
	for after := t.position(); after < end; after = t.position() {
		events, err := t.log.Read(ctx, after, readBatch)
		if err != nil {
			return err
		}
		if len(events) == 0 { // all of them have expired
			t.skip(end)
			return nil
		}
		t.add(events)
		t.done(nil)
	}
	return nil
}

// done records the result of the last read.
func (t *tail) done(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure = err; err == nil {
		t.moved = time.Now()
	}
}

// stuckTime is how long the log may be unreadable before stuck reports it.
const stuckTime = 5 * time.Second

// stuck returns an error if committed events have not been numbered for stuckTime.
func (t *tail) stuck() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := time.Since(t.moved)
	if t.moved.IsZero() || since < stuckTime {
		return nil
	}
	return &eventlog.UnavailableError{
		Reason: fmt.Sprintf("events could not be numbered in the database for %d s", int(since.Seconds())),
		Err:    t.failure,
	}
}

// enter switches to the current epoch. It keeps the cached events unless the
// database lost some of what was read.
func (t *tail) enter(ctx context.Context) error {
	epochs, err := t.log.Epochs(ctx)
	if err != nil {
		return err
	}
	now, next := epochs.Current(), *t.view.Load()
	next.epoch = now.ID
	check, err := t.began(ctx, now.Base)
	if err != nil {
		return err
	}
	kept, seen := epochs.Kept(t.epochs), max(t.position(), now.Beyond)
	if seen <= kept {
		t.epochs = epochs
		t.entering.Lock()
		defer t.entering.Unlock()
		check()
		t.view.Store(&next)
		return nil
	}
	if err := t.lost(ctx, kept+1, seen); err != nil {
		return err
	}
	tellLoss(t.logger, kept, seen)
	t.epochs = epochs
	next.losses++
	t.skip(now.Base)
	t.view.Store(&next)
	t.rewound()
	return nil
}

// within calls do unless a new epoch was entered.
func (t *tail) within(epoch string, do func()) bool {
	t.entering.RLock()
	defer t.entering.RUnlock()
	same := t.view.Load().epoch == epoch
	if same {
		do()
	}
	return same
}

func (t *tail) position() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

// committed takes events that this process has just committed, if they are the next ones.
// Otherwise follow reads them. Before a new epoch is entered it takes none: enter counts all
// that was read until then as of the old one.
func (t *tail) committed(events []tidings.Event) bool {
	if t.log.Epoch() != t.view.Load().epoch {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if events[0].Sequence != t.head+1 {
		return false
	}
	t.append(events)
	return true
}

// add adds events read from the log, except those that were taken meanwhile.
func (t *tail) add(events []tidings.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	events = slices.DeleteFunc(events, func(e tidings.Event) bool { return e.Sequence <= t.head })
	if len(events) > 0 {
		t.append(events)
	}
}

func (t *tail) append(events []tidings.Event) {
	if n := len(t.events); n > 0 && events[0].Sequence != t.events[n-1].Sequence+1 {
		t.events = nil // some have expired in between
	}
	// Readers hold slices of the old array, so allocate a new one rather than
	// shifting; doing so every tailSize events keeps it cheap.
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

// moveTo sets the head and wakes everyone waiting for it to move.
func (t *tail) moveTo(head int64) {
	t.head = head
	close(t.changed)
	t.changed = make(chan struct{})
}

// errWentBack means that unexpired events are gone. The next read finds out what
// was lost.
var errWentBack = &eventlog.UnavailableError{Reason: "the event log ends earlier than a moment ago"}

// read returns at most limit events after a position, from memory near the head,
// otherwise from the log. If the next events have expired, it returns the ones
// after them, and missed is the position before the first of those, which is
// greater than after.
func (t *tail) read(ctx context.Context, after int64, limit int) (events []tidings.Event, missed int64, err error) {
	t.mu.Lock()
	head, near := t.head, t.events
	t.mu.Unlock()
	if after >= head {
		return nil, after, nil
	}
	if len(near) > 0 && after >= near[0].Sequence-1 {
		from := int(after - (near[0].Sequence - 1))
		// Copy, so that a caller who keeps the events does not keep the whole
		// array.
		return slices.Clone(near[from:min(from+limit, len(near))]), after, nil
	}
	events, err = t.chunks.read(ctx, t, after, head, limit)
	switch {
	case err != nil:
		return nil, after, err
	case len(events) == 0: // everything up to the head has expired, or was deleted
		oldest, err := t.log.Oldest(ctx)
		if err == nil && oldest <= after+1 {
			end, err := t.log.Advance(ctx)
			if err == nil && (end < head || t.log.Epoch() != t.view.Load().epoch) {
				t.log.Wake()
				err = errWentBack
			}
			if err != nil {
				return nil, after, err
			}
		}
		return nil, head, err
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

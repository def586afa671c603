// Package eventlog is the log of events that webhooks are delivered from.
//
// A program appends an [tidings.Event] in the same database transaction as the
// change it tells of. The log numbers what was committed, in commit order for
// each resource; every endpoint is a [Cursor] into it. Events that failed on
// their own are parked as [Retry] rows, so that the cursor can go on.
//
// Several processes may share a log: each [Lease] is held by one [Replica] at a
// time, and what a reader writes about a lease that it has lost is refused.
//
// The homes of a log are eventlog/sqlite and eventlog/postgres;
// eventlog/eventlogtest has the suite that both pass and a log in memory.
package eventlog

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings"
)

// Log is a numbered log of events and what delivery keeps about it. All methods may be
// called from several goroutines at once.
type Log interface {
	Reader
	Leases
	Cursors
	Retries
	Controls
	Replays
	Recorder
	Waker
}

// Home is where a log is kept: what delivery needs of it, and what operators look at
// and look after.
type Home interface {
	Log
	Archive
}

// ErrLeaseLost says that a write was refused because another replica holds the
// lease now.
var ErrLeaseLost = errors.New("the lease was lost to another replica")

// ErrNewEpoch says that a write was refused because the log began another epoch than
// the one that its lease names. Whoever has read nothing that was lost since may try
// again in the new one.
var ErrNewEpoch = errors.New("the database was started anew meanwhile")

// Reader reads the log.
type Reader interface {
	// Advance numbers the events committed so far and returns the position of
	// the last one, 0 in an empty log.
	// Where the database was started anew, it begins an [Epoch] before it numbers
	// anything: cursors, marks and replays end at its base, and what is parked of
	// later positions is removed.
	Advance(ctx context.Context) (head int64, err error)
	// Epoch returns the id of the epoch in which Advance last found the log.
	Epoch() string
	// Epochs returns the latest epochs, at most [MaxEpochs].
	Epochs(ctx context.Context) (Epochs, error)
	// Read returns at most limit events after a position, in order. There are
	// none at the end of the log; events still unnumbered are not there yet.
	Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error)
	// Oldest returns the position of the oldest event that has not expired; in a
	// log without events, the position that the next one gets.
	Oldest(ctx context.Context) (int64, error)
	// SequenceAt returns a position at or before that of every event that was
	// made at a time or later, as long as no transaction took longer than
	// [TimeSlack].
	SequenceAt(ctx context.Context, at time.Time) (int64, error)
}

type urgentKey struct{}

// Urgent returns a context for what all delivery waits for: numbering, reading what is
// new, and keeping leases. A log keeps room for such calls, which others can't use up.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, true) }

// Ordinary undoes [Urgent].
func Ordinary(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, false) }

// IsUrgent reports whether a context comes from [Urgent].
func IsUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) == true }

// Archive is what operators ask about a log, and its upkeep.
type Archive interface {
	Finder
	Expirer
	ReplayKeeper
	// Unnumbered returns how many committed events have no position yet.
	Unnumbered(ctx context.Context) (int64, error)
	// Gaps returns the newest gaps.
	Gaps(ctx context.Context, limit int) ([]Gap, error)
	// ParkedCounts returns how many parked events there are, by endpoint. They are
	// kept, not counted then: it costs the same however many there are.
	ParkedCounts(ctx context.Context) (map[string]ParkedCount, error)
	// DiscardDead removes dead letters of an endpoint, the one at a position or, with
	// 0, all, and returns how many, also with an error.
	DiscardDead(ctx context.Context, endpoint string, sequence int64) (int64, error)
	// ReadHistory returns the records of the newest blocks that may hold what the
	// filter wants, newest block first, in the order of each, and the id of the
	// oldest of these blocks, 0 if there are none.
	ReadHistory(ctx context.Context, f HistoryFilter) (records []Record, oldest int64, err error)
}

// Finder finds events.
type Finder interface {
	// Find returns the event with an id; false if the log does not hold it.
	Find(ctx context.Context, id string) (tidings.Event, bool, error)
}

// TimeSlack is how far the times of events may be out of the log's order: an
// event has the time at which its transaction began.
const TimeSlack = 10 * time.Minute

// Waker tells readers of news. A missed signal costs latency, never an event:
// readers poll as well.
type Waker interface {
	// Wake says that events were committed. It never blocks.
	Wake()
	// Woken yields after Wake; several calls may yield once.
	Woken() <-chan struct{}
	// Nudge says to the readers of all replicas that controls, leases or replays
	// changed.
	Nudge(ctx context.Context) error
	// Nudged yields after Nudge; several calls may yield once.
	Nudged() <-chan struct{}
}

// Signal is what a [Waker] wakes with; make one with [NewSignal].
type Signal struct{ ch chan struct{} }

// NewSignal returns a signal that has not been given.
func NewSignal() Signal { return Signal{ch: make(chan struct{}, 1)} }

// Give gives the signal without blocking.
func (s Signal) Give() {
	select {
	case s.ch <- struct{}{}:
	default:
	}
}

// Given yields once the signal was given.
func (s Signal) Given() <-chan struct{} { return s.ch }

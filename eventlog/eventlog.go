// Package eventlog is the log of events that webhooks are delivered from.
//
// A program appends a [tidings.Event] in the same database transaction as the
// change that it reports. The log numbers committed events, in commit order for
// each resource. Each endpoint has a [Cursor] into the log. Events that fail on
// their own are parked as [Retry] rows, so that the cursor can advance.
//
// Several processes may share a log. Each [Lease] is held by one [Replica] at a
// time, and writes under a lost lease are refused.
//
// Logs are stored by eventlog/sqlite and eventlog/postgres. eventlog/eventlogtest
// provides the test suite that both pass and an in-memory log.
package eventlog

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
)

// Log is a numbered log of events and the state of their delivery. Its methods are
// safe for concurrent use.
type Log interface {
	Reader
	Leases
	Cursors
	Retries
	Controls
	Replays
	Recorder
	Journalist
	Waker
}

// Home is a complete log: what delivery needs, plus what operators query and
// maintain.
type Home interface {
	Log
	Archive
}

// ErrLeaseLost means that a write was refused because another replica now holds the
// lease.
var ErrLeaseLost = errors.New("the lease was lost to another replica")

// ErrNewEpoch means that a write was refused because the log has begun a newer
// epoch than the one in the lease. A caller that has not read anything that was
// lost may retry in the new epoch.
var ErrNewEpoch = errors.New("the database was restarted in the meantime")

// ErrEndpointsChanged means that another process has created, renamed, removed or
// restored an endpoint since the caller read the cursors. The caller may read
// them again and decide again.
var ErrEndpointsChanged = errors.New("another process changed the endpoints in the meantime")

// Reader reads the log.
type Reader interface {
	// Advance numbers the events committed so far and returns the position of the
	// last one, or 0 in an empty log. With an [Urgent] or [Brief] context, it may leave
	// some to the next call and wake the log. If the database was restarted, it first
	// begins an [Epoch]: cursors, marks and replays are moved back to its base, and
	// parked events above it are removed.
	Advance(ctx context.Context) (head int64, err error)
	// Epoch returns the id of the epoch that Advance last found.
	Epoch() string
	// Epochs returns the latest epochs, at most [MaxEpochs].
	Epochs(ctx context.Context) (Epochs, error)
	// Read returns at most limit events after a position, in order. It returns none
	// at the end of the log. Events that have no number yet are not included.
	Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error)
	// Oldest returns the position of the oldest event that has not expired, or in a
	// log without events the position of the next one.
	Oldest(ctx context.Context) (int64, error)
	// SequenceAt returns a position at or before that of every event created at a
	// time or later, provided that no transaction took longer than [TimeSlack].
	SequenceAt(ctx context.Context, at time.Time) (int64, error)
}

type urgentKey struct{}

// Urgent returns a context for calls that all deliveries depend on: numbering,
// reading new events, and renewing leases. A log reserves capacity for such calls.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, true) }

// Ordinary undoes [Urgent].
func Ordinary(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, false) }

// IsUrgent reports whether a context comes from [Urgent].
func IsUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) == true }

type briefKey struct{}

// Brief returns a context with which Advance leaves thousands of events to the relay, and
// so does not take long: for answers to operators.
func Brief(ctx context.Context) context.Context { return context.WithValue(ctx, briefKey{}, true) }

// IsBrief reports whether a context comes from [Brief].
func IsBrief(ctx context.Context) bool { return ctx.Value(briefKey{}) == true }

// Archive is what operators query about a log, and its maintenance.
type Archive interface {
	Finder
	Expirer
	ReplayKeeper
	ParkedChanges
	Journal
	Sessions
	ParkedKeeper
	Describer
	// Unnumbered returns how many committed events have no position yet.
	Unnumbered(ctx context.Context) (int64, error)
	// Gaps returns the newest gaps.
	Gaps(ctx context.Context, limit int) ([]Gap, error)
	// ReadHistory returns the records of the newest blocks that may match the
	// filter, newest block first and in order within a block, and the id of the
	// oldest of these blocks, or 0 if there are none.
	ReadHistory(ctx context.Context, f HistoryFilter) (records []Record, oldest int64, err error)
}

// Finder finds events.
type Finder interface {
	// Find returns the event with an id; false if the log does not hold it.
	Find(ctx context.Context, id string) (tidings.Event, bool, error)
	// Following returns the first event after each of the positions, in order and without
	// duplicates.
	Following(ctx context.Context, positions []int64) ([]tidings.Event, error)
	// Search returns the newest events that match the filter, at most limit, newest
	// first. It examines every event in the filter's range of positions.
	Search(ctx context.Context, f EventFilter, limit int) ([]tidings.Event, error)
	// Count counts the events in some ranges that match the filter. The ranges must not
	// overlap; the filter's own From and To are ignored.
	Count(ctx context.Context, f EventFilter, ranges []Range) (Count, error)
}

// Range is a range of positions, both included.
type Range struct{ From, To int64 }

// Count is a number of events.
type Count struct {
	Events int64
	// First and Last are the positions of the first and the last of them; 0 if there is
	// none.
	First, Last int64
}

// EventFilter selects events of a log.
type EventFilter struct {
	// From and To are the first and last position.
	From, To int64
	// Patterns select events of which they match one; empty for all. So do Wanted, of
	// those.
	Patterns, Wanted []tidings.Pattern
	// Resource is "provider/<id>", or an id alone; empty for all.
	Resource string
	// Since and Until limit the times of events; zero for no limit.
	Since, Until time.Time
}

// Matches reports whether the filter selects an event.
func (f *EventFilter) Matches(e tidings.Event) bool {
	matches := func(all []tidings.Pattern) bool {
		return len(all) == 0 ||
			slices.ContainsFunc(all, func(p tidings.Pattern) bool { return p.Match(e.Type, e.Action) })
	}
	return f.From <= e.Sequence && e.Sequence <= f.To && matches(f.Patterns) && matches(f.Wanted) &&
		(f.Resource == "" || f.Resource == e.Resource() || f.Resource == e.ResourceID) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) && (f.Until.IsZero() || e.Time.Before(f.Until))
}

// TimeSlack is how far event times may deviate from log order: an event carries the
// time at which its transaction began.
const TimeSlack = 10 * time.Minute

// Waker wakes readers. A missed signal costs latency, never an event: readers poll
// as well.
type Waker interface {
	// Wake signals that events were committed. It never blocks.
	Wake()
	// Woken returns a channel that receives after Wake. Consecutive wakes may be
	// coalesced.
	Woken() <-chan struct{}
	// Committed gives the reader in this process events that the process has just
	// committed, so that it need not look for them. They have positions, or none in a
	// database that numbers them later. If the reader does not take them, Committed wakes
	// it. Like Wake, it never blocks.
	Committed(events ...tidings.Event)
	// OnCommitted sets the function that takes the events of Committed. It returns false
	// if the reader has to look for them.
	OnCommitted(take func(events []tidings.Event) bool)
	// Nudge signals to the readers of all replicas that controls, leases or replays
	// have changed.
	Nudge(ctx context.Context) error
	// Nudged returns a channel that receives after Nudge. Consecutive nudges may be
	// coalesced.
	Nudged() <-chan struct{}
}

// Signal is a non-blocking signal for implementations of [Waker]. Create one with
// [NewSignal].
type Signal struct{ ch chan struct{} }

// NewSignal returns a signal that is not set.
func NewSignal() Signal { return Signal{ch: make(chan struct{}, 1)} }

// Give sets the signal without blocking.
func (s Signal) Give() {
	select {
	case s.ch <- struct{}{}:
	default:
	}
}

// Given returns a channel that receives once the signal is set.
func (s Signal) Given() <-chan struct{} { return s.ch }

// Package eventlog is the log of events that webhooks are delivered from.
//
// A program appends an [tidings.Event] in the same database transaction as the
// change it tells of. The log numbers what was committed, in commit order for
// each resource; every endpoint is a [Cursor] into it. Events that failed on
// their own are parked as [Retry] rows, so that the cursor can go on.
//
// The homes of a log are eventlog/sqlite and eventlog/postgres;
// eventlog/eventlogtest has the suite that both pass and a log in memory.
package eventlog

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings"
)

// Log is a numbered log of events and what its readers keep about it. All
// methods may be called from several goroutines at once.
type Log interface {
	Reader
	Cursors
	Retries
	Waker
}

// Reader reads the log.
type Reader interface {
	// Advance numbers the events committed so far and returns the position of
	// the last one, 0 in an empty log.
	Advance(ctx context.Context) (head int64, err error)
	// Read returns at most limit events after a position, in order. There are
	// none at the end of the log; events still unnumbered are not there yet.
	Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error)
}

// Cursor is how far an endpoint has come.
type Cursor struct {
	Endpoint string
	// Sequence is the highest position below which everything is settled:
	// delivered, not matched, or parked.
	Sequence int64
	// Disabled says why nothing is sent, such as "http_410"; empty when enabled.
	Disabled string
	// Fingerprint changes with the endpoint's configuration.
	Fingerprint string
}

// Cursors keeps the cursors.
type Cursors interface {
	// Cursors returns those saved, by endpoint.
	Cursors(ctx context.Context) (map[string]Cursor, error)
	// SaveCursors writes all or none. A cursor never moves back: the higher
	// position of the saved and the given one stays.
	SaveCursors(ctx context.Context, cursors []Cursor) error
}

// Retry is an event parked for an endpoint: one that failed, one that waits
// behind such an event of the same resource, or a dead letter.
type Retry struct {
	Endpoint string
	Event    tidings.Event
	// Attempts counts those that used up a place in the schedule; 0 for an event
	// that only waits.
	Attempts int
	// First is when the first attempt was made; zero before it.
	First time.Time
	// Next is when to try again; zero for an event that only waits.
	Next time.Time
	// Dead is when it was given up; zero for a live one.
	Dead time.Time
	// Reason is why the last attempt failed.
	Reason string
}

// Retries keeps the parked events. They are independent of the log's retention.
type Retries interface {
	// Park writes retries, replacing those of the same endpoint and sequence,
	// except that an event that only waits never replaces another row. All or
	// none.
	Park(ctx context.Context, retries []Retry) error
	// Unpark removes one that was delivered.
	Unpark(ctx context.Context, endpoint string, sequence int64) error
	// ParkedLanes returns the oldest live retry of each resource of an endpoint,
	// at most limit.
	ParkedLanes(ctx context.Context, endpoint string, limit int) ([]Retry, error)
	// NextParked returns the oldest live retry of one resource; false if it has
	// none.
	NextParked(ctx context.Context, endpoint string, e tidings.Event) (Retry, bool, error)
	// DeadLetters returns an endpoint's dead letters after a position, in order.
	DeadLetters(ctx context.Context, endpoint string, after int64, limit int) ([]Retry, error)
}

// Waker tells a reader in this process of new events. A missed signal costs
// latency, never an event: readers poll as well.
type Waker interface {
	// Wake says that events were committed. It never blocks.
	Wake()
	// Woken yields after Wake; several calls may yield once.
	Woken() <-chan struct{}
}

// Signal is a [Waker]; make one with [NewSignal].
type Signal struct{ ch chan struct{} }

// NewSignal returns a signal that has not been given.
func NewSignal() Signal { return Signal{ch: make(chan struct{}, 1)} }

// Wake gives the signal without blocking.
func (s Signal) Wake() {
	select {
	case s.ch <- struct{}{}:
	default:
	}
}

// Woken yields once the signal was given.
func (s Signal) Woken() <-chan struct{} { return s.ch }

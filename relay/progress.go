package relay

import (
	"encoding/json"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// overtakenTime is how long an event may hold the cursor before the events that
// overtook it are noted. It adds to the interval at which cursors are saved.
const overtakenTime = 50 * time.Millisecond

// progress tracks how far a consumer has come and what of that is saved.
type progress struct {
	partition eventlog.Partition
	marks     eventlog.Marks // what was settled above the initial cursor
	own       eventlog.Mark  // what has overtaken others since
	noted     time.Time      // when own was noted
	position  atomic.Pointer[position]

	saved      eventlog.Cursor // this and the following fields are guarded by the relay's saving semaphore
	status     savedStatus
	statusText string
}

// position is the cursor and what is settled above it.
type position struct {
	cursor int64
	marks  eventlog.Marks
}

func newProgress(from eventlog.Cursor) *progress {
	p := &progress{partition: from.Partition, marks: from.Marks}
	p.position.Store(&position{cursor: from.Sequence, marks: from.Marks})
	return p
}

// follow takes the progress of an order and reports whether it has changed. Events
// that have overtaken the one that holds the cursor are recorded at intervals and at the
// end.
func (p *progress) follow(o *order, final bool, now time.Time) bool {
	cursor := o.Cursor()
	note := o.overtaken() && (final || !now.Before(p.noted.Add(overtakenTime)))
	if cursor == p.position.Load().cursor && !note {
		return false
	}
	if note {
		p.own, p.noted = o.Mark(p.partition), now
	}
	p.position.Store(&position{cursor: cursor, marks: slices.Concat(p.marks, eventlog.Marks{p.own}).After(cursor)})
	return true
}

// next returns when overtaking events are to be recorded; zero if there are none.
func (p *progress) next(o *order) time.Time {
	if !o.overtaken() {
		return time.Time{}
	}
	return p.noted.Add(overtakenTime)
}

// cursor returns the progress as a cursor to be saved.
func (p *progress) cursor(lease eventlog.Lease, status savedStatus) eventlog.Cursor {
	status.InFlight = 0 // changes constantly and is not worth a write
	if status != p.status {
		text, err := json.Marshal(status)
		if err == nil { // only numbers and strings: it can't fail
			p.status, p.statusText = status, string(text)
		}
	}
	at := p.position.Load()
	return eventlog.Cursor{Lease: lease, Sequence: at.cursor, Marks: at.marks, Status: p.statusText}
}

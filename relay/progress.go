package relay

import (
	"encoding/json"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// overtakenTime is how long an event may hold the cursor before what overtook it is
// noted.
const overtakenTime = 250 * time.Millisecond

// progress is how far a consumer has come, and what of it is saved.
type progress struct {
	partition eventlog.Partition
	marks     eventlog.Marks // of what is settled above the cursor it began with
	own       eventlog.Mark  // the same of what overtook others since
	noted     time.Time      // when that was
	position  atomic.Pointer[position]

	saved      eventlog.Cursor // by whoever holds the relay's saving, as is what follows
	status     savedStatus
	statusText string
}

// position is the cursor, and what is settled above it.
type position struct {
	cursor int64
	marks  eventlog.Marks
}

func newProgress(from eventlog.Cursor) *progress {
	p := &progress{partition: from.Partition, marks: from.Marks}
	p.position.Store(&position{cursor: from.Sequence, marks: from.Marks})
	return p
}

// follow takes over how far an order has come, and reports whether that is further
// than before. What has overtaken the event that holds the cursor is noted now and
// then, and at the end.
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

// next is when what has overtaken others is to be noted; zero if nothing has.
func (p *progress) next(o *order) time.Time {
	if !o.overtaken() {
		return time.Time{}
	}
	return p.noted.Add(overtakenTime)
}

// cursor is the progress as it is saved.
func (p *progress) cursor(lease eventlog.Lease, status savedStatus) eventlog.Cursor {
	status.InFlight = 0 // it changes all the time, and that is not worth a write
	if status != p.status {
		text, err := json.Marshal(status)
		if err == nil { // numbers and texts: it can't fail
			p.status, p.statusText = status, string(text)
		}
	}
	at := p.position.Load()
	return eventlog.Cursor{Lease: lease, Sequence: at.cursor, Marks: at.marks, Status: p.statusText}
}

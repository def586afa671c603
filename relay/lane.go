package relay

import (
	"container/heap"
	"context"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// lane holds the events of one resource that wait in memory, oldest first. The
// first one may be under way.
type lane struct{ items []*item }

// queue is a first-in, first-out queue of lanes.
type queue struct {
	lanes []*lane
	front int
}

func (q *queue) push(l *lane) { q.lanes = append(q.lanes, l) }

func (q *queue) empty() bool { return q.front == len(q.lanes) }

func (q *queue) pop() (*lane, bool) {
	if q.empty() {
		return nil, false
	}
	l := q.lanes[q.front]
	q.lanes[q.front] = nil
	if q.front++; q.front > 64 && q.front > len(q.lanes)/2 {
		q.lanes = append(q.lanes[:0], q.lanes[q.front:]...)
		q.front = 0
	}
	return l, true
}

// enqueue puts an event at the end of its lane, or merges it with the one there.
func (c *consumer) enqueue(e tidings.Event) {
	key := e.Resource()
	l := c.lanes[key]
	if l == nil {
		l = &lane{}
		c.lanes[key] = l
		c.ready.push(l)
	}
	it := &item{event: e}
	if n := len(l.items); n > 0 && !l.items[n-1].attempted {
		last := l.items[n-1]
		keepLater, merged := merge(c.endpoint.Coalesce, last.event.Action, e.Action)
		switch {
		case merged && keepLater:
			c.tellMerged(last.event, e)
			l.items[n-1] = it
			c.window.add(it)
			c.window.merge(last)
			return
		case merged:
			c.tellMerged(e, last.event)
			return
		}
	}
	l.items = append(l.items, it)
	c.window.add(it)
}

// parkedLane is a resource whose oldest unsettled event is in the retries table,
// with all later ones behind it.
type parkedLane struct {
	event tidings.Event // names the resource
	next  time.Time
	rows  []eventlog.Retry // the oldest of them, as far as they were read
}

// parkedHeap orders parked lanes by when they are due.
type parkedHeap []*parkedLane

func (h parkedHeap) Len() int           { return len(h) }
func (h parkedHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h parkedHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface].
func (h *parkedHeap) Push(x any) { *h = append(*h, x.(*parkedLane)) }

// Pop implements [heap.Interface].
func (h *parkedHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}

func (h parkedHeap) next() (time.Time, bool) {
	if len(h) == 0 {
		return time.Time{}, false
	}
	return h[0].next, true
}

// allRows is more than a consumer ever parks.
const allRows = 1 << 20

// loadParked finds the resources that were parked when the last owner stopped,
// and the dead letters that the cursor has not passed: those may not be sent
// again, for later events of their resource went out.
func (c *consumer) loadParked(ctx context.Context) {
	c.persist(ctx, func(ctx context.Context) error {
		dead, err := c.log.Parked(ctx, eventlog.ParkedFilter{Endpoint: c.endpoint.Name, Dead: true, After: c.window.read, Limit: allRows})
		for _, r := range dead {
			c.buried[r.Event.Sequence] = true
		}
		return err
	})
	c.persist(ctx, func(ctx context.Context) error {
		lanes, err := c.log.ParkedLanes(ctx, c.lease.Partition, allRows)
		for _, r := range lanes {
			c.addParked(r.Event, r.Next)
		}
		return err
	})
}

func (c *consumer) addParked(e tidings.Event, next time.Time) {
	l := &parkedLane{event: e, next: next}
	c.parked[e.Resource()] = l
	heap.Push(&c.due, l)
}

// nextDue takes the oldest event of a parked lane that is due.
func (c *consumer) nextDue(ctx context.Context, now time.Time) (*item, bool) {
	for {
		if at, ok := c.due.next(); !ok || at.After(now) {
			return nil, false
		}
		l := heap.Pop(&c.due).(*parkedLane)
		if r, ok := c.oldest(ctx, l); ok {
			return &item{event: r.Event, parked: true, attempts: r.Attempts, first: r.First}, true
		}
	}
}

const (
	// laneRows is how many parked events of a resource are read at once: after an
	// hour of retries there may be very many.
	laneRows = 64
	// mergeRows is how many where updates are merged: what comes of them must not
	// depend on how far they were read.
	mergeRows = 10_000
	// rowsLimit bounds those of all resources together.
	rowsLimit = 4096
	// unparkLimit and unparkInterval bound what was delivered and is still in the
	// retries table, and so what is sent again after a crash.
	unparkLimit    = 256
	unparkInterval = 250 * time.Millisecond
)

// oldest returns the event that a parked lane waits for; false, and the lane is
// no more, if there is none left. Those that wait behind it without an attempt
// are merged when their turn comes.
func (c *consumer) oldest(ctx context.Context, l *parkedLane) (retry eventlog.Retry, found bool) {
	if len(l.rows) == 0 && !c.readLane(ctx, l) {
		return eventlog.Retry{}, false
	}
	for len(l.rows) > 1 {
		first, second := l.rows[0], l.rows[1]
		keepLater, merged := merge(c.endpoint.Coalesce, first.Event.Action, second.Event.Action)
		if !first.First.IsZero() || !second.First.IsZero() || !merged {
			break
		}
		gone, into := second, first
		if keepLater {
			gone, into = first, second
		}
		c.tellMerged(gone.Event, into.Event)
		c.drop(l)
		l.rows[0] = into
		c.unparked = append(c.unparked, gone.Event.Sequence)
	}
	return l.rows[0], true
}

// readLane reads the oldest events of a parked lane. If there are none, the lane
// is no more.
func (c *consumer) readLane(ctx context.Context, l *parkedLane) bool {
	if !c.unpark(ctx) { // or it would read what was delivered
		return false
	}
	limit := laneRows
	switch {
	case c.coalesces():
		limit = mergeRows
	case c.rows >= rowsLimit:
		limit = 1
	}
	read := c.persist(ctx, func(ctx context.Context) (err error) {
		l.rows, err = c.log.NextParked(ctx, c.endpoint.Name, l.event, limit)
		return err
	})
	c.rows += len(l.rows)
	if read && len(l.rows) == 0 {
		delete(c.parked, l.event.Resource())
	}
	return read && len(l.rows) > 0
}

// drop takes the first event off a parked lane.
func (c *consumer) drop(l *parkedLane) {
	l.rows = l.rows[1:]
	c.rows--
}

// unpark removes what was delivered from the retries table.
func (c *consumer) unpark(ctx context.Context) bool {
	if len(c.unparked) == 0 {
		return true
	}
	done := c.persist(ctx, func(ctx context.Context) error { return c.log.Unpark(ctx, c.lease, c.unparked...) })
	if done {
		c.unparked = c.unparked[:0]
	}
	return done
}

// delivered settles an event and lets the next of its resource go.
func (c *consumer) delivered(ctx context.Context, it *item) {
	if !it.parked {
		c.settleFirst(it)
		return
	}
	if len(c.unparked) == 0 {
		c.unparkAt = time.Now().Add(unparkInterval)
	}
	c.unparked = append(c.unparked, it.event.Sequence)
	c.drop(c.parked[it.event.Resource()])
	if len(c.unparked) >= unparkLimit {
		c.unpark(ctx)
	}
	c.resume(it.event, time.Time{})
}

// settleFirst takes the first event of a lane in memory off it.
func (c *consumer) settleFirst(it *item) {
	c.window.settle(it)
	key := it.event.Resource()
	l := c.lanes[key]
	l.items[0] = nil
	if l.items = l.items[1:]; len(l.items) == 0 {
		delete(c.lanes, key)
		return
	}
	c.ready.push(l)
}

// resume makes a parked lane that was under way due again.
func (c *consumer) resume(e tidings.Event, next time.Time) {
	l := c.parked[e.Resource()]
	l.next = next
	heap.Push(&c.due, l)
}

// putBack returns an event that used up no attempt; its lane goes behind the
// others.
func (c *consumer) putBack(it *item, now time.Time) {
	if it.parked {
		c.resume(it.event, now)
		return
	}
	c.ready.push(c.lanes[it.event.Resource()])
}

// parkFirst parks the first event of a lane in memory and all behind it. If it
// is given up, those behind it go on.
func (c *consumer) parkFirst(ctx context.Context, retry eventlog.Retry) {
	key := retry.Event.Resource()
	l := c.lanes[key]
	if !retry.Dead.IsZero() {
		if c.park(ctx, []eventlog.Retry{retry}) {
			c.settleFirst(l.items[0])
		}
		return
	}
	rows := []eventlog.Retry{retry}
	for _, behind := range l.items[1:] {
		rows = append(rows, eventlog.Retry{Endpoint: c.endpoint.Name, Event: behind.event})
	}
	if !c.park(ctx, rows) {
		return
	}
	for _, it := range l.items {
		c.window.settle(it)
	}
	delete(c.lanes, key)
	c.addParked(retry.Event, retry.Next)
}

// parkAgain updates an event that was parked before.
func (c *consumer) parkAgain(ctx context.Context, retry eventlog.Retry) {
	c.park(ctx, []eventlog.Retry{retry})
	if l := c.parked[retry.Event.Resource()]; retry.Dead.IsZero() {
		l.rows[0] = retry
	} else {
		c.drop(l)
	}
	c.resume(retry.Event, retry.Next) // at once for those behind a dead letter
}

func (c *consumer) park(ctx context.Context, rows []eventlog.Retry) bool {
	if len(rows) == 0 {
		return true
	}
	return c.persist(ctx, func(ctx context.Context) error { return c.log.Park(ctx, c.lease, rows) })
}

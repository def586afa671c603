package relay

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// order decides which event may be sent next, so that each resource's events are
// sent one at a time and in order, and how far the cursor may move. It holds the
// unsettled events read from the log and the due events of parked resources. It
// does no I/O and has no clock.
type order struct {
	coalesce tidings.Coalesce
	// sent is the last position that the previous owner may have sent. Such an event
	// absorbs no later one: a receiver that has handled its id would not hear of that.
	sent    int64
	lanes   map[string]*lane
	fresh   rotation // lanes whose first event may be sent
	due     rotation // the same for parked ones
	loaded  int      // events of parked lanes
	parked  parkedSet
	window  window
	slow    slowTypes
	ahead   []int64 // settled positions beyond what was read, sorted
	dueTurn bool    // the last event sent was a fresh one, so the next should be a due one
	changes int     // number of settlements; noted is how many the last Mark included
	noted   int
	probes  int // number of probes sent; the way they are picked alternates
}

// item is an event to be sent.
type item struct {
	event    tidings.Event
	lane     *lane
	trial    trial
	attempts int // attempts already used up
	first    time.Time
	settled  bool
	early    bool          // sent before older events of its type
	beyond   bool          // a probe read from beyond the window
	replay   chan<- result // receives the result of a replayed event; nil for a live event
	more     bool          // the replay has more events to send
}

// lane holds the events of one resource, oldest first. The first may be in flight.
type lane struct {
	resource string
	items    []*item
	// parked means that the events come from the retries table, where later events
	// of the resource are as well.
	parked bool
	// before means that an older event of the resource is in the retries table: a dead
	// letter to be retried.
	before bool
}

// parkedSet is the set of resources with events in the retries table. There may be
// very many, so it keeps only a hash of each. Among a million parked and a million
// other resources, the probability that one of each collide is one in ten million;
// the other resource then waits too, until another consumer takes over.
type parkedSet map[resourceHash]struct{}

// resourceHash is a byte array rather than an integer because a map would align
// integers, which takes more memory.
type resourceHash [8]byte

var hashSeed = maphash.MakeSeed()

func hashOf(resource string) (hash resourceHash) {
	binary.NativeEndian.PutUint64(hash[:], maphash.String(hashSeed, resource))
	return hash
}

func (s parkedSet) has(resource string) bool {
	if len(s) == 0 {
		return false
	}
	_, found := s[hashOf(resource)]
	return found
}

func newOrder(after int64, c tidings.Coalesce) *order {
	return &order{
		coalesce: c, lanes: make(map[string]*lane), parked: make(parkedSet),
		window: window{read: after, high: after}, slow: make(slowTypes),
	}
}

// added is what [order.Add] did with an event.
type added int

const (
	queued     added = iota
	behind           // its resource is parked: it must be parked, too
	mergedInto       // it was merged into an earlier event
	replaced         // it replaced an earlier event
	before           // it is already settled
)

// Add adds an event read from the log. If the event was merged, other is the event
// it was merged with.
func (o *order) Add(e tidings.Event) (what added, other tidings.Event) {
	resource := e.Resource()
	if at, found := slices.BinarySearch(o.ahead, e.Sequence); found {
		o.ahead = slices.Delete(o.ahead, at, at+1)
		o.passed(e.Sequence)
		o.Passed(e.Sequence)
		return before, other
	}
	if o.parked.has(resource) {
		o.passed(e.Sequence)
		return behind, other
	}
	l := o.lanes[resource]
	if l == nil {
		l = &lane{resource: resource}
		o.lanes[resource] = l
	}
	it := &item{event: e, lane: l}
	if n := len(l.items); n > 0 && !l.items[n-1].trial.began {
		last := l.items[n-1]
		keepLater, merged := merge(o.coalesce, last.event.Action, e.Action)
		switch {
		case merged && keepLater:
			l.items[n-1] = it
			o.window.add(it)
			o.window.settle(last)
			return replaced, last.event
		case merged && last.event.Sequence > o.sent:
			o.passed(e.Sequence)
			return mergedInto, last.event
		}
	}
	l.items = append(l.items, it)
	o.window.add(it)
	if len(l.items) == 1 {
		o.fresh.push(l)
	}
	return queued, other
}

// passed notes that an event does not occupy the window.
func (o *order) passed(sequence int64) {
	o.window.high = max(o.window.high, sequence)
	o.changes++
}

// Passed notes that the log was read up to a position.
func (o *order) Passed(sequence int64) { o.window.read = max(o.window.read, sequence) }

// MergeParked merges parked events of one resource. It returns the remaining ones
// and those merged into them, which no longer need to wait.
func (o *order) MergeParked(rows []eventlog.Retry) (left []eventlog.Retry, gone []merged) {
	for _, r := range rows {
		if n := len(left); n > 0 {
			last := left[n-1]
			keepLater, isMerged := merge(o.coalesce, last.Event.Action, r.Event.Action)
			switch {
			case !isMerged, !last.First.IsZero(), !r.First.IsZero():
			case keepLater:
				gone = append(gone, merged{last.Event, r.Event})
				left[n-1] = r
				continue
			case last.Event.Sequence > o.sent:
				gone = append(gone, merged{r.Event, last.Event})
				continue
			}
		}
		left = append(left, r)
	}
	for _, m := range gone {
		if m.gone.Sequence > o.window.read {
			o.SettleBeyond(m.gone.Sequence)
		}
	}
	return left, gone
}

// AddDue adds the oldest event of a parked resource, which is due, and the events
// behind it that were read.
func (o *order) AddDue(rows []eventlog.Retry) {
	if len(rows) == 0 {
		return
	}
	resource := rows[0].Event.Resource()
	if o.lanes[resource] != nil {
		return
	}
	l := &lane{resource: resource, parked: true}
	for _, r := range rows {
		it := &item{event: r.Event, lane: l, attempts: r.Attempts, first: r.First}
		it.trial.parked = r.Attempts > 0
		l.items = append(l.items, it)
	}
	o.loaded += len(l.items)
	o.parked[hashOf(resource)] = struct{}{}
	o.lanes[resource] = l
	o.due.push(l)
}

// Retry notes that a dead letter is to be sent once the later events of its resource
// that were read already are settled. Those read from now on come after it.
func (o *order) Retry(l *lane) {
	l.before = true
	o.parked[hashOf(l.resource)] = struct{}{}
}

// Unload drops the events of a parked resource from memory, except one that is in
// flight. It reports whether none of the resource's events remain.
func (o *order) Unload(resource string) bool {
	l := o.lanes[resource]
	switch {
	case l == nil:
		return true
	case !l.parked:
		return false
	case !o.due.remove(l):
		o.loaded -= len(l.items) - 1
		l.items = l.items[:1]
		return false
	}
	o.loaded -= len(l.items)
	delete(o.lanes, resource)
	return true
}

// merged is an event and the one it was merged into.
type merged struct{ gone, into tidings.Event }

// pick is the policy for choosing the next event.
type pick int

const (
	inTurn     pick = iota // alternate between fresh events and due parked ones
	freshFirst             // parked ones only if nothing else is waiting
)

// Next removes and returns the event to send next, if it need not be a probe. Types
// that give way come last, and of those the newest event that was never sent: behind
// many bad events there may be good ones.
func (o *order) Next(p pick, now time.Time) (*item, bool) {
	queues := []*rotation{&o.fresh, &o.due}
	if p == inTurn && o.dueTurn {
		slices.Reverse(queues)
	}
	for _, q := range queues {
		if l, ok := q.first(func(t tidings.ResourceType) bool { return !o.slow.givesWay(t, now) }); ok {
			o.dueTurn = !l.parked
			return o.slow.sent(l.items[0], false), true
		}
	}
	if l, ok := o.fresh.newest(neverSent); ok {
		return o.slow.sent(l.items[0], true), true
	}
	for _, q := range queues {
		if l, ok := q.first(anyType); ok {
			o.dueTurn = !l.parked
			return o.slow.sent(l.items[0], false), true
		}
	}
	return nil, false
}

func neverSent(l *lane) bool { return !l.items[0].trial.began }

func anyType(tidings.ResourceType) bool { return true }

// Probe removes and returns an event to try during the outage with the given
// number. It alternates between the one that has waited longest and the newest one
// that was never sent, or at least not in this outage. Resources in avoid come last.
func (o *order) Probe(outage int64, avoid map[string]bool) (*item, bool) {
	from := o.probed()
	if o.probes++; o.probes%2 == 0 {
		l, ok := from.newest(neverSent)
		if !ok {
			l, ok = from.newest(func(l *lane) bool { return !l.items[0].trial.triedIn(outage) })
		}
		if ok {
			return o.slow.sent(l.items[0], true), true
		}
	}
	for range len(avoid) {
		l, ok := from.first(anyType)
		if !ok {
			return nil, false
		}
		if !avoid[l.resource] {
			return o.slow.sent(l.items[0], false), true
		}
		from.push(l)
	}
	if l, ok := from.first(anyType); ok {
		return o.slow.sent(l.items[0], false), true
	}
	return nil, false
}

// probed returns the lanes that probes are taken from.
func (o *order) probed() *rotation {
	if o.fresh.empty() {
		return &o.due
	}
	return &o.fresh
}

// Untried reports whether a resource other than these is available for a probe.
func (o *order) Untried(failed map[string]bool) bool {
	for _, q := range o.probed().types {
		for _, l := range q.lanes[q.front:] {
			if !failed[l.resource] {
				return true
			}
		}
	}
	return false
}

// Waiting returns the number of lanes that are ready to send.
func (o *order) Waiting() int { return o.fresh.len() + o.due.len() }

// Return puts an event back to be sent again. Its lane goes to the end of the
// queue.
func (o *order) Return(it *item) {
	if it.lane.parked {
		o.due.push(it.lane)
	} else {
		o.fresh.push(it.lane)
	}
}

// Settle marks an event as settled and unblocks the next one of its resource.
// drained reports that all loaded events of a resource are settled, but that the
// retries table may hold more.
func (o *order) Settle(it *item) (drained bool) {
	l := it.lane
	l.items[0] = nil
	l.items = l.items[1:]
	if l.parked {
		o.loaded--
	}
	switch {
	case !l.parked:
		o.window.settle(it)
		o.changes++
	case it.event.Sequence > o.window.read: // it will be read from the log again
		o.SettleBeyond(it.event.Sequence)
	}
	switch {
	case len(l.items) > 0:
		o.Return(l.items[0])
	default:
		delete(o.lanes, l.resource)
		return l.parked || l.before
	}
	return false
}

// Park drops an event and all those behind it from memory once they are in the
// retries table. Add reports later events of the resource as behind, so that they
// are parked as well.
func (o *order) Park(it *item) {
	for _, other := range it.lane.items {
		if it.lane.parked {
			o.loaded--
			continue
		}
		o.window.settle(other)
		o.changes++
	}
	delete(o.lanes, it.lane.resource)
	o.parked[hashOf(it.lane.resource)] = struct{}{}
}

// Unpark notes that a resource has no more rows in the retries table.
func (o *order) Unpark(resource string) { delete(o.parked, hashOf(resource)) }

// Settled reports whether an event of the log is settled. An event that was not
// read yet counts as unsettled: it must not be sent out of order.
func (o *order) Settled(e tidings.Event) bool {
	if e.Sequence > o.window.read {
		return false
	}
	l := o.lanes[e.Resource()]
	return l == nil || l.parked || e.Sequence < l.items[0].event.Sequence
}

// Beyond returns an item for a probe read from beyond the window, or nil if an
// older event of its resource may be unsettled.
func (o *order) Beyond(e tidings.Event) *item {
	resource := e.Resource()
	_, settled := slices.BinarySearch(o.ahead, e.Sequence)
	if e.Sequence <= o.window.read || settled || o.lanes[resource] != nil || o.parked.has(resource) {
		return nil
	}
	return &item{event: e, beyond: true}
}

// SettleBeyond settles an event beyond the window.
func (o *order) SettleBeyond(sequence int64) {
	if at, found := slices.BinarySearch(o.ahead, sequence); !found {
		o.ahead = slices.Insert(o.ahead, at, sequence)
		o.changes++
	}
}

// overtaken reports whether events have overtaken the one that holds the cursor
// since the last [order.Mark].
func (o *order) overtaken() bool {
	return o.changes != o.noted && (o.window.high > o.Cursor() || len(o.ahead) > 0)
}

// Mark returns what is settled above the cursor.
func (o *order) Mark(p eventlog.Partition) eventlog.Mark {
	o.noted = o.changes
	return eventlog.Mark{
		Index: p.Index, Of: max(p.Of, 1), Low: o.Cursor(), High: o.window.high, Open: o.window.open(),
		Ahead: slices.Clone(o.ahead),
	}
}

// Borrow lets a replay send the oldest event of a parked resource. It returns false
// if the event is already in flight.
func (o *order) Borrow(it *item) bool {
	resource := it.event.Resource()
	if o.lanes[resource] != nil {
		return false
	}
	it.lane = &lane{resource: resource, items: []*item{it}, parked: true}
	o.lanes[resource] = it.lane
	o.loaded++
	return true
}

// GiveBack reverts [order.Borrow]; the event stays parked.
func (o *order) GiveBack(it *item) {
	delete(o.lanes, it.lane.resource)
	o.loaded--
}

// Cursor returns the highest position at or below which everything is settled.
func (o *order) Cursor() int64 { return o.window.cursor() }

// Len returns the number of unsettled events read from the log.
func (o *order) Len() int { return o.window.len() }

// window holds the unsettled events read from the log. Filtered and merged events
// are not in it.
type window struct {
	items []*item // in log order; some may be settled
	gone  int     // number of settled items
	read  int64   // position up to which the log was read
	high  int64   // highest settled position
}

func (w *window) add(it *item) {
	w.items = append(w.items, it)
	w.read = max(w.read, it.event.Sequence)
}

func (w *window) settle(it *item) {
	it.settled = true
	w.gone++
	w.high = max(w.high, it.event.Sequence)
	n := 0
	for n < len(w.items) && w.items[n].settled {
		w.items[n] = nil
		n++
	}
	w.items, w.gone = w.items[n:], w.gone-n
	if w.gone > len(w.items)/2+64 { // settled items behind one that takes long
		w.items = slices.DeleteFunc(w.items, func(it *item) bool { return it.settled })
		w.gone = 0
	}
}

func (w *window) cursor() int64 {
	if len(w.items) == 0 {
		return w.read
	}
	return w.items[0].event.Sequence - 1
}

// open returns the unsettled positions up to high.
func (w *window) open() []int64 {
	open := make([]int64, 0, w.len())
	for _, it := range w.items {
		if !it.settled && it.event.Sequence < w.high {
			open = append(open, it.event.Sequence)
		}
	}
	return open
}

func (w *window) len() int { return len(w.items) - w.gone }

// rotation holds the lanes that are ready to send, in one queue per resource type.
// The types take turns, so that failing events of one type do not hold up the
// others.
type rotation struct {
	types []*typeQueue
	next  int
	size  int
}

type typeQueue struct {
	name  tidings.ResourceType
	lanes []*lane
	front int
}

func (r *rotation) len() int    { return r.size }
func (r *rotation) empty() bool { return r.size == 0 }

func (r *rotation) push(l *lane) {
	r.size++
	name := l.items[0].event.Type
	for _, q := range r.types {
		if q.name == name {
			q.lanes = append(q.lanes, l)
			return
		}
	}
	r.types = append(r.types, &typeQueue{name: name, lanes: []*lane{l}})
}

// turn returns the queue whose turn it is among those of the types that want
// accepts, or nil.
func (r *rotation) turn(want func(tidings.ResourceType) bool) *typeQueue {
	for i := range r.types {
		at := (r.next + 1 + i) % len(r.types)
		if q := r.types[at]; q.front < len(q.lanes) && want(q.name) {
			r.next = at
			return q
		}
	}
	return nil
}

// first removes and returns the lane that has waited longest, of the type whose
// turn it is among those that want accepts.
func (r *rotation) first(want func(tidings.ResourceType) bool) (*lane, bool) {
	q := r.turn(want)
	if q == nil {
		return nil, false
	}
	r.size--
	l := q.lanes[q.front]
	q.lanes[q.front] = nil
	if q.front++; q.front > 64 && q.front > len(q.lanes)/2 {
		q.lanes = append(q.lanes[:0], q.lanes[q.front:]...)
		q.front = 0
	}
	return l, true
}

// remove removes a lane. It returns false if the lane is not ready to send.
func (r *rotation) remove(l *lane) bool {
	for _, q := range r.types {
		if at := slices.Index(q.lanes[q.front:], l); at >= 0 {
			q.lanes = slices.Delete(q.lanes, q.front+at, q.front+at+1)
			r.size--
			return true
		}
	}
	return false
}

// newest removes and returns the most recently added lane that want accepts.
func (r *rotation) newest(want func(*lane) bool) (*lane, bool) {
	for i := range r.types {
		q := r.types[(r.next+1+i)%len(r.types)]
		for at := len(q.lanes) - 1; at >= q.front; at-- {
			if l := q.lanes[at]; want(l) {
				q.lanes = slices.Delete(q.lanes, at, at+1)
				r.size--
				r.next = (r.next + 1 + i) % len(r.types)
				return l, true
			}
		}
	}
	return nil, false
}

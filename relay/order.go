package relay

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// order decides which event may go next, so that one resource's events go one after
// another, and how far the cursor may move. It holds the events that were read from
// the log and are not settled, and those of parked resources that are due. It does
// no I/O and has no clock.
type order struct {
	coalesce tidings.Coalesce
	lanes    map[string]*lane
	fresh    rotation // lanes whose first event may go
	due      rotation // the same for parked ones
	loaded   int      // events of parked lanes
	parked   parkedSet
	window   window
	ahead    []int64 // positions beyond what was read that are settled, sorted
	dueTurn  bool    // the last one that went was fresh
	changes  int     // settlements, of which noted were told by Mark
	noted    int
	probes   int // how many went; they are picked in different ways in turn
}

// item is an event that is to be sent.
type item struct {
	event    tidings.Event
	lane     *lane
	trial    trial
	attempts int // spent before
	first    time.Time
	settled  bool
	beyond   bool          // it was read ahead of the window, as a probe
	replay   chan<- result // who wants to know; nil for a live event
	more     bool          // the replay has others to send
}

// lane is the events of one resource, the oldest first, which may be under way.
type lane struct {
	resource string
	items    []*item
	// parked says that these were read from the retries table, where later events of
	// the resource are, too.
	parked bool
}

// parkedSet is the resources with events in the retries table. A hash is all that is
// kept of each: there may be very many. Of a million parked resources and a million
// others, two have the same with a probability of one in ten million; then the other one
// waits, too, until another consumer takes over.
type parkedSet map[resourceHash]struct{}

// resourceHash is no number, for the sake of memory: a map would align it.
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
		window: window{read: after, high: after},
	}
}

// added says what became of an event that was read from the log.
type added int

const (
	queued     added = iota
	behind           // its resource is parked: it must be parked, too
	mergedInto       // another event tells of it
	replaced         // it tells of another one
	before           // it is settled already
)

// Add takes an event that was read from the log. Where it was merged, other is the
// one that it was merged with.
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
		case merged:
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

// passed notes that an event needs no place in the window.
func (o *order) passed(sequence int64) {
	o.window.high = max(o.window.high, sequence)
	o.changes++
}

// Passed notes that all up to a position was read from the log.
func (o *order) Passed(sequence int64) { o.window.read = max(o.window.read, sequence) }

// MergeParked returns which events of a parked resource are left, and those that others
// tell of, too, which need not wait any longer.
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
			default:
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

// AddDue takes the oldest event of a parked resource, which is due, with those
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

// merged is an event that another one tells of.
type merged struct{ gone, into tidings.Event }

// pick is how the next event is chosen.
type pick int

const (
	inTurn     pick = iota // fresh events and parked ones that are due
	freshFirst             // parked ones only where nothing else waits
)

// Next takes the event to send next, which may not be a probe.
func (o *order) Next(p pick) (*item, bool) {
	l, ok := (*lane)(nil), false
	if p == inTurn && o.dueTurn {
		l, ok = o.due.first()
	}
	if !ok {
		l, ok = o.fresh.first()
	}
	if !ok {
		l, ok = o.due.first()
	}
	if !ok {
		return nil, false
	}
	o.dueTurn = !l.parked
	return l.items[0], true
}

// Probe takes an event to try in an outage, the number of which is given: the one
// that has waited longest, and the newest one that was not tried in it, in turn.
// Those of the resources to avoid come last.
func (o *order) Probe(outage int64, avoid map[string]bool) (*item, bool) {
	from := o.probed()
	if o.probes++; o.probes%2 == 0 {
		if l, ok := from.newest(func(l *lane) bool { return !l.items[0].trial.triedIn(outage) }); ok {
			return l.items[0], true
		}
	}
	for range len(avoid) {
		l, ok := from.first()
		if !ok {
			return nil, false
		}
		if !avoid[l.resource] {
			return l.items[0], true
		}
		from.push(l)
	}
	if l, ok := from.first(); ok {
		return l.items[0], true
	}
	return nil, false
}

// probed are the lanes that probes are taken from.
func (o *order) probed() *rotation {
	if o.fresh.empty() {
		return &o.due
	}
	return &o.fresh
}

// Untried reports whether a probe could be of another resource than these.
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

// Waiting returns how many lanes could send at once.
func (o *order) Waiting() int { return o.fresh.len() + o.due.len() }

// Return puts an event back that is to be sent again; its lane goes behind the
// others.
func (o *order) Return(it *item) {
	if it.lane.parked {
		o.due.push(it.lane)
	} else {
		o.fresh.push(it.lane)
	}
}

// Settle notes that an event needs nothing more, and lets the next one of its
// resource go. drained says that those of a parked resource that were read are all
// settled, and that there may be more.
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
	case it.event.Sequence > o.window.read: // the log will yield it again
		o.SettleBeyond(it.event.Sequence)
	}
	switch {
	case len(l.items) > 0:
		o.Return(l.items[0])
	case l.parked:
		delete(o.lanes, l.resource)
		return true
	default:
		delete(o.lanes, l.resource)
	}
	return false
}

// Park takes an event and all behind it out of memory, once they are in the retries
// table: later ones of the resource are told to be parked, too.
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

// Unpark notes that a resource has no more events in the retries table.
func (o *order) Unpark(resource string) { delete(o.parked, hashOf(resource)) }

// Settled reports whether an event of the log is settled, or unknown because it was
// not read: such an event must not be sent out of turn.
func (o *order) Settled(e tidings.Event) bool {
	if e.Sequence > o.window.read {
		return false
	}
	l := o.lanes[e.Resource()]
	return l == nil || l.parked || e.Sequence < l.items[0].event.Sequence
}

// Beyond makes an item of an event that was read ahead of the window, as a probe; nil
// if an older event of its resource may not be settled.
func (o *order) Beyond(e tidings.Event) *item {
	resource := e.Resource()
	_, settled := slices.BinarySearch(o.ahead, e.Sequence)
	if e.Sequence <= o.window.read || settled || o.lanes[resource] != nil || o.parked.has(resource) {
		return nil
	}
	return &item{event: e, beyond: true}
}

// SettleBeyond settles an event ahead of the window.
func (o *order) SettleBeyond(sequence int64) {
	if at, found := slices.BinarySearch(o.ahead, sequence); !found {
		o.ahead = slices.Insert(o.ahead, at, sequence)
		o.changes++
	}
}

// overtaken reports whether anything overtook the event that holds the cursor, and
// [order.Mark] did not tell it yet.
func (o *order) overtaken() bool {
	return o.changes != o.noted && (o.window.high > o.Cursor() || len(o.ahead) > 0)
}

// Mark tells what is settled above the cursor.
func (o *order) Mark(p eventlog.Partition) eventlog.Mark {
	o.noted = o.changes
	return eventlog.Mark{
		Index: p.Index, Of: max(p.Of, 1), Low: o.Cursor(), High: o.window.high, Open: o.window.open(),
		Ahead: slices.Clone(o.ahead),
	}
}

// Borrow lets a replay send the oldest event of a parked resource; false if that is
// being sent already.
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

// GiveBack ends what [order.Borrow] began, with the event as parked as before.
func (o *order) GiveBack(it *item) {
	delete(o.lanes, it.lane.resource)
	o.loaded--
}

// Cursor is the highest position below which everything is settled.
func (o *order) Cursor() int64 { return o.window.cursor() }

// Len is how many events that were read from the log are not settled.
func (o *order) Len() int { return o.window.len() }

// window is the events read from the log that are not settled. Filtered and merged
// ones have no place in it.
type window struct {
	items []*item // in order of sequence; some may be settled
	gone  int     // how many of them are
	read  int64   // the position up to which the log was read
	high  int64   // the highest position that was settled
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
	if w.gone > len(w.items)/2+64 { // those behind an event that takes long
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

// open is the positions up to high that are not settled.
func (w *window) open() (open []int64) {
	for _, it := range w.items {
		if !it.settled && it.event.Sequence < w.high {
			open = append(open, it.event.Sequence)
		}
	}
	return open
}

func (w *window) len() int { return len(w.items) - w.gone }

// rotation is lanes that wait for their turn: a queue for each type of resource, and
// the types take turns, so that events of one type that fail do not hold up others.
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

// turn is the queue whose turn it is.
func (r *rotation) turn() *typeQueue {
	r.size--
	for {
		r.next = (r.next + 1) % len(r.types)
		if q := r.types[r.next]; q.front < len(q.lanes) {
			return q
		}
	}
}

// first takes the lane that has waited longest, of the type whose turn it is.
func (r *rotation) first() (*lane, bool) {
	if r.size == 0 {
		return nil, false
	}
	q := r.turn()
	l := q.lanes[q.front]
	q.lanes[q.front] = nil
	if q.front++; q.front > 64 && q.front > len(q.lanes)/2 {
		q.lanes = append(q.lanes[:0], q.lanes[q.front:]...)
		q.front = 0
	}
	return l, true
}

// newest takes the lane that came last, of those that are wanted.
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

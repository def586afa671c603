package relay

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// orderModel is what an order must guarantee, whatever happens to its events.
type orderModel struct {
	order    *order
	now      time.Time
	sequence int64
	flying   []*item
	table    map[string][]eventlog.Retry // parked events, by resource
	settled  map[int64]bool
	last     map[string]int64 // the last event of a resource that was sent first
}

const orderResources = 5

// step does what a byte says.
func (m *orderModel) step(b byte) error {
	what, n := b%8, int(b/8)
	m.now = m.now.Add(slowFailure)
	switch what {
	case 0, 1, 2:
		m.add(n % orderResources)
		return nil
	case 3:
		return m.send(pick(n % 2))
	case 4:
		it, ok := m.order.Probe(int64(n), nil)
		if !ok {
			return nil
		}
		return m.sent(it)
	}
	if len(m.flying) == 0 {
		return nil
	}
	at := n % len(m.flying)
	it := m.flying[at]
	m.flying = slices.Delete(m.flying, at, at+1)
	if what == 5 {
		m.order.slow.finished(it, tidings.Outcome{Verdict: tidings.Delivered}, m.now)
	} else {
		m.order.slow.finished(it, tidings.Outcome{Verdict: tidings.Failed}, m.now)
	}
	switch what {
	case 5:
		m.settle(it)
	case 6:
		m.order.Return(it)
	case 7:
		m.park(it)
	}
	return m.check()
}

func (m *orderModel) add(resource int) {
	m.sequence++
	e := tidings.Event{
		Sequence: m.sequence, Type: []tidings.ResourceType{"one", "other"}[resource%2], Action: tidings.Updated,
		ResourceID: fmt.Sprint(resource),
	}
	switch what, other := m.order.Add(e); what {
	case behind:
		m.table[e.Resource()] = append(m.table[e.Resource()], eventlog.Retry{Event: e})
		m.settled[e.Sequence] = true // from the cursor's point of view
	case mergedInto:
		m.settled[e.Sequence] = true
	case replaced:
		m.settled[other.Sequence] = true
	}
	m.order.Passed(e.Sequence)
}

func (m *orderModel) send(p pick) error {
	it, ok := m.order.Next(p, m.now)
	if !ok {
		return nil
	}
	return m.sent(it)
}

func (m *orderModel) sent(it *item) error {
	resource := it.event.Resource()
	for _, other := range m.flying {
		if other.event.Resource() == resource {
			return fmt.Errorf("two events of %s at once: %d and %d", resource, other.event.Sequence, it.event.Sequence)
		}
	}
	if it.event.Sequence < m.last[resource] {
		return fmt.Errorf("%d of %s was sent after %d", it.event.Sequence, resource, m.last[resource])
	}
	m.last[resource] = it.event.Sequence
	it.trial.began, it.trial.sent = true, m.now
	m.flying = append(m.flying, it)
	return nil
}

func (m *orderModel) settle(it *item) {
	resource := it.event.Resource()
	m.settled[it.event.Sequence] = true
	m.table[resource] = slices.DeleteFunc(m.table[resource],
		func(r eventlog.Retry) bool { return r.Event.Sequence == it.event.Sequence })
	if m.order.Settle(it) {
		m.load(resource)
	}
}

// load reads the parked events of a resource, in parts.
func (m *orderModel) load(resource string) {
	rows := m.table[resource]
	if len(rows) == 0 {
		m.order.Unpark(resource)
		return
	}
	left, merged := m.order.MergeParked(slices.Clone(rows[:min(len(rows), 3)]))
	for _, gone := range merged {
		m.table[resource] = slices.DeleteFunc(m.table[resource], func(r eventlog.Retry) bool {
			return r.Event.Sequence == gone.gone.Sequence
		})
	}
	m.order.AddDue(left)
}

func (m *orderModel) park(it *item) {
	resource := it.event.Resource()
	if !it.lane.parked {
		for _, other := range it.lane.items {
			m.table[resource] = append(m.table[resource], eventlog.Retry{Event: other.event})
			m.settled[other.event.Sequence] = true
		}
	}
	m.order.Park(it)
	m.load(resource) // it is due again immediately
}

// check compares the cursor and the mark with what is settled.
func (m *orderModel) check() error {
	cursor := m.order.Cursor()
	marks := eventlog.Marks{m.order.Mark(eventlog.Partition{Of: 1})}
	for s := int64(1); s <= m.sequence; s++ {
		switch e := (tidings.Event{Sequence: s}); {
		case s <= cursor && !m.settled[s]:
			return fmt.Errorf("the cursor is at %d, but %d is not settled", cursor, s)
		case s > cursor && marks.Settled(e) && !m.settled[s]:
			return fmt.Errorf("the mark %+v settles %d, which is not", marks[0], s)
		case s > cursor && s <= marks[0].High && m.settled[s] && !marks.Settled(e):
			return fmt.Errorf("the mark %+v forgets %d", marks[0], s)
		}
	}
	return nil
}

func checkOrder(steps []byte, c tidings.Coalesce) error {
	m := &orderModel{
		order: newOrder(0, c), table: make(map[string][]eventlog.Retry), settled: make(map[int64]bool),
		last: make(map[string]int64),
	}
	for _, b := range steps {
		if err := m.step(b); err != nil {
			return err
		}
	}
	for m.order.Waiting() > 0 || len(m.flying) > 0 { // everything succeeds from now on
		for len(m.flying) > 0 {
			it := m.flying[0]
			m.flying = m.flying[1:]
			m.settle(it)
		}
		if err := m.send(inTurn); err != nil {
			return err
		}
	}
	if cursor := m.order.Cursor(); cursor != m.sequence {
		return fmt.Errorf("the cursor ends at %d of %d", cursor, m.sequence)
	}
	if len(m.order.parked)+len(m.order.lanes)+m.order.loaded != 0 {
		return fmt.Errorf("remaining: %d parked resources, %d lanes, %d parked events", len(m.order.parked),
			len(m.order.lanes), m.order.loaded)
	}
	return m.check()
}

func TestOrderKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "steps")
		mode := rapid.SampledFrom([]tidings.Coalesce{
			tidings.CoalesceOff, tidings.CoalesceUpdates,
			tidings.CoalesceLatest,
		}).Draw(rt, "coalesce")
		if err := checkOrder(steps, mode); err != nil {
			rt.Fatal(err)
		}
	})
}

func FuzzOrder(f *testing.F) {
	f.Add([]byte{0, 8, 16, 3, 3, 7, 0, 5, 6, 3, 4, 5}, true)
	f.Fuzz(func(t *testing.T, steps []byte, merges bool) {
		mode := tidings.CoalesceOff
		steps = steps[:min(len(steps), 500)] // the check is quadratic
		if merges {
			mode = tidings.CoalesceUpdates
		}
		if err := checkOrder(steps, mode); err != nil {
			t.Error(err)
		}
	})
}

// Events ahead of the window are settled when they are read.
func TestOrderBeyondTheWindow(t *testing.T) {
	o := newOrder(0, tidings.CoalesceOff)
	e := func(sequence int64, id string) tidings.Event {
		return tidings.Event{Sequence: sequence, Type: "one", Action: tidings.Updated, ResourceID: id}
	}
	o.Add(e(1, "a"))
	if o.Beyond(e(5, "a")) != nil || o.Beyond(e(1, "b")) != nil {
		t.Error("an event was allowed ahead of an older one of its resource, or within what was read")
	}
	if o.Beyond(e(4, "b")) == nil {
		t.Fatal("an event of another resource was not allowed ahead")
	}
	o.SettleBeyond(4)
	mark := eventlog.Marks{o.Mark(eventlog.Partition{Of: 1})}
	for sequence, want := range map[int64]bool{1: false, 2: false, 4: true, 5: false} {
		if got := mark.Settled(e(sequence, "b")); got != want {
			t.Errorf("%d settled: %v, want %v", sequence, got, want)
		}
	}
	if what, _ := o.Add(e(4, "b")); what != before {
		t.Errorf("it was read: %v", what)
	}
	if o.Beyond(e(4, "b")) != nil {
		t.Error("it was allowed again")
	}
}

// Marks include events that never had a place in the window, because they waited
// behind a parked one or were merged: they must not be sent again after a crash.
func TestMarksTellOfParkedAndMerged(t *testing.T) {
	event := func(sequence int64, resource string, action tidings.Action) tidings.Event {
		return tidings.Event{Sequence: sequence, Type: "context", ResourceID: resource, Action: action}
	}
	o := newOrder(0, tidings.CoalesceLatest)
	o.Add(event(1, "slow", tidings.Updated))
	o.Add(event(2, "bad", tidings.Updated))
	slow, _ := o.Next(inTurn, time.Time{})
	bad, _ := o.Next(inTurn, time.Time{})
	slow.trial.began, bad.trial.began = true, true
	o.Park(bad)
	behind := event(3, "bad", tidings.Updated)
	o.Add(behind)
	o.Add(event(4, "new", tidings.Created))
	gone := event(5, "new", tidings.Updated) // created absorbs it
	if what, _ := o.Add(gone); what != mergedInto {
		t.Fatalf("added: %v", what)
	}
	mark := eventlog.Marks{o.Mark(eventlog.Partition{})}
	for _, e := range []tidings.Event{bad.event, behind, gone} {
		if !mark.Settled(e) {
			t.Errorf("position %d is not settled: %+v", e.Sequence, mark)
		}
	}
	if mark.Settled(slow.event) || mark.Settled(event(4, "new", tidings.Created)) ||
		mark.Settled(event(6, "new", tidings.Updated)) {
		t.Errorf("settled: %+v", mark)
	}
}

// A parked event that was delivered before it is read from the log once more, because its
// owner stopped between parking it and saving its cursor, is not sent again.
func TestParkedEventThatTheLogYieldsAgain(t *testing.T) {
	o := newOrder(0, "")
	e := tidings.Event{Sequence: 7, Type: "context", ResourceID: "a", Action: tidings.Updated}
	o.AddDue([]eventlog.Retry{{Endpoint: "a", Event: e, Attempts: 1}})
	it, ok := o.Next(inTurn, time.Time{})
	if !ok || !o.Settle(it) {
		t.Fatalf("next: %v, %v", it, ok)
	}
	o.Unpark(e.Resource())
	if !(eventlog.Marks{o.Mark(eventlog.Partition{})}).Settled(e) {
		t.Error("the mark does not include it")
	}
	if what, _ := o.Add(e); what != before {
		t.Errorf("added: %v, want before", what)
	}
}

package outbox

import (
	"slices"
	"sync/atomic"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

// Removed is how many parked events and dead letters this process removed without
// their being delivered.
type Removed struct {
	// Endpoints are those of endpoints that were removed, Expired the dead letters past
	// their retention, Discarded those that [Outbox.Discard] removed.
	Endpoints, Expired, Discarded int64
}

// Removed returns how many parked events this process has removed so far.
func (o *Outbox) Removed() Removed {
	return Removed{o.removed.endpoints.Load(), o.removed.expired.Load(), o.removed.discarded.Load()}
}

// removed counts what [Removed] has.
type removed struct{ endpoints, expired, discarded atomic.Int64 }

// Observe has an observer told of what happens to events from now on, besides the one
// in the options.
func (o *Outbox) Observe(observer relay.Observer) { o.observers.add(observer) }

// observers are told one after another.
type observers struct {
	all atomic.Pointer[[]relay.Observer]
}

func (o *observers) add(observer relay.Observer) {
	for {
		before := o.all.Load()
		var all []relay.Observer
		if before != nil {
			all = slices.Clone(*before)
		}
		all = append(all, observer)
		if o.all.CompareAndSwap(before, &all) {
			return
		}
	}
}

func (o *observers) tell(do func(relay.Observer)) {
	if all := o.all.Load(); all != nil {
		for _, observer := range *all {
			do(observer)
		}
	}
}

// Attempted implements [relay.Observer].
func (o *observers) Attempted(endpoint string, a tidings.Attempt, out tidings.Outcome) {
	o.tell(func(one relay.Observer) { one.Attempted(endpoint, a, out) })
}

// Merged implements [relay.Observer].
func (o *observers) Merged(endpoint string, gone, into tidings.Event) {
	o.tell(func(one relay.Observer) { one.Merged(endpoint, gone, into) })
}

// Filtered implements [relay.Observer].
func (o *observers) Filtered(endpoint string, e tidings.Event) {
	o.tell(func(one relay.Observer) { one.Filtered(endpoint, e) })
}

// Missed implements [relay.Observer].
func (o *observers) Missed(g eventlog.Gap) {
	o.tell(func(one relay.Observer) { one.Missed(g) })
}

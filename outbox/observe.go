package outbox

import (
	"slices"
	"sync/atomic"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

// Removed counts the parked events and dead letters that this process removed
// undelivered.
type Removed struct {
	// Endpoints counts those of removed endpoints, Expired the dead letters past
	// their retention, and Discarded the events removed by [Outbox.Discard].
	Endpoints, Expired, Discarded int64
}

// Removed returns how many parked events this process has removed so far.
func (o *Outbox) Removed() Removed {
	return Removed{o.removed.endpoints.Load(), o.removed.expired.Load(), o.removed.discarded.Load()}
}

// removed holds the counters for [Removed].
type removed struct{ endpoints, expired, discarded atomic.Int64 }

// Observe adds an observer that is notified of events from now on, in addition to
// the one in the options.
func (o *Outbox) Observe(observer relay.Observer) { o.observers.add(observer) }

// observers notifies its observers one after another.
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

func (o *observers) notify(do func(relay.Observer)) {
	if all := o.all.Load(); all != nil {
		for _, observer := range *all {
			do(observer)
		}
	}
}

// Attempted implements [relay.Observer].
func (o *observers) Attempted(endpoint string, a tidings.Attempt, out tidings.Outcome) {
	o.notify(func(one relay.Observer) { one.Attempted(endpoint, a, out) })
}

// Merged implements [relay.Observer].
func (o *observers) Merged(endpoint string, gone, into tidings.Event) {
	o.notify(func(one relay.Observer) { one.Merged(endpoint, gone, into) })
}

// Filtered implements [relay.Observer].
func (o *observers) Filtered(endpoint string, e tidings.Event) {
	o.notify(func(one relay.Observer) { one.Filtered(endpoint, e) })
}

// Missed implements [relay.Observer].
func (o *observers) Missed(g eventlog.Gap) {
	o.notify(func(one relay.Observer) { one.Missed(g) })
}

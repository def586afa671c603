package relay

import (
	"time"

	"github.com/tidings-dev/tidings"
)

// slowFailure is how long a request must take for its failure to be slow.
const slowFailure = time.Second

// slowTypes tells which types of events fail slowly, such as by a timeout. They give
// way to the others: these do not wait until all of them have failed.
type slowTypes map[tidings.ResourceType]*slowType

type slowType struct {
	slow   bool
	trying *item     // the event sent in its turn that is in flight while the type is slow
	until  time.Time // until when it gives way: for as long as its last request took
	fast   time.Time // when a request that was sent in its turn last succeeded or failed fast
}

// givesWay reports whether events of other types should be sent first.
func (s slowTypes) givesWay(t tidings.ResourceType, now time.Time) bool {
	this := s[t]
	return this != nil && this.slow && (this.trying != nil || now.Before(this.until))
}

// sent notes that an event is sent, and whether before older ones of its type.
func (s slowTypes) sent(it *item, early bool) *item {
	it.early = early
	if this := s[it.event.Type]; this != nil && this.slow && !early {
		this.trying = it
	}
	return it
}

// finished records the outcome of a request.
func (s slowTypes) finished(it *item, o tidings.Outcome, now time.Time) {
	this := s[it.event.Type]
	if this == nil {
		this = new(slowType)
		s[it.event.Type] = this
	}
	if this.trying == it {
		this.trying = nil
	}
	took := now.Sub(it.trial.sent)
	switch {
	case o.Verdict == tidings.Interrupted, neverArrived(o):
	case o.Verdict != tidings.Delivered && took >= slowFailure:
		if !this.fast.After(it.trial.sent) {
			this.slow, this.until = true, now.Add(took)
		}
	case !it.early && !it.beyond:
		this.slow, this.fast = false, now
	}
}

// AllGiveWay reports whether all waiting events are of types that give way.
func (o *order) AllGiveWay(now time.Time) bool {
	for _, r := range []*rotation{&o.fresh, &o.due} {
		for _, q := range r.types {
			if q.front < len(q.lanes) && !o.slow.givesWay(q.name, now) {
				return false
			}
		}
	}
	return o.Waiting() > 0
}

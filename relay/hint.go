package relay

import (
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
)

// hint is a receiver's request (Retry-After) to send it nothing for a while. It holds for
// all partitions of an endpoint in this process, and is saved with each of them.
type hint struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// hinted is the last hint of an endpoint. All consumers of the endpoint share it.
type hinted struct{ last atomic.Pointer[hint] }

// urgentHint is how much a hint has to add to the last one to be saved at once.
const urgentHint = time.Second

// extend notes a hint, unless the last one goes as far, and reports whether it has to be
// saved at once.
func (h *hinted) extend(next hint) (urgent bool) {
	for {
		old := h.last.Load()
		if old != nil && !next.Until.After(old.Until) {
			return false
		}
		if h.last.CompareAndSwap(old, &next) {
			return old == nil || next.Until.Sub(old.Until) > urgentHint
		}
	}
}

// at returns the current hint; nil if there is none.
func (h *hinted) at(now time.Time) *hint {
	if last := h.last.Load(); last != nil && last.Until.After(now) {
		return last
	}
	return nil
}

// clear forgets the hint.
func (h *hinted) clear() { h.last.Store(nil) }

// heed notes what the receiver asks for in its answer.
func (c *consumer) heed(o tidings.Outcome, now time.Time) {
	if o.RetryAfter <= 0 || c.health.state == Disabled {
		return
	}
	until := now.Add(min(o.RetryAfter, longestWait))
	if c.hinted.extend(hint{until, o.Reason}) && o.RetryAfter > urgentHint {
		notify(c.relay.moved)
		notify(c.relay.urgent)
	}
}

// limit returns how many requests may be in flight now.
func (c *consumer) limit(now time.Time, untried bool) int {
	if h := c.hinted.at(now); h != nil {
		c.health.wait(*h, now)
		return 0
	}
	return c.health.limit(now, untried)
}

// wait follows a hint, which may have been given to another partition. It does not end an
// outage.
func (h *health) wait(asked hint, now time.Time) {
	switch h.state {
	case Disabled:
		return
	case Healthy, Ramping:
		h.resume = asked.Until
		h.enter(Throttled, asked.Reason, now)
	case Down, Probing, Throttled:
		if asked.Until.After(h.resume) {
			h.resume = asked.Until
		}
	}
}

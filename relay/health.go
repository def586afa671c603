package relay

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
)

// State is how an endpoint is doing.
type State string

// The states of an endpoint.
//
//	healthy ──failures──► down ──pause over──► probing ──failure──► down
//	   ▲                                          │ success
//	   └──────── full concurrency ──── ramping ◄──┘
//
// Throttled is a pause that the receiver asked for; it ends in ramping. Disabled
// ends when the operator resumes, enables or changes the endpoint.
const (
	Healthy   State = "healthy"
	Down      State = "down"
	Probing   State = "probing"
	Ramping   State = "ramping"
	Throttled State = "throttled"
	Disabled  State = "disabled"
)

const (
	// An endpoint is down after this many failures in a row that no success of
	// another resource pinned on one event.
	downFailures = 5
	// Fewer failed resources than this say little about the others: an event of
	// one that has not failed yet is tried at once.
	fewResources = 3

	firstProbe   = time.Second
	slowestProbe = time.Minute
	// firstPause is that of a receiver that asks for a pause without saying how
	// long.
	firstPause  = 250 * time.Millisecond
	longestWait = time.Hour
	// An event that is refused for load so often, although others get through, is
	// at fault itself: refusals for load hit any event.
	refusalsOfOne = 3
)

// fault says whose fault a failure is.
type fault int

const (
	nobodys    fault = iota // it was delivered
	endpoints               // the endpoint's: the event spends no attempt
	theEvents               // the event's: it is parked
	inDoubt                 // whose it is turns out with the next outcome of another resource
	undeclared              // the attempt did not count: it was interrupted
)

// health decides whose fault a failure is, and when and how many requests may go
// out. It has one rule: a failure is the endpoint's while nothing succeeds, and the
// event's once events of other resources have succeeded since. It holds no clock
// and does no I/O: every input is an argument.
type health struct {
	pace
	state  State
	reason string
	detail string // of the failure that began or prolonged the outage; may be empty
	since  time.Time
	resume time.Time // when a pause ends
	pause  time.Duration

	outages int64 // how many there were; a request sent before the last tells nothing
	// Successes are numbered, so that one can ask for those since another.
	wins, winsOfOthers int64 // the last one, and the last of a resource other than the winner
	winner             string
	wonAt              time.Time

	// Failures since the last success that may be the endpoint's.
	failures int
	failed   map[string]bool // their resources, fewResources at most
	kinds    kinds
	// troubled is when the events that may have been parked for the outage began to
	// fail: after the last success before it.
	troubled time.Time
}

// trial is what an event has been through, as far as it says whose fault the next
// failure is.
type trial struct {
	began    bool
	mark     int64 // the number of successes when the first request went out
	outage   int64 // the number of outages when the last request went out
	sent     time.Time
	kind     string // the name of the event
	refusals int    // for load, each time with successes of others since
	broke    bool   // its connection broke once, which was forgiven
	parked   bool
}

// triedIn reports whether a request went out in an outage.
func (t *trial) triedIn(outage int64) bool { return t.began && t.outage == outage }

func newHealth(p pace, now time.Time) *health {
	return &health{pace: p, state: Healthy, since: now, failed: make(map[string]bool), kinds: make(kinds)}
}

// rest notes that nothing is left to ramp up for.
func (h *health) rest(now time.Time) {
	if h.state == Ramping && h.failures == 0 {
		h.enter(Healthy, "", now)
	}
}

// disable stops all sending.
func (h *health) disable(reason string, now time.Time) { h.enter(Disabled, reason, now) }

// enable ends that.
func (h *health) enable(now time.Time) {
	h.pause = 0
	h.forgive()
	h.enter(Ramping, "", now)
	h.restart()
}

// limit returns how many requests may be under way now. untried says whether an
// event waits whose resource has not failed since the last success.
func (h *health) limit(now time.Time, untried bool) int {
	switch h.state {
	case Healthy, Ramping:
		return h.concurrency()
	case Down, Probing:
		if !now.Before(h.resume) || (untried && len(h.failed) < fewResources) {
			h.enter(Probing, h.reason, now)
			return 1
		}
	case Throttled:
		if !now.Before(h.resume) {
			h.enter(Ramping, h.reason, now)
			return h.concurrency()
		}
	}
	return 0
}

// wake returns when limit will grow by itself; false if it will not.
func (h *health) wake() (time.Time, bool) {
	return h.resume, h.state == Down || h.state == Probing || h.state == Throttled
}

// send notes that a request for an event goes out.
func (h *health) send(t *trial, now time.Time) {
	if !t.began {
		t.began, t.mark = true, h.wins
	}
	t.outage, t.sent = h.outages, now
	h.take(now)
}

// observe takes the outcome of a request for an event of a resource, and says
// whose fault a failure is. quiet says that no other event may be sent now.
func (h *health) observe(o tidings.Outcome, resource string, t *trial, quiet bool, now time.Time) fault {
	late := t.outage != h.outages
	if o.Verdict == tidings.Interrupted {
		return undeclared
	}
	if o.Verdict == tidings.Delivered {
		if !late && h.state != Disabled {
			h.succeed(o, resource, t, now)
		}
		return nobodys
	}
	if h.state == Disabled || late {
		return endpoints
	}
	if o.Verdict == tidings.Gone {
		h.disable(o.Reason, now)
		return endpoints
	}
	if h.state == Down || h.state == Probing {
		h.fail(o, resource, now)
		return endpoints
	}
	refused := o.Verdict == tidings.Throttled && o.RetryAfter == 0
	stubborn := refused && h.kinds.refuse(t.kind, &h.pace)
	if !stubborn {
		overloaded := h.pace.failed(o, t.sent, now)
		if o.Verdict == tidings.Throttled {
			return h.throttle(o, resource, t, overloaded || quiet, now)
		}
	}
	if h.blames(resource, t) && !onTheWay(o) {
		if !stubborn && h.forgives(o, t) {
			return endpoints
		}
		return theEvents
	}
	return h.doubt(o, resource, quiet, now)
}

// onTheWay reports whether the request never reached the receiver, which no event
// can be blamed for. A connection that breaks may be: an event can crash its receiver.
func onTheWay(o tidings.Outcome) bool {
	return (o.Verdict == tidings.Unreachable && o.Reason != tidings.ReasonReset) || o.Verdict == tidings.Blocked
}

// blames reports whether the failure of an event is its own: events of other
// resources have succeeded since its first request. For an event that was parked,
// which others succeeded long ago, nothing else may be failing now.
func (h *health) blames(resource string, t *trial) bool {
	last := h.wins
	if h.winner == resource {
		last = h.winsOfOthers
	}
	if t.parked {
		return last > 0 && h.failures == 0
	}
	return last > t.mark
}

// forgives reports whether an event that is to blame is sent once more at once: a
// connection that breaks hits any event, and so does a refusal for load, which
// [health.throttle] counts.
func (h *health) forgives(o tidings.Outcome, t *trial) bool {
	if o.Verdict == tidings.Throttled {
		return true
	}
	if o.Reason != tidings.ReasonReset || t.broke {
		return false
	}
	t.broke, t.mark = true, h.wins
	return true
}

// doubt counts a failure that may be the endpoint's.
func (h *health) doubt(o tidings.Outcome, resource string, quiet bool, now time.Time) fault {
	if quiet || onTheWay(o) || h.failures+1 >= downFailures {
		h.fail(o, resource, now)
		return endpoints
	}
	h.note(resource)
	return inDoubt
}

// note counts a failure of a resource.
func (h *health) note(resource string) {
	h.failures++
	if len(h.failed) < fewResources {
		h.failed[resource] = true
	}
}

func (h *health) succeed(o tidings.Outcome, resource string, t *trial, now time.Time) {
	h.wins++
	if h.winner != resource {
		h.winsOfOthers, h.winner = h.wins-1, resource
	}
	h.wonAt = now
	h.kinds.succeed(t.kind)
	h.succeeded(o, t.sent, now)
	h.forgive()
	h.pause = 0
	switch h.state {
	case Down, Probing:
		h.enter(Ramping, h.reason, now)
	case Ramping:
		if h.full() {
			h.enter(Healthy, "", now)
		}
	}
}

// forgive forgets the failures in a row.
func (h *health) forgive() {
	h.failures = 0
	clear(h.failed)
}

// fail begins or prolongs an outage. One that only a few events have met so far is
// not called one yet: the endpoint is probed.
func (h *health) fail(o tidings.Outcome, resource string, now time.Time) {
	if h.state != Down && h.state != Probing {
		h.outages++
		h.troubled = h.wonAt
		h.restart()
	}
	h.note(resource)
	h.pause = min(max(2*h.pause, firstProbe), slowestProbe)
	h.resume = now.Add(half(h.pause))
	state := Down
	if h.failures < downFailures && !onTheWay(o) {
		state = Probing
	}
	h.detail = o.Detail
	h.enter(state, downReason(o), now)
}

// downReason says why an endpoint is down.
func downReason(o tidings.Outcome) string {
	switch o.Verdict {
	case tidings.Refused, tidings.Rejected, tidings.Unauthorized:
		return RefusesPrefix + o.Reason
	}
	return o.Reason
}

// RefusesPrefix begins the reason of an endpoint that answers, but takes nothing:
// "refuses: http_404".
const RefusesPrefix = "refuses: "

// throttle pauses as the receiver asked: for as long as it said, or, if it refuses more
// than a few, for a short time, which grows while nothing succeeds.
func (h *health) throttle(o tidings.Outcome, resource string, t *trial, pause bool, now time.Time) fault {
	if h.blames(resource, t) {
		if t.refusals++; t.refusals >= refusalsOfOne {
			return theEvents
		}
		t.mark = h.wins
	}
	if o.RetryAfter == 0 && !pause && h.state != Throttled {
		return inDoubt
	}
	until := now.Add(min(o.RetryAfter, longestWait))
	if o.RetryAfter == 0 {
		if h.state == Throttled {
			return endpoints // it was sent before the pause
		}
		h.pause = min(max(2*h.pause, firstPause), slowestProbe)
		until = now.Add(half(h.pause))
	}
	if h.state != Throttled || until.After(h.resume) {
		h.resume = until
	}
	if pause {
		h.note(resource)
	}
	h.enter(Throttled, o.Reason, now)
	return endpoints
}

// seeks reports whether what is sent next is a probe: nothing succeeds, and it may be that
// only the events that were sent so far are refused.
func (h *health) seeks() bool { return h.state == Probing || h.state == Ramping && h.pause > 0 }

// half is a random pause of at least half of d, so that probes never keep step
// with a receiver's own period.
func half(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// enter changes the state; probing is a part of the outage, whose beginning
// stays.
func (h *health) enter(s State, reason string, now time.Time) {
	outage := s == Probing || (s == Down && h.state == Probing)
	if s != h.state && !outage {
		h.since = now
	}
	h.state, h.reason = s, reason
}

// refuses returns the reason of a refusal that an endpoint is down for.
func refuses(reason string) (string, bool) { return strings.CutPrefix(reason, RefusesPrefix) }

// recall takes up what was known of the endpoint when it was delivered to last: a
// pause that the receiver asked for goes on.
func (h *health) recall(last Status, now time.Time) {
	if last.State == Throttled && last.Until.After(now) {
		h.resume = last.Until
		h.enter(Throttled, last.Reason, now)
		h.since = last.Since
	}
}

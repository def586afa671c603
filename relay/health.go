package relay

import (
	"time"

	"github.com/tidings-dev/tidings"
)

// State is how an endpoint is doing.
type State string

// The states of an endpoint.
//
//	healthy ──failures──► down ──pause over──► probing ──failure──► down
//	   ▲                                          │ success
//	   └────── max_in_flight reached ── ramping ◄─┘
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
	// An endpoint is down after this many failures in a row, over this many
	// resources: fewer may be the fault of one event.
	downFailures  = 5
	downResources = 3

	firstProbe  = time.Second
	slowestTry  = time.Minute
	longestWait = time.Hour
)

// health decides how many requests may be under way to an endpoint. It holds no
// clock and does no I/O: every input is an argument.
type health struct {
	state  State
	reason string
	detail string // of the failure that began or prolonged the outage; may be empty
	since  time.Time
	max    int
	allow  int       // requests at once while ramping
	streak int       // successes since allow last grew
	resume time.Time // when a pause ends
	pause  time.Duration

	failures  int
	resources map[string]bool // that failed since the last success
	failed    string          // the resource that failed last

	// Requests on whose connection no answer came because it broke, by resource:
	// how many deliveries there were by then.
	broke     map[string]int64
	broken    bool // one did since the last answer
	delivered int64
}

// brokeLimit bounds the resources whose connections broke.
const brokeLimit = 1000

func newHealth(limit int, now time.Time) *health {
	return &health{state: Healthy, since: now, max: limit, resources: make(map[string]bool), broke: make(map[string]int64)}
}

// disable stops all sending.
func (h *health) disable(reason string, now time.Time) { h.enter(Disabled, reason, now) }

// enable ends that.
func (h *health) enable(now time.Time) {
	h.pause, h.failures, h.broken = 0, 0, false
	clear(h.resources)
	h.ramp(now)
	h.reason = ""
}

// limit returns how many requests may be under way now.
func (h *health) limit(now time.Time) int {
	switch h.state {
	case Healthy:
		return h.max
	case Ramping:
		return h.allow
	case Probing:
		return 1
	case Down:
		if !now.Before(h.resume) {
			h.enter(Probing, h.reason, now)
			return 1
		}
	case Throttled:
		if !now.Before(h.resume) {
			h.ramp(now)
			return h.allow
		}
	}
	return 0
}

// wake returns when limit will grow by itself; false if it will not.
func (h *health) wake() (time.Time, bool) {
	return h.resume, h.state == Down || h.state == Throttled
}

// observe takes the outcome of an attempt for a resource and reports whether it
// uses up an attempt of the event: only where the endpoint is otherwise well.
func (h *health) observe(o tidings.Outcome, resource string, now time.Time) (spent bool) {
	well := h.state == Healthy || h.state == Ramping
	if h.failed = resource; o.Verdict == tidings.Delivered {
		h.failed = ""
	}
	switch {
	case h.state == Disabled: // what was sent before
	case o.Verdict == tidings.Unreachable && o.Reason == tidings.ReasonReset && well:
		return h.connectionBroke(o, resource, now)
	default:
		h.take(o, resource, now)
	}
	switch o.Verdict {
	case tidings.Delivered, tidings.Refused, tidings.Rejected:
		return true
	case tidings.Failed:
		return h.state == Healthy || h.state == Ramping
	default:
		return false
	}
}

func (h *health) take(o tidings.Outcome, resource string, now time.Time) {
	switch o.Verdict {
	case tidings.Delivered:
		h.delivered++
		delete(h.broke, resource)
		h.answered(now)
	case tidings.Refused, tidings.Rejected:
		h.answered(now)
	case tidings.Gone:
		h.disable(o.Reason, now)
	case tidings.Throttled:
		h.throttle(o, now)
	case tidings.Unauthorized, tidings.Unreachable, tidings.Blocked:
		h.fail(o, now)
	case tidings.Failed:
		h.failures++
		h.resources[resource] = true
		overall := h.failures >= downFailures && len(h.resources) >= downResources
		if overall || h.state == Probing {
			h.fail(o, now)
		} else {
			h.slowDown()
		}
	}
}

// connectionBroke takes a request whose connection broke before any answer. It is
// tried again at once; if the next one breaks as well, the endpoint is down. But
// an event whose connection breaks again, while those of other resources get
// through, crashes the receiver: that uses up an attempt.
func (h *health) connectionBroke(o tidings.Outcome, resource string, now time.Time) (spent bool) {
	before, again := h.broke[resource]
	if len(h.broke) >= brokeLimit {
		clear(h.broke)
	}
	h.broke[resource] = h.delivered
	switch {
	case again && h.delivered > before:
		return true
	case h.broken:
		h.fail(o, now)
	default:
		h.broken = true
		h.slowDown()
	}
	return false
}

// slowDown halves the requests at once of an endpoint that is ramping up.
func (h *health) slowDown() {
	if h.state == Ramping {
		h.allow, h.streak = max(1, h.allow/2), 0
	}
}

// answered notes that the endpoint gave an answer of its own.
func (h *health) answered(now time.Time) {
	h.failures, h.broken = 0, false
	clear(h.resources)
	switch h.state {
	case Down, Probing:
		h.ramp(now)
	case Ramping:
		if h.streak++; h.streak < h.allow {
			return
		}
		h.streak = 0
		if h.allow *= 2; h.allow >= h.max {
			h.pause = 0
			h.enter(Healthy, "", now)
		}
	}
}

func (h *health) ramp(now time.Time) {
	h.allow, h.streak = 1, 0
	h.enter(Ramping, h.reason, now)
}

// fail begins or prolongs an outage. Results that come in while it lasts, of
// requests sent before it, change nothing.
func (h *health) fail(o tidings.Outcome, now time.Time) {
	if h.state == Down {
		return
	}
	h.grow()
	h.resume = now.Add(jitter(h.pause))
	h.detail = o.Detail
	h.enter(Down, o.Reason, now)
}

func (h *health) throttle(o tidings.Outcome, now time.Time) {
	if h.state != Throttled {
		h.grow()
	}
	until := now.Add(min(max(jitter(h.pause), o.RetryAfter), longestWait))
	if h.state != Throttled || until.After(h.resume) {
		h.resume = until
	}
	h.enter(Throttled, o.Reason, now)
}

func (h *health) grow() { h.pause = min(max(2*h.pause, firstProbe), slowestTry) }

// enter changes the state; probing is a part of the outage, whose beginning
// stays.
func (h *health) enter(s State, reason string, now time.Time) {
	outage := s == Probing || (s == Down && h.state == Probing)
	if s != h.state && !outage {
		h.since = now
	}
	h.state, h.reason = s, reason
}

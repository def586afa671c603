package relay

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
)

// State is the state of an endpoint.
type State string

// The states of an endpoint.
//
//	healthy ──failures──► down ──pause over──► probing ──failure──► down
//	   ▲                                          │ success
//	   └──────── full concurrency ──── ramping ◄──┘
//
// Throttled is a pause requested by the receiver; it ends in ramping. Disabled ends
// when the operator resumes, enables or changes the endpoint.
const (
	Healthy   State = "healthy"
	Down      State = "down"
	Probing   State = "probing"
	Ramping   State = "ramping"
	Throttled State = "throttled"
	Disabled  State = "disabled"
)

const (
	// An endpoint is down after this many consecutive failures that no success of
	// another resource has attributed to an event.
	downFailures = 5
	// With fewer failed resources than this, an event of a resource that has not
	// failed is tried immediately: the failures may be its fault alone.
	fewResources = 3

	// mostTrouble is how long an endpoint may fail some events before it fails all.
	mostTrouble = time.Minute

	firstProbe   = time.Second
	slowestProbe = time.Minute
	// firstPause is the first pause if the receiver asked for one without a
	// duration.
	firstPause  = 250 * time.Millisecond
	longestWait = time.Hour
	// An event refused for load this often while others get through is itself at
	// fault: real overload affects all events. If many requests are refused, it may be
	// chance, and takes more.
	refusalsOfOne, refusalsByChance = 3, 8
)

// fault says what a failure is attributed to.
type fault int

const (
	faultNone      fault = iota // delivered, no failure
	faultEndpoint               // the endpoint: no attempt is used up
	faultEvent                  // the event: it is parked
	faultUnclear                // decided by the next outcome of another resource
	faultUncounted              // the attempt was interrupted and does not count
)

// health decides whose fault a failure is, and when and how many requests may go
// out. It has one rule: a failure is the endpoint's while nothing succeeds, and the
// event's once events of other resources have succeeded since. It holds no clock
// and does no I/O: every input is an argument.
type health struct {
	pace
	state  State
	reason string
	detail string // detail of the failure that began or prolonged the outage; may be empty
	since  time.Time
	// downSince is when the outage began, zero after a success: a pause by an operator
	// does not end it.
	downSince time.Time
	resume    time.Time // when a pause ends
	pause     time.Duration

	outages int64 // number of outages; requests sent before the last one are not evidence
	// Successes are numbered so that they can be compared with a trial's mark.
	successes, successesOfOthers int64 // the last success, and the last of a resource other than lastResource
	lastResource                 string
	lastSuccess                  time.Time

	// Failures since the last success that may be the endpoint's fault.
	failures int
	failed   map[string]bool // their resources, at most fewResources
	kinds    kinds
	// troubledSince is when events that may have been parked because of the last outage
	// began to fail.
	troubledSince time.Time
}

// trial is an event's history of attempts, used to attribute its next failure.
type trial struct {
	began    bool
	mark     int64 // number of successes when the first request was sent
	outage   int64 // number of outages when the last request was sent
	sent     time.Time
	kind     string // the event's name
	refusals int    // refusals for load while others succeeded
	broke    bool   // its connection broke once, which was excused
	parked   bool
}

// triedIn reports whether a request was sent during an outage.
func (t *trial) triedIn(outage int64) bool { return t.began && t.outage == outage }

func newHealth(p pace, now time.Time) *health {
	return &health{pace: p, state: Healthy, since: now, failed: make(map[string]bool), kinds: make(kinds)}
}

// rest notes that no events are waiting, so there is nothing left to ramp up for.
func (h *health) rest(now time.Time) {
	if h.state == Ramping && h.failures == 0 {
		h.enter(Healthy, "", now)
	}
}

// disable stops all sending.
func (h *health) disable(reason string, now time.Time) { h.enter(Disabled, reason, now) }

// enable resumes sending, starting with a ramp.
func (h *health) enable(now time.Time) {
	h.pause = 0
	h.forgive()
	h.enter(Ramping, "", now)
	h.restart()
}

// limit returns how many requests may be in flight now. untried says whether an
// event is waiting whose resource has not failed since the last success.
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

// wake returns when limit will next increase without an outcome; false if it will
// not.
func (h *health) wake() (time.Time, bool) {
	return h.resume, h.state == Down || h.state == Probing || h.state == Throttled
}

// send records that a request for an event is sent.
func (h *health) send(t *trial, now time.Time) {
	if !t.began {
		t.began, t.mark = true, h.successes
	}
	t.outage, t.sent = h.outages, now
	h.take(now)
}

// observe records the outcome of a request and attributes a failure. quiet means
// that no other event can be sent now.
func (h *health) observe(o tidings.Outcome, resource string, t *trial, quiet bool, now time.Time) fault {
	late := t.outage != h.outages
	if o.Verdict == tidings.Interrupted {
		return faultUncounted
	}
	if o.Verdict == tidings.Delivered {
		if !late && h.state != Disabled {
			h.succeed(o, resource, t, now)
		}
		return faultNone
	}
	if h.state == Disabled || late {
		return faultEndpoint
	}
	if o.Verdict == tidings.Gone {
		h.disable(o.Reason, now)
		return faultEndpoint
	}
	if h.state == Down || h.state == Probing {
		h.fail(o, resource, now)
		return faultEndpoint
	}
	refused := o.Verdict == tidings.Throttled && o.RetryAfter == 0
	stubborn := refused && h.kinds.refuse(t.kind, &h.pace)
	if !stubborn {
		overloaded := h.pace.failed(o, t.sent, now)
		if o.Verdict == tidings.Throttled {
			return h.throttle(o, resource, t, overloaded || quiet, now)
		}
	}
	if h.blames(resource, t) && !neverArrived(o) {
		if !stubborn && h.excuses(o, t) {
			return faultEndpoint
		}
		return faultEvent
	}
	return h.doubt(o, resource, quiet, now)
}

// neverArrived reports whether the request failed before it reached the receiver,
// so that the event cannot be at fault. A broken connection does not count: an
// event can crash its receiver.
func neverArrived(o tidings.Outcome) bool {
	return (o.Verdict == tidings.Unreachable && o.Reason != tidings.ReasonReset) || o.Verdict == tidings.Blocked
}

// blames reports whether a failure is the event's own fault: events of other
// resources have succeeded since its first request. A parked event's first request
// was long ago, so for it nothing else may be failing now.
func (h *health) blames(resource string, t *trial) bool {
	last := h.successes
	if h.lastResource == resource {
		last = h.successesOfOthers
	}
	if t.parked {
		return last > 0 && h.failures == 0
	}
	return last > t.mark
}

// excuses reports whether an event at fault is sent once more immediately.
// Connections break for any event, and so do refusals for load, which
// [health.throttle] counts.
func (h *health) excuses(o tidings.Outcome, t *trial) bool {
	if o.Verdict == tidings.Throttled {
		return true
	}
	if o.Reason != tidings.ReasonReset || t.broke {
		return false
	}
	t.broke, t.mark = true, h.successes
	return true
}

// doubt handles a failure that may be the endpoint's fault.
func (h *health) doubt(o tidings.Outcome, resource string, quiet bool, now time.Time) fault {
	if quiet || neverArrived(o) || h.failures+1 >= downFailures {
		h.fail(o, resource, now)
		return faultEndpoint
	}
	h.note(resource)
	return faultUnclear
}

// note counts a failure of a resource.
func (h *health) note(resource string) {
	h.failures++
	if len(h.failed) < fewResources {
		h.failed[resource] = true
	}
}

func (h *health) succeed(o tidings.Outcome, resource string, t *trial, now time.Time) {
	h.successes++
	if h.state == Down || h.state == Probing {
		h.troubledSince = h.trouble(now)
	}
	h.downSince = time.Time{}
	if h.lastResource != resource {
		h.successesOfOthers, h.lastResource = h.successes-1, resource
	}
	h.lastSuccess = now
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

// trouble returns when events that may have been parked because of an outage that ends now
// began to fail: after the last success, or as long before it as it lasted. So an event
// that an outage makes due is made due again only by a longer one.
func (h *health) trouble(now time.Time) time.Time {
	lasted := max(now.Sub(h.downSince), 0)
	began := h.downSince.Add(-min(lasted, mostTrouble))
	if !h.lastSuccess.IsZero() && h.lastSuccess.Before(began) {
		return h.lastSuccess
	}
	return began
}

// forgive resets the count of consecutive failures.
func (h *health) forgive() {
	h.failures = 0
	clear(h.failed)
}

// fail begins or prolongs an outage. While only a few events have failed, the
// endpoint is probed instead of being declared down.
func (h *health) fail(o tidings.Outcome, resource string, now time.Time) {
	if h.state != Down && h.state != Probing {
		h.outages++
		h.restart()
		if h.downSince.IsZero() {
			h.downSince = now
		}
		h.since = h.downSince
		h.state = Probing // keeps since
	}
	h.note(resource)
	h.pause = min(max(2*h.pause, firstProbe), slowestProbe)
	h.resume = now.Add(half(h.pause))
	state := Down
	if h.failures < downFailures && !neverArrived(o) {
		state = Probing
	}
	h.detail = o.Detail
	h.enter(state, downReason(o), now)
}

// downReason returns why an endpoint is down.
func downReason(o tidings.Outcome) string {
	switch o.Verdict {
	case tidings.Refused, tidings.Rejected, tidings.Unauthorized:
		return RefusesPrefix + o.Reason
	}
	return o.Reason
}

// RefusesPrefix is the prefix of the reason of an endpoint that responds but
// accepts nothing: "refuses: http_404".
const RefusesPrefix = "refuses: "

// throttle pauses the endpoint: for as long as the receiver asked, or, if it
// refuses more than a few requests, for a short time that grows while nothing
// succeeds.
func (h *health) throttle(o tidings.Outcome, resource string, t *trial, pause bool, now time.Time) fault {
	if h.blames(resource, t) {
		limit := refusalsOfOne
		if h.lately.tried >= recentRequests/2 && h.lately.share() > muchRefused {
			limit = refusalsByChance
		}
		if t.refusals++; t.refusals >= limit {
			return faultEvent
		}
		t.mark = h.successes
	}
	if o.RetryAfter == 0 && !pause && h.state != Throttled {
		return faultUnclear
	}
	until := now.Add(min(o.RetryAfter, longestWait))
	if o.RetryAfter == 0 {
		if h.state == Throttled {
			return faultEndpoint // it was sent before the pause
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
	return faultEndpoint
}

// wantsProbe reports whether the next request is a probe: nothing succeeds, but the
// receiver may be refusing only the events sent so far.
func (h *health) wantsProbe() bool { return h.state == Probing || h.state == Ramping && h.pause > 0 }

// half returns a random duration between d/2 and d, so that probes do not align
// with periodic behavior of the receiver.
func half(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// enter changes the state. Probing is part of an outage and keeps its start time.
func (h *health) enter(s State, reason string, now time.Time) {
	outage := s == Probing || (s == Down && h.state == Probing)
	if s != h.state && !outage {
		h.since = now
	}
	h.state, h.reason = s, reason
}

// refuses returns the refusal because of which an endpoint is down.
func refuses(reason string) (string, bool) { return strings.CutPrefix(reason, RefusesPrefix) }

// recall restores the saved state of the endpoint: a pause requested by the
// receiver continues, and an outage keeps the time when it began.
func (h *health) recall(last Status, now time.Time) {
	h.downSince = last.DownSince
	if last.State == Down || last.State == Probing {
		h.downSince = last.Since
	}
	if last.State == Throttled && last.Until.After(now) {
		h.resume = last.Until
		h.enter(Throttled, last.Reason, now)
		h.since = last.Since
	}
}

package relay

import (
	"math"
	"time"

	"github.com/tidings-dev/tidings"
)

// pace limits the requests in flight, and the request rate once the receiver has
// refused any for load. Both grow while requests succeed and shrink when the
// receiver refuses them or is slow (additive increase, multiplicative decrease). It
// remembers where they had to shrink.
type pace struct {
	Learned
	max     int           // configured limit of requests in flight
	timeout time.Duration // request timeout

	allowed float64   // allowed requests in flight
	next    time.Time // when the next request may be sent
	cut     time.Time // when it last shrank; requests sent before that are no new evidence
	grown   time.Time // when the rate last grew

	// Successes in the second that began at counting and in the one before, and the
	// most in any recent second.
	counting        time.Time
	count, previous int
	best            float64
	lastOutcome     time.Time // time of the last outcome

	recent sample    // requests since it last shrank
	futile int       // consecutive times that shrinking did not help
	trust  time.Time // until when refusals are not attributed to load

	lately   sample // requests, whether it shrank or not
	flow     flow   // of successes
	firstCut time.Time
	usual    float64 // the flow before the first cut
}

// sample counts requests and those of them that were refused for load, weighted towards
// recent ones.
type sample struct{ tried, refused float64 }

func (s *sample) add(refused bool) {
	if s.tried++; refused {
		s.refused++
	}
	if s.tried > recentRequests {
		s.tried, s.refused = s.tried/2, s.refused/2
	}
}

// share returns the share that was refused.
func (s sample) share() float64 { return s.refused / max(s.tried, 1) }

// Learned is what is known about a receiver's limits. It is saved with the status
// and outlives the process.
type Learned struct {
	// AtOnce is how many concurrent requests it handles without slowing down; 0 if
	// unknown.
	AtOnce float64 `json:"at_once,omitempty"`
	// Rate is the current limit in requests per second, and Ceiling the rate at
	// which it last refused some; 0 if it never did.
	Rate    float64 `json:"rate,omitempty"`
	Ceiling float64 `json:"ceiling,omitempty"`
}

const (
	// firstAtOnce is the initial concurrency for an unknown receiver.
	firstAtOnce = 4
	// afterOutage is the concurrency after an outage.
	afterOutage = 1
	shrink      = 0.7
	slowestRate = 0.2 // per second
	// Responses that take longer than a quarter of the timeout stop growth; those
	// that take longer than half of it reduce the concurrency.
	holdShare, slowShare = 4, 2
	// climb is how long the rate takes to return to the ceiling: fast at first,
	// slowly near it, and faster again above it (like CUBIC, RFC 9438).
	climb = 8 * time.Second
	// beyondCeiling is the multiple of the ceiling above which it was clearly too
	// low.
	beyondCeiling = 1.2
	// idle is the length of a pause after which measuring starts over.
	idle = 250 * time.Millisecond

	// A small share of refusals says nothing about the rate.
	shareRefused, recentRequests = 0.07, 40
	// If most requests are refused, and more than a few, it is certain.
	fewRefused, mostRefused = 3, 0.6
	// If refusals are not attributed to load, it takes many, and of nearly all requests.
	manyRefused, nearlyAll = 10, 0.8
	// It takes this long to see whether cuts help, and more than this share refused if not.
	enoughTime  = 10 * time.Second
	muchRefused = 0.17
	// If this many consecutive cuts leave a receiver refusing requests at well
	// below its recent rate, load is not the reason: one of its backends may be
	// down, say. After a while it is tested again.
	lessThanBest = 0.75
	futileCuts   = 2
	enoughToTell = 10 // per second: the lowest rate that can be measured
	trustFor     = time.Minute
	// fade is the factor by which the best rate decays each second.
	fade = 0.95
)

func newPace(limit int, timeout time.Duration, l Learned) pace {
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	p := pace{Learned: l, max: limit, timeout: timeout}
	p.allowed = min(p.threshold(), firstAtOnce)
	return p
}

// defaultTimeout applies to endpoints that set none.
const defaultTimeout = 15 * time.Second

// threshold returns the concurrency known to work well for the receiver.
func (p *pace) threshold() float64 {
	if p.AtOnce == 0 {
		return float64(p.max)
	}
	return min(p.AtOnce, float64(p.max))
}

// restart resets the concurrency after an outage.
func (p *pace) restart() { p.allowed = afterOutage }

func (p *pace) concurrency() int { return max(int(p.allowed), 1) }

// full reports whether the concurrency has reached what the receiver is known to
// handle.
func (p *pace) full() bool { return p.allowed >= p.threshold() }

// take reserves a slot under the rate limit.
func (p *pace) take(now time.Time) {
	if p.Rate > 0 {
		if p.next.Before(now) {
			p.next = now
		}
		p.next = p.next.Add(time.Duration(float64(time.Second) / p.Rate))
	}
}

// ready returns when the next request may be sent.
func (p *pace) ready() time.Time { return p.next }

func (p *pace) succeeded(o tidings.Outcome, sent, now time.Time) {
	p.advance(now)
	p.count++
	p.countRequest(false)
	p.flow.add(now)
	p.growRate(now)
	switch {
	case o.Duration > p.timeout/slowShare:
		p.shrink(sent, now)
	case o.Duration > p.timeout/holdShare || p.allowed >= float64(p.max):
	case p.allowed < p.threshold():
		p.allowed = min(p.allowed+1, p.threshold())
	default:
		p.allowed = min(p.allowed+1/p.allowed, float64(p.max))
		if p.AtOnce > 0 {
			p.AtOnce = max(p.AtOnce, p.allowed)
		}
	}
}

// failed records a failure. A refusal for load reduces rate and concurrency, a
// timeout only concurrency. It reports whether the receiver is overloaded.
func (p *pace) failed(o tidings.Outcome, sent, now time.Time) (overloaded bool) {
	p.advance(now)
	switch {
	case o.Verdict == tidings.Throttled:
		return p.refuse(sent, now)
	case o.Reason == tidings.ReasonTimeout:
		p.shrink(sent, now)
	}
	return false
}

// shrink reduces the concurrency.
func (p *pace) shrink(sent, now time.Time) {
	if sent.Before(p.cut) {
		return
	}
	p.cut = now
	p.allowed = max(p.allowed*shrink, 1)
	p.AtOnce = p.allowed
}

func (p *pace) countRequest(refused bool) {
	p.recent.add(refused)
	p.lately.add(refused)
}

// refuse records a refusal for load. If it really is one, the rate drops below the
// one at which the receiver refused.
func (p *pace) refuse(sent, now time.Time) (overloaded bool) {
	if sent.Before(p.cut) {
		return true
	}
	if p.count+p.previous == 0 && p.Rate == 0 { // it accepts nothing at all, which says nothing about a rate
		p.shrink(sent, now)
		return true
	}
	p.countRequest(true)
	most := p.recent.refused >= fewRefused && p.recent.share() >= mostRefused
	trusted := now.Before(p.trust) && (p.recent.refused < manyRefused || p.recent.share() < nearlyAll)
	if p.recent.share() < shareRefused || trusted {
		return false
	}
	rate := p.Rate
	if rate == 0 {
		rate = p.measured(now)
	}
	if !most && p.best >= enoughToTell && p.measured(now) < p.best*lessThanBest {
		p.futile++
	} else {
		p.futile = 0
	}
	vain := p.inVain(now)
	p.recent = sample{}
	if p.futile > futileCuts || vain {
		p.Rate, p.Ceiling, p.futile, p.trust = 0, 0, 0, now.Add(trustFor)
		return false
	}
	least := slowestRate
	if !most {
		least = max(p.best*shrink, least)
	}
	p.Ceiling = rate
	p.Rate = max(rate*shrink, least)
	p.shrink(sent, now)
	p.grown, p.next = now, now
	return true
}

// inVain reports whether cuts do not help: the receiver accepts far less than before the
// first of them and refuses as large a share. Under load, it would accept as many requests
// as before and refuse few.
func (p *pace) inVain(now time.Time) bool {
	flow := p.flow.at(now)
	if p.Rate == 0 || now.Sub(p.cut) > trustFor {
		p.firstCut, p.usual = now, max(flow, p.usual/2)
	}
	return now.Sub(p.firstCut) > enoughTime && flow < p.usual/2 && p.lately.share() > muchRefused
}

// flow is the number of events per second, weighted towards the last flowTime.
type flow struct {
	rate float64
	last time.Time
}

const flowTime = 15 * time.Second

func (f *flow) add(now time.Time) {
	f.rate, f.last = f.at(now)+1/flowTime.Seconds(), now
}

func (f *flow) at(now time.Time) float64 {
	return f.rate * math.Exp(-now.Sub(f.last).Seconds()/flowTime.Seconds())
}

// revert reverts the effect of refusals that turned out not to be for load.
func (p *pace) revert(before Learned) {
	p.Learned, p.next = before, time.Time{}
	p.allowed = min(max(p.allowed, firstAtOnce), p.threshold())
	p.recent, p.futile = sample{}, 0
}

// growRate raises the rate to the ceiling and past it, faster once it is clear that
// the receiver's limit has risen.
func (p *pace) growRate(now time.Time) {
	if p.Rate == 0 || p.Rate > 2*p.measured(now)+1 { // the rate is not the bottleneck
		p.grown = now
		return
	}
	// A success says nothing about what happened long before it.
	elapsed := min(now.Sub(p.grown).Seconds(), max(1, 1/p.Rate))
	p.grown = now
	if p.Rate > p.Ceiling*beyondCeiling {
		p.Rate += elapsed * p.Rate / 2
		return
	}
	climbed := 1 + math.Cbrt((p.Rate/p.Ceiling-1)/(1-shrink)) + elapsed/climb.Seconds()
	above := climbed - 1
	p.Rate = p.Ceiling * (1 + (1-shrink)*above*above*above)
}

// advance moves the counters to the current second.
func (p *pace) advance(now time.Time) {
	gap := idle
	if p.Rate > 0 {
		gap = max(gap, time.Duration(2*float64(time.Second)/p.Rate))
	}
	elapsed := now.Sub(p.counting)
	if now.Sub(p.lastOutcome) > gap {
		elapsed = max(elapsed, 2*time.Second)
	}
	p.lastOutcome = now
	switch {
	case elapsed >= 2*time.Second:
		p.best *= math.Pow(fade, elapsed.Seconds())
		p.counting, p.count, p.previous = now, 0, 0
	case elapsed >= time.Second:
		p.best = max(p.best*fade, float64(p.count))
		p.counting, p.count, p.previous = p.counting.Add(time.Second), 0, p.count
	}
}

// measured returns the rate of successes in the last second or two.
func (p *pace) measured(now time.Time) float64 {
	elapsed := max(now.Sub(p.counting), 5*time.Millisecond).Seconds()
	if p.previous > 0 {
		elapsed++
	}
	return max(float64(p.count+p.previous)/elapsed, slowestRate)
}

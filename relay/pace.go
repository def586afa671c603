package relay

import (
	"math"
	"time"

	"github.com/tidings-dev/tidings"
)

// pace is how fast a receiver takes requests: how many at once, and how many in a
// second if it ever refused any for load. It grows while requests succeed and
// shrinks when the receiver refuses them or takes long (additive increase,
// multiplicative decrease), and remembers where it had to.
type pace struct {
	Learned
	max     int           // requests at once, as configured
	timeout time.Duration // of a request

	allowed float64   // requests at once
	next    time.Time // when the next one may go
	cut     time.Time // when it shrank last: requests sent before tell nothing new
	grown   time.Time // when the rate grew last

	// Successes in the second that began at counting, and in the one before, and the
	// most in any second lately.
	counting        time.Time
	count, previous int
	best            float64
	told            time.Time // when the last outcome came

	// Requests since it shrank last, the latest counting most, and how many of them
	// were refused for load.
	tried, refused float64
	vain           int       // how often in a row shrinking did not help
	trust          time.Time // until when refusals are taken not to be for load
}

// Learned is what is known of a receiver's limits. It outlives the process.
type Learned struct {
	// AtOnce is how many requests at once it takes without getting slow; 0 if that
	// is not known.
	AtOnce float64 `json:"at_once,omitempty"`
	// Rate is how many requests in a second it gets now, and Ceiling the rate at
	// which it refused some last; 0 if it never did.
	Rate    float64 `json:"rate,omitempty"`
	Ceiling float64 `json:"ceiling,omitempty"`
}

const (
	// firstAtOnce is for a receiver that is not known yet.
	firstAtOnce = 4
	// afterOutage is for one that is just back.
	afterOutage = 1
	shrink      = 0.7
	slowestRate = 0.2 // a second
	// Responses that take longer than a quarter of the timeout stop growth, and
	// those that take longer than half of it shrink the number at once.
	holdShare, slowShare = 4, 2
	// climb is how long the rate takes to get back to the ceiling: quickly at first,
	// slowly near it, and faster again above (as CUBIC does, RFC 9438).
	climb = 8 * time.Second
	// beyondCeiling is where the ceiling was clearly too low.
	beyondCeiling = 1.2
	// idle is a pause after which the rate is measured anew.
	idle = 250 * time.Millisecond

	// What a few events refuse says nothing about a rate.
	shareRefused, recentRequests = 0.07, 40
	// Where most are refused, and not just a few, there can be no doubt.
	fewRefused, mostRefused = 3, 0.6
	// A receiver that, so many cuts in a row, refuses some at less than what it took
	// lately refuses for another reason than load, one of its backends, say. After a
	// while it is put to the test again.
	lessThanBest = 0.75
	vainCuts     = 2
	enoughToTell = 10 // a second: the least rate that can be measured
	trustFor     = time.Minute
	// fade is how much of the best second is left a second later.
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

// defaultTimeout is that of an endpoint that names none.
const defaultTimeout = 15 * time.Second

// threshold is how many at once the receiver was well with.
func (p *pace) threshold() float64 {
	if p.AtOnce == 0 {
		return float64(p.max)
	}
	return min(p.AtOnce, float64(p.max))
}

// restart begins small again, after an outage.
func (p *pace) restart() { p.allowed = afterOutage }

func (p *pace) concurrency() int { return max(int(p.allowed), 1) }

// full reports whether all that the receiver is known to take may go out.
func (p *pace) full() bool { return p.allowed >= p.threshold() }

// take reserves a place at the rate.
func (p *pace) take(now time.Time) {
	if p.Rate > 0 {
		if p.next.Before(now) {
			p.next = now
		}
		p.next = p.next.Add(time.Duration(float64(time.Second) / p.Rate))
	}
}

// ready returns when the next request may go.
func (p *pace) ready() time.Time { return p.next }

func (p *pace) succeeded(o tidings.Outcome, sent, now time.Time) {
	p.tally(now)
	p.count++
	p.try(false)
	p.growRate(now)
	switch {
	case o.Duration > p.timeout/slowShare:
		p.slow(sent, now)
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

// failed takes a failure: a refusal for load shrinks the rate and the number at once,
// a timeout the number at once. It reports whether the receiver is overloaded.
func (p *pace) failed(o tidings.Outcome, sent, now time.Time) (overloaded bool) {
	p.tally(now)
	switch {
	case o.Verdict == tidings.Throttled:
		return p.refuse(sent, now)
	case o.Reason == tidings.ReasonTimeout:
		p.slow(sent, now)
	}
	return false
}

// slow shrinks the number of requests at once.
func (p *pace) slow(sent, now time.Time) {
	if sent.Before(p.cut) {
		return
	}
	p.cut = now
	p.allowed = max(p.allowed*shrink, 1)
	p.AtOnce = p.allowed
}

// try counts a request that was taken, or refused for load.
func (p *pace) try(refused bool) {
	if p.tried++; refused {
		p.refused++
	}
	if p.tried > recentRequests {
		p.tried, p.refused = p.tried/2, p.refused/2
	}
}

// refuse takes a refusal for load. If it is one, the rate shrinks below the one at
// which the receiver refused.
func (p *pace) refuse(sent, now time.Time) (overloaded bool) {
	if sent.Before(p.cut) {
		return true
	}
	if p.count+p.previous == 0 && p.Rate == 0 { // it takes nothing now: that says nothing about a rate
		p.slow(sent, now)
		return true
	}
	p.try(true)
	most := p.refused >= fewRefused && p.refused >= p.tried*mostRefused
	if p.refused < p.tried*shareRefused || (now.Before(p.trust) && !most) {
		return false
	}
	rate := p.Rate
	if rate == 0 {
		rate = p.measured(now)
	}
	if !most && p.best >= enoughToTell && p.measured(now) < p.best*lessThanBest {
		p.vain++
	} else {
		p.vain = 0
	}
	p.tried, p.refused = 0, 0
	if p.vain > vainCuts {
		p.Rate, p.Ceiling, p.vain, p.trust = 0, 0, 0, now.Add(trustFor)
		return false
	}
	least := slowestRate
	if !most {
		least = max(p.best*shrink, least)
	}
	p.Ceiling = rate
	p.Rate = max(rate*shrink, least)
	p.slow(sent, now)
	p.grown, p.next = now, now
	return true
}

// acquit takes back what refusals did that turned out not to be for load.
func (p *pace) acquit(before Learned) {
	p.Learned, p.next = before, time.Time{}
	p.allowed = min(max(p.allowed, firstAtOnce), p.threshold())
	p.tried, p.refused, p.vain = 0, 0, 0
}

// growRate lets the rate climb to the ceiling and past it; quickly once it is clear that
// the receiver takes more now.
func (p *pace) growRate(now time.Time) {
	if p.Rate == 0 || p.Rate > 2*p.measured(now)+1 { // it is not what limits
		p.grown = now
		return
	}
	// A success says nothing about the time long before it.
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

// tally moves on to the second that it is now.
func (p *pace) tally(now time.Time) {
	gap := idle
	if p.Rate > 0 {
		gap = max(gap, time.Duration(2*float64(time.Second)/p.Rate))
	}
	elapsed := now.Sub(p.counting)
	if now.Sub(p.told) > gap {
		elapsed = max(elapsed, 2*time.Second)
	}
	p.told = now
	switch {
	case elapsed >= 2*time.Second:
		p.best *= math.Pow(fade, elapsed.Seconds())
		p.counting, p.count, p.previous = now, 0, 0
	case elapsed >= time.Second:
		p.best = max(p.best*fade, float64(p.count))
		p.counting, p.count, p.previous = p.counting.Add(time.Second), 0, p.count
	}
}

// measured is the rate of successes in the last second or two.
func (p *pace) measured(now time.Time) float64 {
	elapsed := max(now.Sub(p.counting), 5*time.Millisecond).Seconds()
	if p.previous > 0 {
		elapsed++
	}
	return max(float64(p.count+p.previous)/elapsed, slowestRate)
}

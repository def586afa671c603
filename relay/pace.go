package relay

import (
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

	// Successes in the second that began at counting, and in the one before.
	counting        time.Time
	count, previous int
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
	// beyondCeiling is where the ceiling was clearly too low.
	beyondCeiling = 1.2
	// climb is how long the rate takes to get back to the ceiling.
	climb = 10 * time.Second
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

// failed takes a failure: one for load shrinks the rate and the number at once, a
// timeout the number at once.
func (p *pace) failed(o tidings.Outcome, sent, now time.Time) {
	p.tally(now)
	switch {
	case o.Verdict == tidings.Throttled:
		p.refuse(sent, now)
	case o.Reason == tidings.ReasonTimeout:
		p.slow(sent, now)
	}
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

// refuse shrinks the rate below the one at which the receiver refused.
func (p *pace) refuse(sent, now time.Time) {
	if sent.Before(p.cut) {
		return
	}
	if p.Rate == 0 {
		if p.count+p.previous == 0 { // it takes nothing now: that says nothing about a rate
			p.slow(sent, now)
			return
		}
		p.Rate = p.measured(now)
	}
	p.Ceiling = p.Rate
	p.Rate = max(p.Rate*shrink, slowestRate)
	p.slow(sent, now)
	p.grown, p.next = now, now
}

// growRate lets the rate climb to the ceiling, and slowly past it; quickly once it is
// clear that the receiver takes more now.
func (p *pace) growRate(now time.Time) {
	if p.Rate == 0 || p.Rate > 2*p.measured(now)+1 { // it is not what limits
		p.grown = now
		return
	}
	elapsed := min(now.Sub(p.grown), time.Second).Seconds()
	p.grown = now
	p.Rate += elapsed * (max(p.Ceiling-p.Rate, 0)/climb.Seconds() + p.Ceiling/100 + slowestRate/10)
	if p.Rate > p.Ceiling*beyondCeiling {
		p.Rate += elapsed * p.Rate / 4
	}
}

// tally moves on to the second that it is now.
func (p *pace) tally(now time.Time) {
	elapsed := now.Sub(p.counting)
	switch {
	case elapsed >= 2*time.Second:
		p.counting, p.count, p.previous = now, 0, 0
	case elapsed >= time.Second:
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

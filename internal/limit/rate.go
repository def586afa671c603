package limit

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RateOptions configures [NewRate]; all fields but Setting are required.
type RateOptions struct {
	// PerSecond is a key's average number of requests per second, Burst the
	// maximum at once.
	PerSecond float64
	Burst     int
	// Who makes the requests, and Setting limits them; both appear in the error.
	Who, Setting string
}

// Rate limits the rate of an operation, with a token bucket per key, such as a
// user. A nil Rate has no limit.
type Rate struct {
	o RateOptions

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	swept   time.Time
	refused int64
}

// NewRate returns a rate limit with full buckets.
func NewRate(o RateOptions) *Rate {
	return &Rate{o: o, buckets: make(map[string]*rate.Limiter)}
}

const (
	// sweepInterval is how often full buckets are removed.
	sweepInterval = time.Second
	// maxBuckets limits memory; keys beyond it share a bucket.
	maxBuckets = 100_000
)

// RateError reports that a key has no requests left.
type RateError struct {
	message string
	// RetryAfter is the time until the next request is allowed.
	RetryAfter time.Duration
}

// Error names the limit that was reached.
func (e *RateError) Error() string { return e.message }

// Budget is a key's remaining budget.
type Budget struct {
	// Limit is the size of the full bucket, which refills within Window.
	Limit  int
	Window time.Duration
	// Left is the number of remaining requests. Reset is the time until the bucket
	// is full.
	Left  int
	Reset time.Duration
}

// Take takes one request from a key's bucket and returns the remaining budget.
// The error is a [*RateError]. A nil Rate returns a zero budget.
func (r *Rate) Take(key string) (Budget, error) {
	if r == nil {
		return Budget{}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	bucket := r.bucket(key, now)
	allowed := bucket.AllowN(now, 1)
	tokens := bucket.TokensAt(now)
	b := Budget{
		Limit: r.o.Burst, Window: r.fill(float64(r.o.Burst)),
		Left: max(int(tokens), 0), Reset: r.fill(float64(r.o.Burst) - tokens),
	}
	if allowed {
		return b, nil
	}
	r.refused++
	e := &RateError{
		message: fmt.Sprintf("%s is limited to %v requests per second, in bursts of %d", r.o.Who,
			r.o.PerSecond, r.o.Burst),
		RetryAfter: r.fill(1 - tokens),
	}
	if r.o.Setting != "" {
		e.message += " (" + r.o.Setting + ")"
	}
	return b, e
}

// Refused returns the number of refused requests.
func (r *Rate) Refused() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

// fill returns how long it takes to refill the given number of tokens.
func (r *Rate) fill(tokens float64) time.Duration {
	return time.Duration(min(tokens/r.o.PerSecond*float64(time.Second), math.MaxInt64/2))
}

// bucket returns the bucket of a key. Full buckets are not kept, because they
// equal new ones.
func (r *Rate) bucket(key string, now time.Time) *rate.Limiter {
	if b := r.buckets[key]; b != nil {
		return b
	}
	if now.Sub(r.swept) >= sweepInterval {
		for key, b := range r.buckets {
			if b.TokensAt(now) >= float64(r.o.Burst) {
				delete(r.buckets, key)
			}
		}
		r.swept = now
	}
	if len(r.buckets) >= maxBuckets {
		key = ""
	}
	b := r.buckets[key]
	if b == nil {
		b = rate.NewLimiter(rate.Limit(r.o.PerSecond), r.o.Burst)
		r.buckets[key] = b
	}
	return b
}

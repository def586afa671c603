package limit

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RateOptions are those of [NewRate]; all but Setting are required.
type RateOptions struct {
	// PerSecond is how many requests a key may make in a second on average, and
	// Burst how many at once.
	PerSecond float64
	Burst     int
	// Who makes the requests, and Setting limits them, for the error.
	Who, Setting string
}

// Rate bounds how often something is done, with a token bucket for each key, such
// as a user. A nil Rate has no limit.
type Rate struct {
	o RateOptions

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	swept   time.Time
	refused int64
}

// NewRate returns a rate of which nothing is used.
func NewRate(o RateOptions) *Rate {
	return &Rate{o: o, buckets: make(map[string]*rate.Limiter)}
}

const (
	// sweepInterval is how often buckets are looked through for those that are full.
	sweepInterval = time.Second
	// maxBuckets bounds the memory; keys that find no room share a bucket.
	maxBuckets = 100_000
)

// RateError says that a key has no requests left.
type RateError struct {
	message string
	// RetryAfter is when it has one again.
	RetryAfter time.Duration
}

// Error says which limit was reached.
func (e *RateError) Error() string { return e.message }

// Budget is what a key has left.
type Budget struct {
	// Limit is how many requests there are when nothing was used for Window.
	Limit  int
	Window time.Duration
	// Left is how many are left now, and Reset when all of them are there again.
	Left  int
	Reset time.Duration
}

// Take takes a request of a key, and returns what is left. The error is a
// [*RateError]. Of a nil Rate, the budget is zero.
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
		message:    fmt.Sprintf("%s may make %v requests a second, and %d at once", r.o.Who, r.o.PerSecond, r.o.Burst),
		RetryAfter: r.fill(1 - tokens),
	}
	if r.o.Setting != "" {
		e.message += " (" + r.o.Setting + ")"
	}
	return b, e
}

// Refused returns how many requests were refused.
func (r *Rate) Refused() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

// fill is how long so many tokens take.
func (r *Rate) fill(tokens float64) time.Duration {
	return time.Duration(min(tokens/r.o.PerSecond*float64(time.Second), math.MaxInt64/2))
}

// bucket returns the bucket of a key. One that is full is like a new one, so it
// need not be kept.
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

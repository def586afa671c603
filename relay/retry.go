package relay

import (
	"math/rand/v2"
	"time"
)

// Schedule says when an event that failed on its own is tried again. The zero
// value is the schedule of protocol.md.
type Schedule struct {
	// Delays are the pauses after the first, second, … attempt, each taken with
	// ±20 % jitter; where there are more attempts, the last one stays. Empty means
	// [DefaultDelays].
	Delays []time.Duration
	// MaxAttempts is how many there are before the dead letter; 0 means one more
	// than there are delays.
	MaxAttempts int
	// MaxAge is how long after the first attempt the last one may be; 0 means no
	// limit.
	MaxAge time.Duration
}

// DefaultDelays returns the pauses of protocol.md: ten attempts over some three
// days.
func DefaultDelays() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// next returns the pause after the given number of attempts, the first of which
// was so long ago; false after the last one.
func (s Schedule) next(attempts int, age time.Duration) (time.Duration, bool) {
	delays := s.Delays
	if len(delays) == 0 {
		delays = DefaultDelays()
	}
	limit := s.MaxAttempts
	if limit == 0 {
		limit = len(delays) + 1
	}
	if attempts >= limit {
		return 0, false
	}
	delay := jitter(delays[min(attempts, len(delays))-1])
	if s.MaxAge > 0 && age+delay > s.MaxAge {
		return 0, false
	}
	return delay, true
}

// jitter returns d, give or take a fifth.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

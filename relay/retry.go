package relay

import (
	"math/rand/v2"
	"time"
)

// Schedule is the retry schedule for events that fail on their own. The zero value
// is the schedule of protocol.md.
type Schedule struct {
	// Delays are the pauses after the first, second, … attempt, each with ±20 %
	// jitter. If there are more attempts, the last one is repeated. Empty means
	// [DefaultDelays].
	Delays []time.Duration
	// MaxAttempts is the number of attempts before an event becomes a dead letter;
	// 0 means one more than there are delays.
	MaxAttempts int
	// MaxAge is the maximum time between the first attempt and the last; 0 means no
	// limit.
	MaxAge time.Duration
}

// DefaultDelays returns the delays of protocol.md: ten attempts over about three
// days.
func DefaultDelays() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// next returns the delay after the given number of attempts, the first of which was
// age ago; false after the last one.
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

// jitter returns d ±20 %.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

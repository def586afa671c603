package relay

import (
	"math/rand/v2"
	"time"
)

// Schedule says when an event that failed on its own is tried again.
type Schedule struct {
	// Delays are the pauses after the first, second, … attempt, each taken with
	// ±20 % jitter. After the last comes the dead letter. Empty means
	// [DefaultDelays].
	Delays []time.Duration
}

// DefaultDelays returns the pauses of protocol.md: ten attempts over some three
// days.
func DefaultDelays() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// next returns the pause after the given number of attempts; false after the
// last one.
func (s Schedule) next(attempts int) (time.Duration, bool) {
	delays := s.Delays
	if len(delays) == 0 {
		delays = DefaultDelays()
	}
	if attempts > len(delays) {
		return 0, false
	}
	return jitter(delays[attempts-1]), true
}

// jitter returns d, give or take a fifth.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

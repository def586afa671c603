package eventlog

import (
	"context"
	"time"
)

// Action is something that an operator did.
type Action struct {
	ID int64
	At time.Time
	// By is the display name of who did it.
	By string
	// Action is what was done, such as "pause".
	Action string
	// Endpoint is the endpoint concerned; empty for none.
	Endpoint string
	// Subject is what else was concerned, such as a replay or a number of events.
	Subject string
	Comment string
}

// ActionFilter selects actions.
type ActionFilter struct {
	// Endpoint selects the actions that concern an endpoint; empty for all.
	Endpoint string
	// Before selects actions with a lower id; 0 for the newest.
	Before int64
	Limit  int
}

// StateChange is the beginning of a state of a partition of an endpoint. The state
// lasts until the next change.
type StateChange struct {
	Endpoint string
	Index    int // of the partition
	At       time.Time
	State    string
	Reason   string
	Detail   string
	// By and Comment are who disabled the endpoint and why.
	By, Comment string
}

// HistogramBounds are the upper bounds of the buckets of a [Histogram]. The last bucket
// also holds durations above its bound.
var HistogramBounds = [12]time.Duration{
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond,
	300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, 2 * time.Hour,
}

// Histogram is a number of durations for each bucket.
type Histogram [len(HistogramBounds)]int64

// Observe adds a duration.
func (h *Histogram) Observe(d time.Duration) {
	for i, bound := range HistogramBounds {
		if d <= bound || i == len(h)-1 {
			h[i]++
			return
		}
	}
}

// Add adds another histogram.
func (h *Histogram) Add(other Histogram) {
	for i, n := range other {
		h[i] += n
	}
}

// Quantile returns an estimate of a quantile, such as 0.99; 0 without durations.
func (h *Histogram) Quantile(q float64) time.Duration {
	var total int64
	for _, n := range h {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank, lower := q*float64(total), time.Duration(0)
	for i, n := range h {
		if rank <= float64(n) && n > 0 {
			return lower + time.Duration(float64(HistogramBounds[i]-lower)*rank/float64(n))
		}
		rank -= float64(n)
		lower = HistogramBounds[i]
	}
	return lower
}

// Sample is what happened at an endpoint within a time span.
type Sample struct {
	// Endpoint is empty for all endpoints together.
	Endpoint string
	// At is the beginning of the time span, a whole minute.
	At                time.Time
	Delivered, Failed int64
	// Waiting is the approximate number of waiting events that the endpoint wants. It is added,
	// too: a second sample within a minute contains the change since the first.
	Waiting int64
	// Oldest is the greatest age of a waiting event.
	Oldest time.Duration
	// Answer has the durations of attempts, and Delay the ages of delivered
	// events.
	Answer, Delay Histogram
}

// Add adds another sample of the same time span.
func (s *Sample) Add(other Sample) {
	s.Delivered += other.Delivered
	s.Failed += other.Failed
	s.Waiting += other.Waiting
	s.Oldest = max(s.Oldest, other.Oldest)
	s.Answer.Add(other.Answer)
	s.Delay.Add(other.Delay)
}

// Journalist records how endpoints are doing.
type Journalist interface {
	// AddStates writes changes of states. A change of the same partition and time as an
	// earlier one replaces it.
	AddStates(ctx context.Context, changes []StateChange) error
	// AddSamples adds to the samples of whole minutes.
	AddSamples(ctx context.Context, samples []Sample) error
}

// Limits of the journal.
const (
	// MaxActions is how many actions are kept.
	MaxActions = 10_000
	// ActionLife is how long actions are kept.
	ActionLife = 90 * 24 * time.Hour
	// SeriesLife is how long samples are kept.
	SeriesLife = 7 * 24 * time.Hour
)

// Journal holds what operators did, and how endpoints were doing.
type Journal interface {
	AddAction(ctx context.Context, a Action) error
	// Actions returns the newest actions, newest first.
	Actions(ctx context.Context, f ActionFilter) ([]Action, error)
	// States returns the newest changes of an endpoint's states since a time, at most
	// limit, preceded by the state of each partition at that time; all ordered
	// by time.
	States(ctx context.Context, endpoint string, since time.Time, limit int) ([]StateChange, error)
	// Series returns the samples of endpoints since a time; the empty name stands for all
	// of them together. There is one for each step in which anything happened, oldest first.
	// Waiting is the maximum within a step. A step is a number of minutes.
	Series(ctx context.Context, endpoints []string, since time.Time, step time.Duration) ([]Sample, error)
	// ExpireJournal removes what is past its limits, and changes of states that ended
	// before a time.
	ExpireJournal(ctx context.Context, before time.Time) error
}

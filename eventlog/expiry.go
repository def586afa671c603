package eventlog

import (
	"context"
	"fmt"
	"time"
)

// Expirer removes what is past its retention.
type Expirer interface {
	// ExpireEvents removes events that were logged longer ago than a time to keep them,
	// or some of them later, where that is cheaper. Cursors that stand before the oldest
	// event left move there, and what they missed is noted.
	//
	// The clock is the log's. The error is a [ClockError], and nothing is removed, if it
	// has been set forward by more than the time to keep.
	ExpireEvents(ctx context.Context, keep time.Duration) (Expiry, error)
	// ExpireHistory removes history written longer ago than a time to keep it.
	ExpireHistory(ctx context.Context, keep time.Duration) error
	// ExpireEndpoints removes all that is kept of endpoints that were removed from the
	// configuration longer ago than age, by the database's clock, and that no replica
	// delivers to: cursors, parked events, what was said about them, gaps. Rows that
	// belong to no cursor at all go, too. It returns what was removed, also with an
	// error; it works in steps, and goes on where it stopped. The error is a [ClockError]
	// as that of ExpireEvents is.
	ExpireEndpoints(ctx context.Context, age time.Duration) ([]Removed, error)
	// ExpireDead removes dead letters that were given up before a time, and returns
	// how many, by endpoint, also with an error.
	ExpireDead(ctx context.Context, before time.Time) (map[string]int64, error)
	// ExpireGaps removes gaps that were noted before a time.
	ExpireGaps(ctx context.Context, before time.Time) error
	// ExpireReplays removes replays that ended before a time.
	ExpireReplays(ctx context.Context, before time.Time) error
}

// Expiry is what came of an expiry of events.
type Expiry struct {
	// At is the time by the clock of the log.
	At time.Time
	// Gaps are what was missed with it: positions of which no gap told before.
	Gaps []Gap
	// Notices tell operators what was put right in the log.
	Notices []string
}

// ClockError says that nothing expires, in case the clock is wrong.
type ClockError struct {
	// Jump is how much further the clock is than at the expiry before.
	Jump time.Duration
	// Until is up to when nothing expires, unless the clock is set back before.
	Until time.Time
}

// Error says what to do.
func (e *ClockError) Error() string {
	return fmt.Sprintf("the clock of the database is %s further than when events expired last: it was set forward, "+
		"or nothing ran for so long; "+
		"nothing expires until %s; if the clock is wrong, set it back", e.Jump.Round(time.Second),
		e.Until.UTC().Format(time.RFC3339))
}

// ExpiryClock is what a log remembers of the clock that events expire by.
type ExpiryClock struct {
	// Ran is when events expired last, or were to; zero for never.
	Ran time.Time
	// Jumped is when the clock was found to be set forward by more than events are
	// kept, and Jump by how much; zero for never.
	Jumped time.Time
	Jump   time.Duration
}

// jumpSlack is by how much more than the time to keep events the clock may have gone on
// between two expiries: they may be further apart than that time.
const jumpSlack = 10 * time.Minute

// At returns what to remember at the next expiry. The error is a [ClockError] if nothing
// may expire: the clock was set forward by more than events are kept, less than that time
// ago, and was not set back.
func (c ExpiryClock) At(now time.Time, keep time.Duration) (next ExpiryClock, err error) {
	next = ExpiryClock{now, c.Jumped, c.Jump}
	if step := now.Sub(c.Ran); !c.Ran.IsZero() && step > keep+jumpSlack {
		next.Jumped, next.Jump = now, step
	} else if now.Before(c.Jumped) {
		next.Jumped, next.Jump = time.Time{}, 0
	}
	if until := next.Jumped.Add(keep); !next.Jumped.IsZero() && now.Before(until) {
		return next, &ClockError{Jump: next.Jump, Until: until}
	}
	return next, nil
}

package eventlog

import (
	"context"
	"fmt"
	"time"
)

// Expirer removes data that is past its retention.
type Expirer interface {
	// ExpireEvents removes events that were logged longer ago than keep. It may
	// remove some of them later if that is cheaper. Cursors before the oldest
	// remaining event move there, and the gap is recorded.
	//
	// It uses the log's clock. If that clock was set forward by more than keep, the
	// error is a [ClockError] and nothing is removed.
	ExpireEvents(ctx context.Context, keep time.Duration) (Expiry, error)
	// ExpireHistory removes history that was written longer ago than keep.
	ExpireHistory(ctx context.Context, keep time.Duration) error
	// ExpireEndpoints removes all data of endpoints that were removed from the
	// configuration longer ago than age, by the database's clock, and that no
	// replica delivers to: cursors, parked events, controls and gaps. It also
	// removes rows that belong to no cursor. It works in steps and resumes where it
	// stopped. It returns what was removed, also with an error. The error is a
	// [ClockError] under the same conditions as for ExpireEvents.
	ExpireEndpoints(ctx context.Context, age time.Duration) ([]Removed, error)
	// ExpireDead removes dead letters that were given up before a time. It returns
	// how many were removed by endpoint, also with an error.
	ExpireDead(ctx context.Context, before time.Time) (map[string]int64, error)
	// ExpireGaps removes gaps that were recorded before a time.
	ExpireGaps(ctx context.Context, before time.Time) error
	// ExpireReplays removes replays that ended before a time.
	ExpireReplays(ctx context.Context, before time.Time) error
}

// Expiry is the result of [Expirer.ExpireEvents].
type Expiry struct {
	// At is the time by the log's clock.
	At time.Time
	// Gaps are the positions that cursors missed, as far as no gap was recorded for
	// them before.
	Gaps []Gap
	// Notices tell operators what was corrected in the log.
	Notices []string
}

// ClockError means that nothing expires because the clock may be wrong.
type ClockError struct {
	// Jump is how far the clock has moved since the previous expiry.
	Jump time.Duration
	// Until is when expiry resumes, unless the clock is set back before.
	Until time.Time
}

// Error describes the jump and what to do.
func (e *ClockError) Error() string {
	return fmt.Sprintf("the database's clock is %s ahead of the last expiry: it was set forward, "+
		"or nothing ran for that long; "+
		"nothing expires until %s; if the clock is wrong, set it back", e.Jump.Round(time.Second),
		e.Until.UTC().Format(time.RFC3339))
}

// ExpiryClock is what a log remembers about the clock that it uses for expiry.
type ExpiryClock struct {
	// Ran is the time of the last expiry, or of the last attempt; zero for never.
	Ran time.Time
	// Jumped is when the clock was found to have been set forward by more than the
	// retention, and Jump by how much; zero for never.
	Jumped time.Time
	Jump   time.Duration
}

// jumpSlack is how much longer than the retention the time between two expiries may
// be before it counts as a jump.
const jumpSlack = 10 * time.Minute

// At returns the state to remember after an expiry at the given time. The error is
// a [ClockError] if nothing may expire: the clock was set forward by more than
// keep, less than keep ago, and has not been set back by nearly as much since. A smaller
// step back, such as a correction by NTP or of a later jump, leaves events in
// danger.
func (c ExpiryClock) At(now time.Time, keep time.Duration) (next ExpiryClock, err error) {
	next = ExpiryClock{now, c.Jumped, c.Jump}
	step := now.Sub(c.Ran)
	switch {
	case c.Ran.IsZero():
	case step > keep+jumpSlack:
		next.Jumped, next.Jump = now, step
		if !c.Jumped.IsZero() && c.Ran.Before(c.Jumped.Add(keep)) {
			next.Jump += c.Jump // nothing may expire because of the earlier jump either
		}
	case step < 0 && !c.Jumped.IsZero():
		if next.Jump += step; next.Jump < keep/2 {
			next.Jumped, next.Jump = time.Time{}, 0
		} else if now.Before(c.Jumped) {
			next.Jumped = now // not the later time, which may be years ahead
		}
	}
	if until := next.Jumped.Add(keep); !next.Jumped.IsZero() && now.Before(until) {
		return next, &ClockError{Jump: next.Jump, Until: until}
	}
	return next, nil
}

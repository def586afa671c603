package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
)

// ParkedAction is what is done with parked events.
type ParkedAction string

// The actions.
const (
	RetryAction   ParkedAction = "retry"
	DiscardAction ParkedAction = "discard"
)

// ParkedChange retries or discards many parked events, page by page.
type ParkedChange struct {
	ID       string
	Action   ParkedAction
	Endpoint string
	// Dead, Reason, Patterns and Resource select events as in a [ParkedFilter].
	Dead             bool
	Reason, Resource string
	Patterns         []string
	// Comment says why they are discarded.
	Comment string
	// Position is the progress, and To the last position.
	Position, To int64
	// Total is how many events there were at the beginning. No more than these are
	// changed: others may have been parked since.
	Total int64
	// Done counts the events that were changed.
	Done int64
	// State is [ReplayRunning], [ReplayDone] or [ReplayCanceled].
	State            ReplayState
	Created, Updated time.Time
	CreatedBy        string
}

// Filter returns the filter for the next page. The error is that of a pattern.
func (c *ParkedChange) Filter() (ParkedFilter, error) {
	f := ParkedFilter{Endpoint: c.Endpoint, Dead: c.Dead, Reason: c.Reason, Resource: c.Resource, After: c.Position}
	for _, text := range c.Patterns {
		p, err := tidings.ParsePattern(text)
		if err != nil {
			return f, fmt.Errorf("change parked events: %w", err)
		}
		f.Patterns = append(f.Patterns, p)
	}
	return f, nil
}

const (
	// MaxParkedChanges is the maximum number of unfinished changes. Each replica works
	// on one at a time.
	MaxParkedChanges = 100
	// ParkedChangeHold is how long a replica may work on a change without saving its
	// progress, before another takes it over.
	ParkedChangeHold = time.Minute
)

// ErrManyParkedChanges means that there are [MaxParkedChanges] already.
var ErrManyParkedChanges = fmt.Errorf("%d changes of parked events run or wait", MaxParkedChanges)

// ParkedChanges keeps the changes of parked events.
type ParkedChanges interface {
	// AddParkedChange adds a change. The error may be [ErrManyParkedChanges].
	AddParkedChange(ctx context.Context, c ParkedChange) error
	// ParkedChanges returns the newest changes, newest first, at most limit.
	ParkedChanges(ctx context.Context, limit int) ([]ParkedChange, error)
	// ParkedChange returns a change by id; false if it does not exist.
	ParkedChange(ctx context.Context, id string) (ParkedChange, bool, error)
	// TakeParkedChange returns the oldest unfinished change that the owner may work on:
	// nobody else has it, or they have not saved their progress for [ParkedChangeHold].
	TakeParkedChange(ctx context.Context, owner string) (ParkedChange, bool, error)
	// SaveParkedChange saves position, count and state. It returns false if the owner must
	// stop: the change was canceled, or another has taken it over.
	SaveParkedChange(ctx context.Context, owner string, c ParkedChange) (bool, error)
	// CancelParkedChange cancels an unfinished change; false if it is not running.
	CancelParkedChange(ctx context.Context, id string) (bool, error)
	// ExpireParkedChanges removes changes that ended before a time.
	ExpireParkedChanges(ctx context.Context, before time.Time) error
}

package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
)

// Control is a state that an endpoint was put in from outside: by an operator, or
// by the receiver when it asked for no more events.
type Control struct {
	Endpoint string
	// Disabled is the reason why nothing is sent, such as "http_410" or "paused";
	// empty if enabled.
	Disabled string
	// Fingerprint identifies the configuration that was disabled.
	Fingerprint string
	// Since is when the control was set.
	Since time.Time
	// By is the display name of who set it; empty for the receiver. Comment says why.
	By, Comment string
	// Until is when the endpoint is enabled again automatically; zero for never.
	Until time.Time
	// Parked is when an operator last retried or discarded parked events of the
	// endpoint; SaveControl leaves it unchanged.
	Parked time.Time
}

// DisabledAt returns why the endpoint is disabled at a time; empty if it is enabled.
func (c Control) DisabledAt(now time.Time) string {
	if !c.Until.IsZero() && !now.Before(c.Until) {
		return ""
	}
	return c.Disabled
}

// Controls stores the controls.
type Controls interface {
	// Controls returns the controls of all endpoints that have one.
	Controls(ctx context.Context) (map[string]Control, error)
	// SaveControl replaces the control of an endpoint. Each one gets a later time
	// than the one before, whatever the clocks say.
	SaveControl(ctx context.Context, c Control) error
}

// ReplayState is the state of a replay.
type ReplayState string

// The states of a replay.
const (
	ReplayRunning  ReplayState = "running"
	ReplayDone     ReplayState = "done"
	ReplayCanceled ReplayState = "canceled"
	// ReplayExpired is a replay that sent nothing because its events had expired.
	ReplayExpired ReplayState = "expired"
)

// Replay is a job that sends events to an endpoint again.
type Replay struct {
	ID       string
	Endpoint string
	// Dead selects the endpoint's dead letters instead of events of the log.
	Dead bool
	// Missed selects events that were never delivered, as far as the history says.
	Missed bool
	// From and To are the first and last position of the range.
	From, To int64
	// Since and Until limit the times of events; zero for no limit.
	Since, Until time.Time
	// Patterns and Resource ("provider/<id>") limit the events; empty for no limit.
	Patterns []string
	Resource string
	// Position is the progress: everything that matches up to it was sent.
	Position int64
	// Total is how many events it sends; 0 if unknown.
	Total int64
	// Attempts counts the requests, Delivered and Failed the events, and Skipped the
	// events that were left to the endpoint's own deliveries, because they were still
	// waiting.
	Attempts, Delivered, Failed, Skipped int64
	// Expired is the number of positions that expired before they could be sent.
	Expired int64
	// Reason is why the last failed event failed.
	Reason           string
	State            ReplayState
	Created, Updated time.Time
	CreatedBy        string
}

// Matches reports whether the replay includes an event.
func (r *Replay) Matches(e tidings.Event, patterns []tidings.Pattern) bool {
	if r.Resource != "" && r.Resource != e.Resource() {
		return false
	}
	if (!r.Since.IsZero() && e.Time.Before(r.Since)) || (!r.Until.IsZero() && !e.Time.Before(r.Until)) {
		return false
	}
	for _, p := range patterns {
		if p.Match(e.Type, e.Action) {
			return true
		}
	}
	return len(patterns) == 0
}

// MaxReplays is the maximum number of unfinished replays of one endpoint. They run
// one after another, and none finishes while the endpoint is down.
const MaxReplays = 100

// ErrManyReplays means that the endpoint already has [MaxReplays] unfinished
// replays.
var ErrManyReplays = fmt.Errorf("this endpoint already has %d unfinished replays", MaxReplays)

// Check returns an error if a pattern cannot be parsed: ignoring it would send more
// than was requested.
func (r Replay) Check() error {
	for _, text := range r.Patterns {
		if _, err := tidings.ParsePattern(text); err != nil {
			return fmt.Errorf("add replay: %w", err)
		}
	}
	return nil
}

// Replays is what running a replay requires.
type Replays interface {
	// Replays returns the unfinished replays, for each endpoint the oldest, at most
	// limit of them; or else the newest replays of all endpoints, at most limit.
	Replays(ctx context.Context, running bool, limit int) ([]Replay, error)
	// SaveReplay saves position, counts, reason and a final state, and returns the
	// current state, since the replay may have been canceled. It needs the lease of
	// the endpoint's first partition.
	SaveReplay(ctx context.Context, l Lease, r Replay) (ReplayState, error)
	// Settled calls found with the positions in a range that were delivered to an
	// endpoint, merged or discarded, as far as the history says; in no order, and
	// possibly several times.
	Settled(ctx context.Context, endpoint string, from, to int64, found func(int64)) error
}

// ReplayKeeper creates and cancels replays.
type ReplayKeeper interface {
	// AddReplay creates a replay. The error is [ErrManyReplays] if the endpoint has
	// too many, even when several are added concurrently.
	AddReplay(ctx context.Context, r Replay) error
	// CancelReplay cancels an unfinished replay; false if it is not running or
	// waiting.
	CancelReplay(ctx context.Context, id string) (bool, error)
	// Replay returns a replay by id; false if it does not exist.
	Replay(ctx context.Context, id string) (Replay, bool, error)
}

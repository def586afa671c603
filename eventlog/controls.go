package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
)

// Control is what was said about an endpoint from outside: by an operator, or by
// the endpoint itself when it wanted no more.
type Control struct {
	Endpoint string
	// Disabled is why nothing is sent, such as "http_410" or "paused"; empty when
	// enabled.
	Disabled string
	// Fingerprint is that of the configuration that was disabled.
	Fingerprint string
	// Since is when it was said.
	Since time.Time
}

// Controls keeps them.
type Controls interface {
	// Controls returns those of all endpoints of which anything was said.
	Controls(ctx context.Context) (map[string]Control, error)
	// SaveControl replaces the control of an endpoint. Its time gets later with
	// each, whatever the clocks say.
	SaveControl(ctx context.Context, c Control) error
}

// ReplayState is how far a replay has come.
type ReplayState string

// The states of a replay.
const (
	ReplayRunning  ReplayState = "running"
	ReplayDone     ReplayState = "done"
	ReplayCanceled ReplayState = "canceled"
	// ReplayExpired is one that sent nothing, since its events expired before.
	ReplayExpired ReplayState = "expired"
)

// Replay is the job of sending events to an endpoint again.
type Replay struct {
	ID       string
	Endpoint string
	// Dead is the endpoint's dead letters; otherwise events of the log.
	Dead bool
	// From and To are the first and the last position of it.
	From, To int64
	// Since and Until are times of events; zero for any.
	Since, Until time.Time
	// Patterns and Resource ("provider/<id>") narrow it; empty for any.
	Patterns []string
	Resource string
	// Position is how far it has come: all that matches up to it was sent.
	Position          int64
	Delivered, Failed int64
	// Expired is how many positions expired before they could be sent.
	Expired int64
	// Reason is why the last one that failed did.
	Reason           string
	State            ReplayState
	Created, Updated time.Time
	CreatedBy        string
}

// Matches reports whether the replay wants an event.
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

// MaxReplays is how many replays of one endpoint may wait or run: they run one after
// another, and none ends while the endpoint is down.
const MaxReplays = 100

// ErrManyReplays says that [MaxReplays] of the endpoint wait or run.
var ErrManyReplays = fmt.Errorf("%d replays of this endpoint run or wait", MaxReplays)

// Check returns an error for a pattern that can't be read: a log keeps no replay that
// would match something else than was asked for.
func (r Replay) Check() error {
	for _, text := range r.Patterns {
		if _, err := tidings.ParsePattern(text); err != nil {
			return fmt.Errorf("add replay: %w", err)
		}
	}
	return nil
}

// Replays are the replays as those that run them know them.
type Replays interface {
	// Replays returns those that run or wait, of each endpoint the oldest, at most limit
	// of them; or the newest of all, at most limit.
	Replays(ctx context.Context, running bool, limit int) ([]Replay, error)
	// SaveReplay writes position, counts, reason and a state that ends it, and
	// returns the state that it has now: it may have been canceled. It needs the
	// lease of the endpoint's first partition.
	SaveReplay(ctx context.Context, l Lease, r Replay) (ReplayState, error)
}

// ReplayKeeper begins replays and ends them.
type ReplayKeeper interface {
	// AddReplay writes a new one. The error is [ErrManyReplays] if there is no room for
	// another, however many are added at the same time.
	AddReplay(ctx context.Context, r Replay) error
	// CancelReplay ends one that runs; false if it does not run.
	CancelReplay(ctx context.Context, id string) (bool, error)
	// Replay returns one; false if there is none.
	Replay(ctx context.Context, id string) (Replay, bool, error)
}

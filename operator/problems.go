package operator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

// The kinds of problems, the most urgent first.
const (
	ProblemLost      = "lost"
	ProblemDown      = "down"
	ProblemRefuses   = "refuses"
	ProblemGone      = "gone"
	ProblemPaused    = "paused"
	ProblemThrottled = "throttled"
	ProblemConfig    = "configuration"
	ProblemDrift     = "drift"
	ProblemReplicas  = "replicas"
)

var problemOrder = []string{
	ProblemLost, ProblemDown, ProblemRefuses, ProblemGone, ProblemPaused, ProblemThrottled, ProblemConfig, ProblemDrift,
	ProblemReplicas,
}

// Problem is something that needs an operator.
type Problem struct {
	Kind     string `json:"kind" enum:"lost,down,refuses,gone,paused,throttled,configuration,drift,replicas" doc:"lost: events expire within a day. refuses: some events failed on their own."`
	Endpoint string `json:"endpoint,omitempty"`
	State    string `json:"state,omitempty" doc:"The endpoint's state."`
	Reason   string `json:"reason,omitempty"`
	Detail   string `json:"detail,omitempty"`
	Count    int64  `json:"count,omitempty" doc:"How many events are concerned: waiting, or parked and dead."`
	Since    string `json:"since,omitempty"`
	LostAt   string `json:"lost_at,omitempty" doc:"When the oldest event that the endpoint has not received expires."`
	NextAt   string `json:"next_at,omitempty" doc:"When the next request is sent, or a pause ends."`
}

const (
	// lostSoon is how long before events are lost that is a problem of its own.
	lostSoon = 24 * time.Hour
	// throttledLong is how long an endpoint may be throttled without being a problem.
	throttledLong = 15 * time.Minute
	// parkedLooks bounds the endpoints whose parked events are looked at.
	parkedLooks = 20
)

// Problems returns what needs an operator, the most urgent first.
func (s *Service) Problems(ctx context.Context) (*Page[Problem], error) {
	endpoints, err := s.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	items, err := s.problems(ctx, endpoints)
	return &Page[Problem]{Items: items}, err
}

// problems returns what needs an operator, given the state of all endpoints.
func (s *Service) problems(ctx context.Context, endpoints []*Endpoint) ([]Problem, error) {
	all := []Problem{}
	now, retention, looks := time.Now(), s.hooks.Retention().Events, 0
	for _, e := range endpoints {
		if !e.Configured {
			continue
		}
		p := e.problem(now, retention)
		if p.Kind == ProblemRefuses {
			if looks++; looks <= parkedLooks {
				rows, err := s.log().Parked(ctx, eventlog.ParkedFilter{Endpoint: e.Name, Limit: 1})
				if err != nil {
					return nil, err
				}
				p.Reason, p.Since = first(rows).Reason, stamp(first(rows).First)
			}
		}
		if p.Kind != "" {
			all = append(all, p)
		}
	}
	status, err := s.peers(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, status.problems()...)
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(slices.Index(problemOrder, a.Kind)-slices.Index(problemOrder, b.Kind),
			cmp.Compare(cmp.Or(a.LostAt, "9"), cmp.Or(b.LostAt, "9")), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return all, nil
}

// problem returns the problem of an endpoint; its Kind is empty if there is none.
func (e *Endpoint) problem(now time.Time, retention time.Duration) Problem {
	p := Problem{
		Endpoint: e.Name, State: e.State, Reason: e.Reason, Count: e.Waiting, Since: e.Since, NextAt: e.Until,
		LostAt: e.LostAt,
	}
	switch relay.State(e.State) {
	case relay.Down, relay.Probing:
		p.Kind, p.Since = ProblemDown, firstOf(e.DownSince, e.Since)
		if e.LastError != nil {
			p.Detail = e.LastError.Detail
		}
	case relay.Disabled:
		p.Kind = ProblemGone
		if e.Reason == relay.PausedReason {
			p.Kind = ProblemPaused
		}
		if e.Control != nil {
			p.Detail = e.Control.Comment
		}
	case relay.Throttled:
		since, err := time.Parse(time.RFC3339Nano, e.Since)
		if err == nil && now.Sub(since) >= throttledLong {
			p.Kind = ProblemThrottled
		}
	}
	late := p.Kind != "" && retention > lostSoon || e.RetentionUsed >= 0.5
	if late && e.LostAt != "" && e.RetentionLeft < lostSoon {
		p.Kind = ProblemLost
	}
	if p.Kind == "" && e.Parked+e.Dead > 0 {
		p = Problem{Kind: ProblemRefuses, Endpoint: e.Name, State: e.State, Count: e.Parked + e.Dead, LostAt: e.LostAt}
	}
	return p
}

// problems returns those of the server rather than of an endpoint.
func (s *Status) problems() (all []Problem) {
	if c := s.Config; c != nil && c.LastTry != nil && len(c.LastTry.Errors) > 0 {
		all = append(all, Problem{
			Kind: ProblemConfig, Reason: "refused", Detail: c.LastTry.Errors[0].String(),
			Count: int64(len(c.LastTry.Errors)), Since: c.LastTry.At,
		})
	}
	if c := s.Config; c != nil && len(c.Broken) > 0 {
		all = append(all, Problem{
			Kind: ProblemConfig, Reason: "broken file", Detail: c.Broken[0].String(), Count: int64(len(c.Broken)),
			Since: c.BrokenSince,
		})
	}
	for _, source := range s.Sources {
		if source.State == "drifted" || source.State == "broken" {
			all = append(all,
				Problem{Kind: ProblemDrift, Reason: source.State, Detail: source.Table + ": " + source.Detail})
		}
	}
	for _, r := range s.Replicas {
		if first := s.Replicas[0]; r.State == "differs" {
			detail := fmt.Sprintf("%s and %s have different endpoints: give all the same configuration", first.Name, r.Name)
			if r.Group == first.Group {
				detail = fmt.Sprintf("%s has %s and %s has %s: run the same version everywhere", first.Name,
					versionText(first.Version), r.Name, versionText(r.Version))
			}
			all = append(all, Problem{
				Kind: ProblemReplicas, Reason: "differ", Count: int64(len(s.Replicas)), Detail: detail,
			})
			break
		}
	}
	return all
}

// versionText names a replica's version, which earlier ones and some programs do not tell.
func versionText(version string) string {
	if version == "" {
		return "an unknown version"
	}
	return "version " + version
}

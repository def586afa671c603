package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/vocabulary"
)

// NewReplay selects the events to be sent again. At least one field besides Endpoint
// must be set.
type NewReplay struct {
	Endpoint string     `json:"endpoint"`
	Dead     bool       `json:"dead,omitempty" doc:"Its dead letters, instead of events of the log."`
	Missed   bool       `json:"missed,omitempty" doc:"Only events that were never delivered to it, as far as the history says."`
	All      bool       `json:"all,omitempty" doc:"Every event of the log that it wants."`
	Event    string     `json:"event,omitempty" minLength:"1" doc:"The id or position of one event."`
	Events   []string   `json:"events,omitempty" maxItems:"100" doc:"Patterns."`
	Resource string     `json:"resource,omitempty" minLength:"1" doc:"Such as provider/<id>."`
	Since    *time.Time `json:"since,omitempty" doc:"Events made at that time or later."`
	Until    *time.Time `json:"until,omitempty" doc:"Events made before."`
}

// Replay is a replay in the operator API.
type Replay struct {
	ID        string   `json:"id"`
	Endpoint  string   `json:"endpoint"`
	Dead      bool     `json:"dead,omitempty"`
	Missed    bool     `json:"missed,omitempty"`
	Events    []string `json:"events,omitempty"`
	Resource  string   `json:"resource,omitempty"`
	Since     string   `json:"since,omitempty"`
	Until     string   `json:"until,omitempty"`
	From      int64    `json:"from" doc:"The first position."`
	To        int64    `json:"to" doc:"The last position."`
	Position  int64    `json:"position" doc:"How far it has come."`
	Progress  float64  `json:"progress" doc:"From 0 to 1."`
	Total     int64    `json:"total,omitempty" doc:"How many events it sends; omitted if there are too many to count."`
	Attempts  int64    `json:"attempts" doc:"How many requests it has made."`
	Delivered int64    `json:"delivered" doc:"How many events it has delivered."`
	Failed    int64    `json:"failed" doc:"How many events it could not deliver."`
	Skipped   int64    `json:"skipped,omitempty" doc:"Events that it left to the endpoint's own deliveries, because they were still waiting."`
	Expired   int64    `json:"expired,omitempty" doc:"Positions that expired before they could be sent."`
	Reason    string   `json:"reason,omitempty" doc:"Why the last failed attempt failed."`
	State     string   `json:"state" enum:"running,done,canceled,expired" doc:"expired: nothing was sent because its events had expired."`
	// WaitsBecause says why it makes no progress.
	WaitsBecause string `json:"waits_because,omitempty" doc:"Why it makes no progress at the moment."`
	Created      string `json:"created_at"`
	Updated      string `json:"updated_at"`
	CreatedBy    string `json:"created_by,omitempty" doc:"The name of the user who created it, such as an e-mail address, or their id."`
}

func shownReplay(r eventlog.Replay) *Replay {
	out := &Replay{
		ID: r.ID, Endpoint: r.Endpoint, Dead: r.Dead, Missed: r.Missed, Events: r.Patterns, Resource: r.Resource,
		Since: stamp(r.Since), Until: stamp(r.Until),
		From: r.From, To: r.To, Position: max(r.Position, r.From-1), Total: r.Total, Attempts: r.Attempts,
		Delivered: r.Delivered, Failed: r.Failed, Skipped: r.Skipped, Expired: r.Expired, Reason: r.Reason,
		State: string(r.State), Created: stamp(r.Created), Updated: stamp(r.Updated),
		CreatedBy: r.CreatedBy, Progress: 1,
	}
	if span := r.To - r.From + 1; r.State != eventlog.ReplayDone && span > 0 {
		out.Progress = float64(out.Position-r.From+1) / float64(span)
	}
	return out
}

// prepare checks a replay and finds its range.
func (s *Service) prepare(ctx context.Context, in *NewReplay) (r eventlog.Replay, e relay.Endpoint, err error) {
	if e, err = s.configured(in.Endpoint); err != nil {
		return r, e, invalid("endpoint", "%v", err)
	}
	if err := s.checkReplay(in); err != nil {
		return r, e, err
	}
	if in.Missed && e.History != "" && e.History != relay.HistoryAll {
		return r, e, invalid("missed", "the history of endpoint %s does not record what was delivered (history: %s)",
			e.Name, e.History)
	}
	r = eventlog.Replay{
		Endpoint: in.Endpoint, Dead: in.Dead, Missed: in.Missed, Patterns: in.Events, Resource: in.Resource,
		State: eventlog.ReplayRunning,
	}
	if in.Since != nil {
		r.Since = *in.Since
	}
	if in.Until != nil {
		r.Until = *in.Until
	}
	if kept := s.hooks.Retention().History; in.Missed && kept < s.hooks.Retention().Events {
		if begin := time.Now().Add(-kept); r.Since.Before(begin) {
			return r, e, invalid("since", "the history, which says what was delivered, is kept for %v", kept)
		}
	}
	return r, e, s.bounds(ctx, *in, &r)
}

// Replay starts a replay, which runs in the background.
func (s *Service) Replay(ctx context.Context, in NewReplay, userID string) (*Replay, error) {
	r, e, err := s.prepare(ctx, &in)
	if err != nil {
		return nil, err
	}
	plan, err := s.plan(ctx, &r, &e)
	if err != nil {
		return nil, err
	}
	if err := plan.empty(); err != nil {
		return nil, err
	}
	if plan.Exact {
		r.Total = plan.ToSend
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	r.ID, r.Position, r.Created, r.Updated = uuid.NewString(), r.From-1, now, now
	r.CreatedBy = firstOf(actor(ctx), userID)
	err = s.log().AddReplay(ctx, r)
	if errors.Is(err, eventlog.ErrManyReplays) {
		return nil, conflict("%d replays of endpoint %s already run or wait, one after another; wait until some have "+
			"ended, or cancel some: "+
			"'tidings replays' lists them", eventlog.MaxReplays, r.Endpoint)
	}
	if err != nil {
		return nil, err
	}
	s.Record(ctx, Action{Action: "replay", Endpoint: r.Endpoint, Subject: r.ID})
	if err := s.log().Nudge(ctx); err != nil {
		return nil, err
	}
	out := shownReplay(r)
	return out, s.explainWaits(ctx, out)
}

// explainWaits sets why replays make no progress.
func (s *Service) explainWaits(ctx context.Context, replays ...*Replay) error {
	running := slices.DeleteFunc(slices.Clone(replays),
		func(r *Replay) bool { return r.State != string(eventlog.ReplayRunning) })
	if len(running) == 0 || s.relay() == nil {
		return nil
	}
	endpoints, err := s.Endpoints(ctx)
	if err != nil {
		return err
	}
	unfinished, err := s.log().Replays(ctx, true, 1)
	if err != nil {
		return err
	}
	for _, r := range running {
		for _, e := range endpoints {
			if e.Name == r.Endpoint {
				r.WaitsBecause = e.waitsBecause()
			}
		}
		for _, first := range unfinished {
			if first.Endpoint == r.Endpoint && first.ID != r.ID && r.WaitsBecause == "" {
				r.WaitsBecause = fmt.Sprintf("replay %s of the endpoint comes first", first.ID)
			}
		}
	}
	return nil
}

// bounds finds the first and the last position of a replay.
func (s *Service) bounds(ctx context.Context, in NewReplay, r *eventlog.Replay) error {
	if in.Event != "" {
		e, err := s.find(ctx, in.Event)
		if missing, ok := errors.AsType[*Error](err); ok && missing.NotFound {
			return invalid("event", "%s", missing.Message)
		}
		if err != nil {
			return err
		}
		dead, err := s.log().Parked(ctx,
			eventlog.ParkedFilter{Endpoint: in.Endpoint, Sequence: e.Sequence, Dead: true, Limit: 1})
		r.From, r.To, r.Dead = e.Sequence, e.Sequence, len(dead) > 0
		return err
	}
	var err error
	if r.To, err = s.newest(ctx); err != nil {
		return err
	}
	if in.Dead {
		r.From = 1
		return nil
	}
	if r.From, err = s.log().Oldest(ctx); err != nil || r.Since.IsZero() {
		return err
	}
	from, err := s.log().SequenceAt(ctx, r.Since)
	r.From = max(r.From, from)
	return err
}

// Replays returns the newest replays.
func (s *Service) Replays(ctx context.Context, limit int) (*Page[*Replay], error) {
	all, err := s.log().Replays(ctx, false, limit)
	if err != nil {
		return nil, err
	}
	page := &Page[*Replay]{Items: []*Replay{}}
	for _, r := range all {
		page.Items = append(page.Items, shownReplay(r))
	}
	return page, s.explainWaits(ctx, page.Items...)
}

// GetReplay returns one replay.
func (s *Service) GetReplay(ctx context.Context, id string) (*Replay, error) {
	r, found, err := s.log().Replay(ctx, id)
	if err == nil && !found {
		err = s.noReplay(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	out := shownReplay(r)
	return out, s.explainWaits(ctx, out)
}

// replaysToName is how many replays a wrong id is compared with.
const replaysToName = 100

func (s *Service) noReplay(ctx context.Context, id string) error {
	recent, err := s.log().Replays(ctx, false, replaysToName)
	if err != nil {
		return err
	}
	var ids []string
	for _, r := range recent {
		ids = append(ids, r.ID)
	}
	if nearest := vocabulary.Nearest(id, ids); nearest != "" {
		return notFound("there is no replay %s; did you mean %s?", id, nearest)
	}
	return notFound("there is no replay %s", id)
}

// CancelReplay cancels a replay. Its attempts in flight are finished.
func (s *Service) CancelReplay(ctx context.Context, id string) (*Replay, error) {
	canceled, err := s.log().CancelReplay(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := s.GetReplay(ctx, id)
	if err != nil {
		return nil, err
	}
	if !canceled {
		return nil, conflict("replay %s is already %s", id, r.State)
	}
	s.Record(ctx, Action{Action: "cancel", Endpoint: r.Endpoint, Subject: r.ID})
	return r, s.log().Nudge(ctx)
}

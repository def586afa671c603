package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/vocabulary"
)

// ParkedChange is a retry or discard of many parked events, which runs in the
// background.
type ParkedChange struct {
	ID        string   `json:"id"`
	Action    string   `json:"action" enum:"retry,discard"`
	Endpoint  string   `json:"endpoint"`
	Dead      bool     `json:"dead,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Types     []string `json:"types,omitempty"`
	Resource  string   `json:"resource,omitempty"`
	Total     int64    `json:"total" doc:"How many events matched when it began; no more than these are changed."`
	Done      int64    `json:"done" doc:"How many it has changed. It ends below the total if some were delivered or discarded in the meantime."`
	State     string   `json:"state" enum:"running,done,canceled"`
	Comment   string   `json:"comment,omitempty"`
	Created   string   `json:"created_at"`
	Updated   string   `json:"updated_at"`
	CreatedBy string   `json:"created_by,omitempty" doc:"The name of who began it, such as an e-mail address, or their id."`
}

func shownChange(c eventlog.ParkedChange) *ParkedChange {
	return &ParkedChange{
		ID: c.ID, Action: string(c.Action), Endpoint: c.Endpoint, Dead: c.Dead, Reason: c.Reason, Types: c.Patterns,
		Resource: c.Resource, Total: c.Total, Done: c.Done, State: string(c.State), Comment: c.Comment,
		Created: stamp(c.Created), Updated: stamp(c.Updated), CreatedBy: c.CreatedBy,
	}
}

// begin begins to change many parked events in the background.
func (s *Service) begin(
	ctx context.Context, action eventlog.ParkedAction, in *ParkedSelection, f eventlog.ParkedFilter, total int64,
	comment string,
) (*ParkedChange, error) {
	head, err := s.log().Advance(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	c := eventlog.ParkedChange{
		ID: uuid.NewString(), Action: action, Endpoint: in.Endpoint, Dead: in.Dead, Reason: in.Reason, Patterns: in.Types,
		Resource: f.Resource, Comment: comment, To: head, Total: total, State: eventlog.ReplayRunning,
		Created: now, Updated: now, CreatedBy: actor(ctx),
	}
	err = s.hooks.ChangeParked(ctx, c)
	if errors.Is(err, eventlog.ErrManyParkedChanges) {
		return nil, conflict("%d changes of parked events run or wait already; wait until some have ended, or cancel "+
			"some: 'tidings parked changes' lists them", eventlog.MaxParkedChanges)
	}
	if err != nil {
		return nil, err
	}
	return shownChange(c), nil
}

// ParkedChanges returns the newest retries and discards of many parked events.
func (s *Service) ParkedChanges(ctx context.Context, limit int) (*Page[*ParkedChange], error) {
	all, err := s.log().ParkedChanges(ctx, limit)
	if err != nil {
		return nil, err
	}
	page := &Page[*ParkedChange]{Items: []*ParkedChange{}}
	for _, c := range all {
		page.Items = append(page.Items, shownChange(c))
	}
	return page, nil
}

// changesToName is how many changes a wrong id is compared with.
const changesToName = 100

// ParkedChange returns one retry or discard of many parked events.
func (s *Service) ParkedChange(ctx context.Context, id string) (*ParkedChange, error) {
	c, found, err := s.log().ParkedChange(ctx, id)
	if err != nil {
		return nil, err
	}
	if found {
		return shownChange(c), nil
	}
	recent, err := s.log().ParkedChanges(ctx, changesToName)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range recent {
		ids = append(ids, c.ID)
	}
	if nearest := vocabulary.Nearest(id, ids); nearest != "" {
		return nil, notFound("there is no change %s of parked events; did you mean %s?", id, nearest)
	}
	return nil, notFound("there is no change %s of parked events", id)
}

// CancelParkedChange ends a retry or discard of many parked events. What it has done
// stays done.
func (s *Service) CancelParkedChange(ctx context.Context, id string) (*ParkedChange, error) {
	canceled, err := s.log().CancelParkedChange(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := s.ParkedChange(ctx, id)
	if err != nil {
		return nil, err
	}
	if !canceled {
		return nil, conflict("change %s of parked events is %s already", id, c.State)
	}
	s.Record(ctx, Action{
		Action: "cancel", Endpoint: c.Endpoint, Subject: fmt.Sprintf("%s of %d parked events", c.Action, c.Total),
	})
	return c, nil
}

package operator

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tidings-dev/tidings/eventlog"
)

// NewDiscard selects the dead letters of an endpoint to discard: one or all.
type NewDiscard struct {
	Event string `json:"event,omitempty" minLength:"1" doc:"The id or position of one event."`
	All   bool   `json:"all,omitempty" doc:"All dead letters of the endpoint."`
}

// Discarded is the result of a discard.
type Discarded struct {
	Endpoint  string `json:"endpoint"`
	Discarded int64  `json:"discarded" doc:"How many dead letters."`
}

// Discard removes dead letters of an endpoint, which need not be configured any
// more. With an error, it returns how many it has removed so far.
func (s *Service) Discard(ctx context.Context, endpoint string, in NewDiscard) (*Discarded, error) {
	out := &Discarded{Endpoint: endpoint}
	if in.All == (in.Event != "") {
		return out, invalid("event", "name one event, or set all")
	}
	if err := s.checkEndpoint(ctx, endpoint); err != nil {
		if _, missing := errors.AsType[*Error](err); missing {
			err = s.noEndpoint(endpoint)
		}
		return out, err
	}
	filter := eventlog.ParkedFilter{Endpoint: endpoint, Dead: true, Limit: 1}
	if in.Event != "" {
		var err error
		if filter.Sequence, err = strconv.ParseInt(in.Event, 10, 64); err != nil {
			filter.ID = in.Event
		}
		rows, err := s.log().Parked(ctx, filter)
		if err == nil && len(rows) == 0 {
			err = notFound("endpoint %s has no dead letter %s; 'tidings parked --dead' lists them", endpoint, in.Event)
		}
		if err != nil {
			return out, err
		}
		filter.Sequence = rows[0].Event.Sequence
	}
	var err error
	out.Discarded, err = s.hooks.Discard(ctx, endpoint, filter.Sequence)
	if out.Discarded > 0 {
		s.Record(ctx, Action{
			Action: "discard", Endpoint: endpoint, Subject: fmt.Sprintf("%d dead letters", out.Discarded),
		})
	}
	return out, err
}

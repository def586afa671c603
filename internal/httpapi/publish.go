package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/publish"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Publisher writes events that programs publish.
type Publisher interface {
	Publish(ctx context.Context, events ...outbox.Publication) (ids []string, err error)
}

// publishQuery is a request to publish. The body is read by package publish, since its
// form depends on its type.
type publishQuery struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Key         string `header:"Idempotency-Key" doc:"Within 24 hours, a second request with the same key publishes nothing and gets the same response. The webhook-id of Standard Webhooks counts as one, and so do source and id of each CloudEvent."`
	WebhookID   string `header:"webhook-id" hidden:"true"`
	RawBody     []byte `contentType:"application/json"`
}

type published struct {
	IDs []string `json:"ids" nullable:"false" doc:"The webhook-id of each event, in the order of the request."`
}

// publishRoute adds the operation that publishes events of the given types.
func (a *api) publishRoute(types vocabulary.Types) {
	op := rest.Operation(http.MethodPost, "/events", "publishEvents", "Publish events")
	op.Description = "One event, or a list of at most 1,000: all of them are published, or none. The response comes " +
		"once they are durable."
	op.DefaultStatus = http.StatusAccepted
	op.Errors = []int{http.StatusConflict}
	content := make(map[string]*huma.MediaType)
	for media, description := range map[string]string{
		publish.JSON: "The members of a webhook (event and resource_id are required), or an event of Standard " +
			"Webhooks; " +
			"or a list of them.",
		publish.CloudEvent:       "A CloudEvent in the JSON format.",
		publish.CloudEventsBatch: "A list of CloudEvents in the JSON format.",
	} {
		content[media] = &huma.MediaType{Schema: &huma.Schema{Description: description}}
	}
	content[publish.JSON].Example = map[string]any{"event": "order.created", "resource_id": "42"}
	op.RequestBody = &huma.RequestBody{Required: true, Content: make(map[string]*huma.MediaType)}
	rest.Register(a.API, op, func(ctx context.Context, in *publishQuery) (*rest.Plain[*published], error) {
		who, _ := rest.SessionOf(ctx).(*session)
		if err := who.mayPublish(); err != nil {
			return nil, err
		}
		events, err := publish.Decode(publish.Request{
			ContentType: in.ContentType, Key: cmp.Or(in.Key, in.WebhookID), Publisher: who.ID(), Body: in.RawBody,
		}, types)
		if err != nil {
			return nil, err
		}
		ids, err := a.Publisher.Publish(ctx, events...)
		return rest.Answer(&published{ids}, err)
	})
	a.Huma.OpenAPI().Paths[root+"/events"].Post.RequestBody.Content = content // huma treats it as binary
}

// explainPublishing returns the problem of an error of a request to publish; nil for
// others.
func explainPublishing(err error) *huma.ErrorModel {
	problems, ok := errors.AsType[publish.Problems](err)
	switch {
	case errors.Is(err, publish.ErrContentType):
		return rest.NewProblem(http.StatusUnsupportedMediaType, err.Error())
	case errors.Is(err, eventlog.ErrKeyReused):
		return rest.NewProblem(http.StatusConflict, err.Error())
	case !ok:
		return nil
	}
	p := rest.NewProblem(http.StatusUnprocessableEntity, problems.Error())
	for _, problem := range problems {
		p.Errors = append(p.Errors, &huma.ErrorDetail{Location: problem.Location, Message: problem.Message})
	}
	return p
}

// TableState is the state of a table whose changes create events.
type TableState struct {
	Table  string     `json:"table" doc:"Its schema and name."`
	Type   string     `json:"type"`
	State  string     `json:"state" enum:"attached,drifted,broken,unknown" doc:"drifted: something differs, but changes still create events. broken: some or all changes create none."`
	Detail string     `json:"detail" doc:"What differs, and what to do; empty if nothing does."`
	Gaps   []TableGap `json:"gaps" nullable:"false" doc:"Periods of the last 30 days in which changes may have created no events, newest first, at most 10."`
}

// TableGap is a period in which changes of a table may have created no events.
type TableGap struct {
	Table     string    `json:"table" doc:"The table, or a part of it."`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	Reason    string    `json:"reason"`
	Recovered int64     `json:"recovered" doc:"How many events reported again rows that were written meanwhile. Which rows were deleted meanwhile is unknown."`
}

type tableStates struct {
	Items []TableState `json:"items" nullable:"false"`
}

// tablesRoute adds the operation that lists tables.
func (a *api) tablesRoute() {
	op := rest.Operation(http.MethodGet, "/webhooks/tables", "listTables", "List the tables whose changes create events")
	rest.Register(a.API, op, func(ctx context.Context, _ *struct{}) (*rest.Plain[*tableStates], error) {
		if err := rest.SessionOf(ctx).MayLook(); err != nil {
			return nil, err
		}
		return rest.Answer(&tableStates{a.Tables()}, nil)
	})
}

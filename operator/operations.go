package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/rest"
)

// operations registers the operators' operations with an API.
type operations struct {
	*Service
	api *rest.API
}

// Register adds the operations under /webhooks and the feed at /events to Tidings'
// own server; other programs use [Handler]. The function that it returns handles
// event streams before other requests.
func Register(api *rest.API, s *Service) (streams func(http.Handler) http.Handler) {
	o := &operations{s, api}
	o.addEndpoints()
	o.addEvents()
	o.addParked()
	o.addReplays()
	o.addJournal()
	o.addStatus()
	f := &feed{API: api, types: s.types, source: func() source { return live{s.relay(), s.log()} }}
	f.register()
	return f.streams
}

// Explain returns the problem document of an [Error], for Tidings' own server; nil
// for other errors.
func Explain(err error) *huma.ErrorModel {
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return nil
	case e.NotFound:
		return rest.NewProblem(http.StatusNotFound, e.Message)
	case e.Field != "":
		return rest.FieldProblem(http.StatusUnprocessableEntity, e.Field, e.Message)
	}
	return rest.NewProblem(http.StatusConflict, e.Message)
}

// look adds an operation for viewers, and act one for managers.
func look[I, O any](a *rest.API, op huma.Operation, do func(context.Context, *I) (O, error)) {
	rest.Register(a, op, func(ctx context.Context, in *I) (*rest.Plain[O], error) {
		if err := rest.SessionOf(ctx).MayLook(); err != nil {
			return nil, err
		}
		return rest.Answer(do(ctx, in))
	})
}

func act[I, O any](a *rest.API, op huma.Operation, do func(context.Context, string, *I) (O, error)) {
	rest.Register(a, op, func(ctx context.Context, in *I) (*rest.Plain[O], error) {
		who := rest.SessionOf(ctx)
		if err := who.MayAct(); err != nil {
			return nil, err
		}
		return rest.Answer(do(ctx, who.ID(), in))
	})
}

type byName struct {
	Name string `path:"name" doc:"The endpoint's name, percent-encoded."`
}

// listing is the query of lists of events and attempts.
type listing struct {
	Types    string    `query:"types" doc:"Patterns, separated by commas."`
	Resource string    `query:"resource" doc:"An id, or a type and an id such as provider/<id>."`
	Since    time.Time `query:"since"`
	Until    time.Time `query:"until"`
	Before   int64     `query:"before" minimum:"1" doc:"The value of next from the previous page."`
	Limit    int       `query:"limit" minimum:"1" maximum:"1000" default:"40"`
}

func (o *operations) filter(l *listing) (Filter, error) {
	patterns, err := parsePatterns(o.types(), "types", l.Types)
	return Filter{
		Patterns: patterns, Resource: l.Resource, Since: l.Since, Until: l.Until, Before: l.Before, Limit: l.Limit,
	}, err
}

type none struct{}

func (o *operations) addEndpoints() {
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/endpoints", "listEndpoints", "List endpoints with their state"),
		func(ctx context.Context, _ *none) (*Page[*Endpoint], error) {
			items, err := o.Endpoints(ctx)
			return &Page[*Endpoint]{Items: items}, err
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/endpoints/{name}", "getEndpoint", "Get an endpoint's state"),
		func(ctx context.Context, in *byName) (*Endpoint, error) { return o.Endpoint(ctx, in.Name) })
	pause := rest.Operation(http.MethodPost, "/webhooks/endpoints/{name}/pause", "pauseEndpoint",
		"Pause an endpoint; its events wait in the log")
	act(o.api, pause, func(ctx context.Context, _ string, in *struct {
		Name string `path:"name" doc:"The endpoint's name, percent-encoded."`
		Body *NewPause
	},
	) (*Endpoint, error) {
		if in.Body == nil {
			in.Body = new(NewPause)
		}
		return o.Pause(ctx, in.Name, *in.Body)
	})
	for _, verb := range []struct {
		path, id, summary string
		do                func(context.Context, string) (*Endpoint, error)
	}{
		{"resume", "resumeEndpoint", "Resume a paused endpoint", o.Resume},
		{"enable", "enableEndpoint", "Enable an endpoint that answered 410", o.Enable},
	} {
		op := rest.Operation(http.MethodPost, "/webhooks/endpoints/{name}/"+verb.path, verb.id, verb.summary)
		op.Errors = []int{http.StatusConflict}
		act(o.api, op, func(ctx context.Context, _ string, in *byName) (*Endpoint, error) {
			return verb.do(ctx, in.Name)
		})
	}
	act(o.api, rest.Operation(http.MethodPost, "/webhooks/endpoints/{name}/test", "testEndpoint",
		"Test an endpoint with a webhook.ping"),
		func(ctx context.Context, who string, in *byName) (*Tried, error) { return o.Test(ctx, in.Name, who) })
}

func (o *operations) addEvents() {
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/events", "listWebhookEvents", "List events, newest first"),
		func(ctx context.Context, in *listing) (*Page[Listed], error) {
			return rest.Scanning(ctx, o.api, func() (*Page[Listed], error) {
				f, err := o.filter(in)
				if err != nil {
					return nil, err
				}
				return o.Events(ctx, f)
			})
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/events/{event}", "explainEvent",
		"Explain an event: its state and attempts at every endpoint"),
		func(ctx context.Context, in *struct {
			Event string `path:"event" doc:"Its webhook-id or its position."`
		},
		) (*Explanation, error) {
			return rest.Scanning(ctx, o.api, func() (*Explanation, error) { return o.Explain(ctx, in.Event) })
		})
	type Listing = listing // huma reads only exported types
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/attempts", "listAttempts", "List attempts, newest first"),
		func(ctx context.Context, in *struct {
			Listing
			Endpoint string `query:"endpoint"`
			Outcome  string `query:"outcome" enum:"failures,delivered,merged,discarded,gone,throttled,unauthorized,rejected,refused,failed,unreachable,blocked"`
			Event    string `query:"event" doc:"The webhook-id or position of one event."`
		},
		) (*Page[Attempt], error) {
			return rest.Scanning(ctx, o.api, func() (*Page[Attempt], error) {
				f, err := o.filter(&in.Listing)
				if err != nil {
					return nil, err
				}
				f.Endpoint, f.Outcome, f.Event = in.Endpoint, in.Outcome, in.Event
				return o.Attempts(ctx, f)
			})
		})
}

func (o *operations) addReplays() {
	plan := rest.Operation(http.MethodPost, "/webhooks/replays/plan", "planReplay",
		"Plan a replay without sending anything")
	plan.Errors = []int{http.StatusConflict}
	act(o.api, plan, func(ctx context.Context, _ string, in *rest.WithBody[NewReplay]) (*ReplayPlan, error) {
		return rest.Scanning(ctx, o.api, func() (*ReplayPlan, error) { return o.PlanReplay(ctx, in.Body) })
	})
	begin := rest.Operation(http.MethodPost, "/webhooks/replays", "replay",
		"Create a replay, which sends events again")
	begin.Description = fmt.Sprintf("At least one member must select events; all selects the whole log. A replay that "+
		"would send nothing is refused. Replays of an endpoint run one after another. At most %d of them wait or run; "+
		"another is refused with 409.", eventlog.MaxReplays)
	begin.DefaultStatus = http.StatusCreated
	begin.Errors = []int{http.StatusConflict}
	act(o.api, begin, func(ctx context.Context, who string, in *rest.WithBody[NewReplay]) (*Replay, error) {
		return rest.Scanning(ctx, o.api, func() (*Replay, error) { return o.Replay(ctx, in.Body, who) })
	})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/replays", "listReplays", "List replays, newest first"),
		func(ctx context.Context, in *struct {
			Limit int `query:"limit" minimum:"1" maximum:"1000" default:"40"`
		},
		) (*Page[*Replay], error) {
			return o.Replays(ctx, in.Limit)
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/replays/{id}", "getReplay", "Get the progress of a replay"),
		func(ctx context.Context, in *rest.ByID) (*Replay, error) { return o.GetReplay(ctx, in.ID) })
	cancel := rest.Operation(http.MethodPost, "/webhooks/replays/{id}/cancel", "cancelReplay", "Cancel a replay")
	cancel.Errors = []int{http.StatusConflict}
	act(o.api, cancel,
		func(ctx context.Context, _ string, in *rest.ByID) (*Replay, error) { return o.CancelReplay(ctx, in.ID) })
}

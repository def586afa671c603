package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/webhook"
)

// Everything under /webhooks is for admins.

// admin adds an operation for admins.
func admin[I, O any](a *api, op huma.Operation, do func(ctx context.Context, who resource.Caller, in *I) (O, error)) {
	register(a, op, func(ctx context.Context, who resource.Caller, in *I) (*plain[O], error) {
		if err := who.Need(resource.RoleAdmin); err != nil {
			return nil, err
		}
		return answerPlain(do(ctx, who, in))
	})
}

type byName struct {
	Name string `path:"name" doc:"The endpoint's name, percent-encoded."`
}

// WebhookFilter is the query of lists of events and attempts.
type WebhookFilter struct {
	Types    string    `query:"types" doc:"Patterns, separated by commas."`
	Resource string    `query:"resource" doc:"An id, or a type and an id such as provider/<id>."`
	Since    time.Time `query:"since"`
	Until    time.Time `query:"until"`
	Before   int64     `query:"before" minimum:"1" doc:"The next of the page before."`
	Limit    int       `query:"limit" minimum:"1" maximum:"1000" default:"40"`
}

func (f *WebhookFilter) filter() (webhook.Filter, error) {
	patterns, err := parsePatterns("types", f.Types)
	return webhook.Filter{
		Patterns: patterns, Resource: f.Resource, Since: f.Since, Until: f.Until, Before: f.Before, Limit: f.Limit,
	}, err
}

type none struct{}

func (a *api) webhookRoutes() {
	w := a.Webhooks
	admin(a, operation(http.MethodGet, "/webhooks/endpoints", "listEndpoints", "How all endpoints are doing"),
		func(ctx context.Context, _ resource.Caller, _ *none) (*webhook.Page[*webhook.Endpoint], error) {
			items, err := w.Endpoints(ctx)
			return &webhook.Page[*webhook.Endpoint]{Items: items}, err
		})
	admin(a, operation(http.MethodGet, "/webhooks/endpoints/{name}", "getEndpoint", "How an endpoint is doing"),
		func(ctx context.Context, _ resource.Caller, in *byName) (*webhook.Endpoint, error) {
			return w.Endpoint(ctx, in.Name)
		})
	for _, verb := range []struct {
		path, id, summary string
		do                func(context.Context, string) (*webhook.Endpoint, error)
	}{
		{"pause", "pauseEndpoint", "Stop deliveries; events wait in the log", w.Pause},
		{"resume", "resumeEndpoint", "End a pause", w.Resume},
		{"enable", "enableEndpoint", "Deliver again to an endpoint that wanted no more", w.Enable},
	} {
		op := operation(http.MethodPost, "/webhooks/endpoints/{name}/"+verb.path, verb.id, verb.summary)
		op.Errors = []int{http.StatusConflict}
		admin(a, op,
			func(ctx context.Context, who resource.Caller, in *byName) (*webhook.Endpoint, error) {
				a.Logger.InfoContext(ctx, "operator: "+verb.path, "endpoint", in.Name, "user_id", who.UserID)
				return verb.do(ctx, in.Name)
			})
	}
	admin(a, operation(http.MethodPost, "/webhooks/endpoints/{name}/test", "testEndpoint",
		"Send a webhook.ping, and see what comes of it"),
		func(ctx context.Context, who resource.Caller, in *byName) (*webhook.Tried, error) {
			return w.Test(ctx, in.Name, who.UserID)
		})
	discard := operation(http.MethodPost, "/webhooks/endpoints/{name}/discard", "discardDeadLetters",
		"Remove dead letters of an endpoint: one, or all")
	admin(a, discard, func(ctx context.Context, who resource.Caller, in *struct {
		Name string `path:"name" doc:"The endpoint's name, percent-encoded."`
		Body webhook.NewDiscard
	},
	) (*webhook.Discarded, error) {
		out, err := w.Discard(ctx, in.Name, in.Body)
		if out.Discarded > 0 {
			a.Logger.InfoContext(ctx, "operator: discard dead letters", "endpoint", in.Name, "count",
				out.Discarded, "user_id", who.UserID)
		}
		return out, err
	})
	a.webhookEventRoutes()
	a.replayRoutes()
	admin(a, operation(http.MethodPost, "/webhooks/reload", "reload", "Read the configuration again"),
		func(ctx context.Context, _ resource.Caller, _ *none) (*reloaded, error) {
			if err := a.Reload(ctx); err != nil {
				return nil, &resource.Error{Code: resource.Invalid, Message: err.Error()}
			}
			return &reloaded{Reloaded: true}, nil
		})
}

type reloaded struct {
	Reloaded bool `json:"reloaded"`
}

func (a *api) webhookEventRoutes() {
	w := a.Webhooks
	admin(a, operation(http.MethodGet, "/webhooks/events", "listWebhookEvents", "List events, newest first"),
		scanning(a, func(ctx context.Context, _ resource.Caller, in *WebhookFilter) (*webhook.Page[webhook.Event],
			error,
		) {
			f, err := in.filter()
			if err != nil {
				return nil, err
			}
			return w.Events(ctx, f)
		}))
	admin(a, operation(http.MethodGet, "/webhooks/events/{event}", "explainEvent",
		"What became of an event, for every endpoint, with its attempts"),
		scanning(a, func(ctx context.Context, _ resource.Caller, in *struct {
			Event string `path:"event" doc:"Its webhook-id or its position."`
		},
		) (*webhook.Explanation, error) {
			return w.Explain(ctx, in.Event)
		}))
	admin(a, operation(http.MethodGet, "/webhooks/attempts", "listAttempts", "List attempts, newest first"),
		scanning(a, func(ctx context.Context, _ resource.Caller, in *struct {
			WebhookFilter
			Endpoint string `query:"endpoint"`
			Outcome  string `query:"outcome" enum:"failures,delivered,merged,gone,throttled,unauthorized,rejected,refused,failed,unreachable,blocked"`
			Event    string `query:"event" doc:"The webhook-id or position of one event."`
		},
		) (*webhook.Page[webhook.Attempt], error) {
			f, err := in.filter()
			if err != nil {
				return nil, err
			}
			f.Endpoint, f.Outcome, f.Event = in.Endpoint, in.Outcome, in.Event
			return w.Attempts(ctx, f)
		}))
	admin(a, operation(http.MethodGet, "/webhooks/parked", "listParked",
		"List events that failed on their own, and dead letters"),
		func(ctx context.Context, _ resource.Caller, in *struct {
			Endpoint string `query:"endpoint"`
			Dead     bool   `query:"dead" doc:"Dead letters only."`
			After    string `query:"after" doc:"The next of the page before."`
			Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"40"`
		},
		) (*webhook.ParkedPage, error) {
			return w.Parked(ctx, in.Endpoint, in.Dead, in.After, in.Limit)
		})
}

func (a *api) replayRoutes() {
	w := a.Webhooks
	begin := operation(http.MethodPost, "/webhooks/replays", "replay",
		"Send events again: one, a range of time, some, or all dead letters")
	begin.Description = fmt.Sprintf("Replays of an endpoint run one after another. At most %d of them wait or run; "+
		"another is refused with 409.", eventlog.MaxReplays)
	begin.DefaultStatus = http.StatusCreated
	begin.Errors = []int{http.StatusConflict}
	admin(a, begin, func(ctx context.Context, who resource.Caller, in *withBody[webhook.NewReplay]) (*webhook.Replay,
		error,
	) {
		r, err := w.Replay(ctx, in.Body, who.UserID)
		if err == nil {
			a.Logger.InfoContext(ctx, "operator: replay", "endpoint", r.Endpoint, "replay", r.ID, "user_id", who.UserID)
		}
		return r, err
	})
	admin(a, operation(http.MethodGet, "/webhooks/replays", "listReplays", "List replays, newest first"),
		func(ctx context.Context, _ resource.Caller, in *struct {
			Limit int `query:"limit" minimum:"1" maximum:"1000" default:"40"`
		},
		) (*webhook.Page[*webhook.Replay], error) {
			return w.Replays(ctx, in.Limit)
		})
	admin(a, operation(http.MethodGet, "/webhooks/replays/{id}", "getReplay", "How far a replay has come"),
		func(ctx context.Context, _ resource.Caller, in *ByID) (*webhook.Replay, error) {
			return w.GetReplay(ctx, in.ID)
		})
	cancel := operation(http.MethodPost, "/webhooks/replays/{id}/cancel", "cancelReplay", "End a replay")
	cancel.Errors = []int{http.StatusConflict}
	admin(a, cancel,
		func(ctx context.Context, _ resource.Caller, in *ByID) (*webhook.Replay, error) {
			return w.CancelReplay(ctx, in.ID)
		})
}

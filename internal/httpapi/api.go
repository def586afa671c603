// Package httpapi is the HTTP API: it decodes requests, finds out who makes
// them, calls resource, and writes answers and problems. The OpenAPI document is
// made from the same code.
package httpapi

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/webhook"
)

// Authenticator finds out who makes a request.
type Authenticator interface {
	// Identify returns whose credentials these are, without asking the database.
	Identify(authorization string) (resource.Identity, error)
	// Caller returns the caller behind an identity; the first time, it makes a user.
	Caller(ctx context.Context, id resource.Identity) (resource.Caller, error)
	// Recheck returns what a caller may do now. It is an error if the credentials
	// count no longer or the user is gone; no user is made.
	Recheck(ctx context.Context, authorization string, who resource.Caller) (resource.Caller, error)
	// Changed returns a channel that is closed when other credentials count.
	Changed() <-chan struct{}
}

// Options of the API; all are required that say nothing else.
type Options struct {
	Resources     *resource.Resources
	Webhooks      *webhook.Service
	Feed          Feed
	Log           FeedLog
	Authenticator Authenticator
	Logger        *slog.Logger
	Version       string
	// MaxFileSize is the largest upload, in bytes.
	MaxFileSize int64
	// Ready returns why the server is not ready; nil if it is.
	Ready func(context.Context) error
	// Metrics serves /metrics.
	Metrics http.Handler
	// Reload reads the configuration again.
	Reload func(context.Context) error
	// Stopping is closed once the server stops; requests that wait end then.
	Stopping <-chan struct{}
	// Limits are what requests hold; what is nil is unlimited.
	Limits Limits
	Rates  Rates
	// BodyPace is how long a client may take for a step of a body, see [limit.Body];
	// 0 is as in [limit.DefaultPace].
	BodyPace time.Duration
	// KeepAlive is how often a request that waits for events shows that it is alive,
	// and checks its caller; 0 means 15 s.
	KeepAlive time.Duration
}

// api is what the operations share.
type api struct {
	Options
	huma huma.API
	mux  *router
	// inContext are the tags of operations on resources that may belong to a context.
	inContext map[string]bool
}

const root = "/api/v1"

// New returns the handler of all requests.
func New(o Options) http.Handler {
	o.BodyPace, o.KeepAlive = cmp.Or(o.BodyPace, limit.DefaultPace.Body), cmp.Or(o.KeepAlive, keepAliveTime)
	a := &api{Options: o, mux: newRouter(), inContext: make(map[string]bool)}
	for _, t := range o.Resources.All() {
		a.inContext[tagOf(strings.TrimPrefix(t.URL, root))] = t.InContext
	}
	a.huma = humago.New(a.mux, configuration(o.Version))
	a.huma.UseMiddleware(a.authenticate, a.hold, a.knownQuery, a.checkIfMatch, a.checkParameters, a.limitToContext)
	a.huma.OpenAPI().OnAddOperation = append(a.huma.OpenAPI().OnAddOperation, declareErrors)
	a.routes()
	nullable(a.huma.OpenAPI().Components.Schemas, "Connector", "auth_request")
	a.health()
	a.mux.HandleFunc("/", a.noSuchRoute)
	a.mux.HandleFunc("GET "+root+"/docs", a.docs())
	return sameOrigin(a.recoverPanics(a.paced(a.streams(a.mux))))
}

// nullable notes that a member which is an object may be null, which huma can't say of
// a reference.
func nullable(schemas huma.Registry, name, member string) {
	property := schemas.Map()[name].Properties[member]
	object := *schemas.SchemaFromRef(property.Ref)
	object.Nullable, object.Description = true, property.Description
	schemas.Map()[name].Properties[member] = &object
}

func configuration(version string) huma.Config {
	config := huma.DefaultConfig("Tidings", version)
	config.CreateHooks = nil // bodies hold the resource and no $schema
	config.OpenAPIPath = root + "/openapi"
	config.DocsPath, config.SchemasPath = "", ""
	config.Info.Description = "Resources of an AI-agent platform. Every change is told by webhook. " +
		"Operations that document If-Match compare versions (412); all others refuse it (422)."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token."},
	}
	config.Transformers = []huma.Transformer{boundProblem}
	return config
}

type callerKey struct{}

func caller(ctx context.Context) resource.Caller {
	who, _ := ctx.Value(callerKey{}).(resource.Caller)
	return who
}

// admit returns the caller of a request, unless it makes too many. That is found
// out before the database is asked anything.
func (a *api) admit(w http.ResponseWriter, r *http.Request) (resource.Caller, error) {
	id, err := a.Authenticator.Identify(r.Header.Get("Authorization"))
	if err != nil {
		if _, limited := a.Rates.Strangers.Take(network(r.RemoteAddr)); limited != nil {
			return resource.Caller{}, limited
		}
		return resource.Caller{}, err
	}
	budget, err := a.Rates.Callers.Take(strings.ToLower(id.Email))
	setBudget(w.Header(), budget)
	if err != nil {
		return resource.Caller{}, err
	}
	return a.Authenticator.Caller(r.Context(), id)
}

func (a *api) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	who, err := a.admit(w, r)
	if err != nil {
		a.fail(ctx.Context(), w, err)
		return
	}
	next(huma.WithValue(ctx, callerKey{}, who))
}

// holdsSecrets are the tags of operations that need an encryption key: without it
// they answer 501.
var holdsSecrets = map[string]bool{
	"providers": true, "model_providers": true, "connectors": true,
	"variables": true, "keys": true,
}

// declareErrors adds to the document the errors that follow from what an operation
// takes.
func declareErrors(document *huma.OpenAPI, op *huma.Operation) {
	var statuses []int
	if strings.Contains(op.Path, "{") {
		statuses = append(statuses, http.StatusNotFound)
	}
	for _, p := range op.Parameters {
		switch p.Name {
		case contextParameter.Name, "endpoint", "event":
			statuses = append(statuses, http.StatusNotFound)
		case "If-Match":
			statuses = append(statuses, http.StatusPreconditionFailed)
		}
	}
	if op.RequestBody != nil {
		statuses = append(statuses, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
			http.StatusUnsupportedMediaType)
		body := bodySchema(op)
		if body != nil && body.Ref != "" {
			body = document.Components.Schemas.SchemaFromRef(body.Ref)
		}
		if body != nil && body.Properties["provider_id"] != nil {
			statuses = append(statuses, http.StatusNotFound)
		}
	}
	for _, status := range statuses {
		if op.Responses[strconv.Itoa(status)] != nil {
			continue
		}
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: op.Responses[strconv.Itoa(http.StatusUnauthorized)].Content,
		}
	}
}

// register adds an operation, with what all have in common.
func register[I, O any](a *api, op huma.Operation,
	do func(ctx context.Context, who resource.Caller, in *I) (*O, error),
) {
	op.Path = root + op.Path
	op.Security = []map[string][]string{{"token": {}}}
	// huma gets bodies that were read and checked: it would decode all of one first.
	op.Middlewares = huma.Middlewares{a.readBody(cmp.Or(op.MaxBodyBytes, bodyLimit))}
	op.MaxBodyBytes, op.BodyReadTimeout, op.SkipValidateBody = -1, -1, true
	tag := op.Tags[0]
	if a.inContext[tag] {
		op.Parameters = append(op.Parameters, contextParameter)
	}
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusServiceUnavailable)
	if holdsSecrets[tag] {
		op.Errors = append(op.Errors, http.StatusNotImplemented)
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, caller(ctx), in)
		if gone, ok := errors.AsType[*ExpiredProblem](err); ok {
			return nil, gone
		}
		if err != nil {
			p := a.problem(ctx, err)
			return nil, huma.ErrorWithHeaders(p, failureHeader(p.Status, err))
		}
		return out, nil
	})
}

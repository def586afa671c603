// Package httpapi implements the HTTP API: it decodes and authenticates
// requests, calls package resource, and writes responses and problem documents.
// The OpenAPI document is generated from the same code.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Authenticator authenticates requests.
type Authenticator interface {
	// Identify returns the identity that the credentials attest, without
	// querying the database.
	Identify(authorization string) (resource.Identity, error)
	// Caller returns the caller with an identity, and creates the user on the
	// first call.
	Caller(ctx context.Context, id resource.Identity) (resource.Caller, error)
	// Recheck returns the caller's current permissions. It fails if the
	// credentials are no longer valid or the user is gone; it never creates a
	// user.
	Recheck(ctx context.Context, authorization string, who resource.Caller) (resource.Caller, error)
	// Prove returns a proof that whoever has a secret has the token of the credentials;
	// it reveals neither.
	Prove(authorization, secret string) (proof string, err error)
	// Resume is Recheck with the secret and the proof instead of the credentials.
	Resume(ctx context.Context, secret, proof string, who resource.Caller) (resource.Caller, error)
	// Changed returns a channel that is closed when the set of valid
	// credentials changes.
	Changed() <-chan struct{}
}

// Options configures the API. All fields are required unless noted otherwise.
type Options struct {
	// Resources are the ten types; nil if there are none.
	Resources *resource.Resources
	Webhooks  *operator.Service
	Publisher Publisher
	// Published are the types of events that programs may publish.
	Published vocabulary.Types
	// Events are the types of all events that can occur.
	Events vocabulary.Types
	// Tables returns the state of the tables whose changes create events; nil if there
	// are none.
	Tables        func() []TableState
	Authenticator Authenticator
	// Sessions stores the sessions of the console.
	Sessions eventlog.Sessions
	Logger   *slog.Logger
	Version  string
	// MaxFileSize limits uploads, in bytes.
	MaxFileSize int64
	// Ready returns why the server is not ready, or nil if it is.
	Ready func(context.Context) error
	// Metrics serves /metrics.
	Metrics http.Handler
	// Reload reloads the configuration.
	Reload func(context.Context) (*Reloaded, error)
	// TrustedHeader names users whom a proxy has signed in; nil if there is none.
	TrustedHeader *TrustedHeader
	// Stopping is closed when the server stops; it ends waiting requests.
	Stopping <-chan struct{}
	// Limits limits the resources that requests hold; nil fields are unlimited.
	Limits rest.Limits
	Rates  Rates
	// BodyPace and KeepAlive are as in [rest.Options].
	BodyPace, KeepAlive time.Duration
}

// api is shared by all operations.
type api struct {
	Options
	*rest.API
	mux      *router
	sessions sessions
	// inContext holds the tags of the types whose resources may belong to a
	// context.
	inContext map[string]bool
}

const root = "/api/v1"

// New returns the handler for all requests.
func New(o Options) http.Handler {
	a := &api{Options: o, mux: newRouter(), inContext: make(map[string]bool)}
	a.API = rest.New(a.mux, configuration(o.Version), rest.Options{
		Root: root, Logger: o.Logger, Admit: a.admit, Explain: explain, Limits: o.Limits, BodyPace: o.BodyPace,
		KeepAlive: o.KeepAlive, Stopping: o.Stopping, Security: []map[string][]string{{"token": {}}},
	})
	if o.Resources != nil {
		for _, t := range o.Resources.All() {
			a.inContext[rest.TagOf(strings.TrimPrefix(t.URL, root))] = t.InContext
		}
		a.Huma.UseMiddleware(a.limitToContext)
		a.routes()
		nullable(a.Huma.OpenAPI().Components.Schemas, "Connector", "auth_request")
	}
	streams := operator.Register(a.API, o.Webhooks)
	a.reloadRoute()
	a.publishRoute(o.Published)
	if o.Tables != nil {
		a.tablesRoute()
	}
	a.health()
	a.consoleRoutes()
	a.describeWebhooks()
	a.mux.HandleFunc("/", rest.NoSuchRoute(a.mux, root+"/docs"))
	a.mux.HandleFunc("GET "+root+"/docs", a.docs())
	return a.Wrap(streams(a.mux))
}

// nullable declares an object member nullable, which huma cannot express for a
// reference.
func nullable(schemas huma.Registry, name, member string) {
	property := schemas.Map()[name].Properties[member]
	object := *schemas.SchemaFromRef(property.Ref)
	object.Nullable, object.Description = true, property.Description
	schemas.Map()[name].Properties[member] = &object
}

func configuration(version string) huma.Config {
	config := huma.DefaultConfig("Tidings", version)
	config.Info.Description = "Resources of an AI-agent platform. Every change is announced by webhook. " +
		"Operations that document If-Match compare versions (412); all others reject it (422)."
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An API token."},
	}
	return config
}

// reloadRoute adds the operation that reloads the configuration.
func (a *api) reloadRoute() {
	op := rest.Operation(http.MethodPost, "/webhooks/reload", "reload", "Reload the configuration")
	register(a, op, func(ctx context.Context, who resource.Caller, _ *struct{}) (*rest.Plain[*Reloaded], error) {
		if err := who.Need(resource.RoleAdmin); err != nil {
			return nil, err
		}
		done, err := a.Reload(ctx)
		if problem, ok := errors.AsType[*ReloadError](err); ok {
			return nil, problem
		}
		if err != nil {
			return nil, &resource.Error{Code: resource.Invalid, Message: err.Error()}
		}
		a.Webhooks.Record(ctx, operator.Action{Action: "reload"})
		return rest.Answer(done, nil)
	})
}

// ReloadError is the reason why a configuration was refused.
type ReloadError struct{ Problems []operator.ConfigProblem }

// Error returns the first problem and the number of others.
func (e *ReloadError) Error() string {
	text := e.Problems[0].String()
	if more := len(e.Problems) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

func (e *ReloadError) problem() *huma.ErrorModel {
	p := rest.NewProblem(http.StatusUnprocessableEntity, "the configuration is invalid; the previous one stays in effect")
	for _, problem := range e.Problems {
		p.Errors = append(p.Errors, &huma.ErrorDetail{
			Location: problem.Place(), Message: strings.TrimPrefix(problem.Key+": "+problem.Message, ": "),
		})
	}
	return p
}

// Reloaded is what a reload changed.
type Reloaded struct {
	Reloaded  bool             `json:"reloaded"`
	At        time.Time        `json:"at" doc:"When the configuration was loaded."`
	Unchanged bool             `json:"unchanged,omitempty" doc:"Nothing had changed; endpoints and settings are those of the previous reload, at that time."`
	Endpoints []EndpointChange `json:"endpoints" nullable:"false"`
	Settings  []string         `json:"settings,omitempty" doc:"Other settings that changed."`
	Restart   []string         `json:"restart,omitempty" doc:"Settings that changed and take effect only after a restart."`
	Broken    []string         `json:"broken,omitempty" doc:"What is wrong with endpoint files that were not reloaded, and what is in effect instead."`
}

// EndpointChange is what a reload changed about an endpoint.
type EndpointChange struct {
	Endpoint string   `json:"endpoint"`
	Change   string   `json:"change" enum:"added,removed,changed"`
	Settings []string `json:"settings,omitempty" doc:"Settings that changed, such as timeout."`
	Contents bool     `json:"contents,omitempty" doc:"What files or variables hold changed, such as a secret."`
}

// holdsSecrets has the tags of operations that need an encryption key, and
// answer 501 without one.
var holdsSecrets = map[string]bool{
	"providers": true, "model_providers": true, "connectors": true,
	"variables": true, "keys": true,
}

// register adds an operation, with what all operations of the server have in common.
func register[I, O any](a *api, op huma.Operation,
	do func(ctx context.Context, who resource.Caller, in *I) (*O, error),
) {
	tag := op.Tags[0]
	if a.inContext[tag] {
		op.Parameters = append(op.Parameters, contextParameter)
	}
	if holdsSecrets[tag] {
		op.Errors = append(op.Errors, http.StatusNotImplemented)
	}
	rest.Register(a.API, op, func(ctx context.Context, in *I) (*O, error) { return do(ctx, caller(ctx), in) })
}

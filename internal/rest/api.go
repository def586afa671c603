// Package rest is what the HTTP APIs of the server and of package operator have in
// common: it finds out who makes a request and what is wrong with it, bounds what it
// may hold while it lasts, and writes problem documents (RFC 9457).
package rest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/limit"
)

// Session is the caller of a request, and what they may do with webhooks.
type Session interface {
	// ID identifies the caller, for limits and logs.
	ID() string
	// Name is the caller's display name.
	Name() string
	// MayLook and MayAct return an error if the caller may not.
	MayLook() error
	MayAct() error
	// MayFollow returns an error if the caller may not read the feed; MayRead selects its events.
	MayFollow() error
	// MayRead reports whether the feed shows the caller an event.
	MayRead(e tidings.Event) bool
	// Changes reports whether an event may have changed the caller's permissions.
	Changes(e tidings.Event) bool
	// Changed returns a channel that is closed once the permissions must be checked again; nil if
	// there is no such signal.
	Changed() <-chan struct{}
	// Recheck returns the current permissions. It is an error if there are none.
	Recheck(ctx context.Context) (Session, error)
}

// Options of an API.
type Options struct {
	// Root is the prefix of all paths.
	Root   string
	Logger *slog.Logger
	// Admit returns who makes a request.
	Admit func(w http.ResponseWriter, r *http.Request) (Session, error)
	// Explain returns the problem of an error of the API's own; nil for others.
	Explain func(error) *huma.ErrorModel
	// Security is how callers authenticate, as OpenAPI names it.
	Security []map[string][]string
	Limits   Limits
	// BodyPace is how long a client may take for each step of a body, see
	// [limit.Body]; 0 means [limit.DefaultPace].
	BodyPace time.Duration
	// KeepAlive is how often a request that waits for events sends a sign of
	// life and rechecks its caller; 0 means 15 s.
	KeepAlive time.Duration
	// Stopping is closed once the process stops; requests that wait end then.
	Stopping <-chan struct{}
}

// API is what operations share. Make one with [New].
type API struct {
	Options
	Huma huma.API
}

const keepAliveTime = 15 * time.Second

// New returns an API whose operations are handled by a mux.
func New(mux humago.Mux, config huma.Config, o Options) *API {
	o.BodyPace, o.KeepAlive = cmp.Or(o.BodyPace, limit.DefaultPace.Body), cmp.Or(o.KeepAlive, keepAliveTime)
	config.CreateHooks = nil // bodies have no $schema
	config.OpenAPIPath = o.Root + "/openapi"
	config.DocsPath, config.SchemasPath = "", ""
	config.Transformers = []huma.Transformer{boundProblem}
	a := &API{Options: o, Huma: humago.New(mux, config)}
	a.Huma.UseMiddleware(a.authenticate, a.hold, a.knownQuery, a.checkIfMatch, a.checkParameters)
	a.Huma.OpenAPI().OnAddOperation = append(a.Huma.OpenAPI().OnAddOperation, declareErrors)
	return a
}

// Wrap protects a handler against cross-origin requests, panics and slow clients.
func (a *API) Wrap(next http.Handler) http.Handler { return sameOrigin(a.recoverPanics(a.paced(next))) }

type sessionKey struct{}

// SessionOf returns who makes the request of a context; nil if the caller was not admitted.
func SessionOf(ctx context.Context) Session {
	s, _ := ctx.Value(sessionKey{}).(Session)
	return s
}

// WithSession returns the context of a caller's request.
func WithSession(ctx huma.Context, s Session) huma.Context {
	return huma.WithValue(ctx, sessionKey{}, s)
}

func idOf(ctx context.Context) string {
	if s := SessionOf(ctx); s != nil {
		return s.ID()
	}
	return ""
}

func (a *API) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	who, err := a.Admit(w, r)
	if err != nil {
		a.Fail(ctx.Context(), w, err)
		return
	}
	next(WithSession(ctx, who))
}

// Operation describes a route: id, summary and tag.
func Operation(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{TagOf(path)}}
}

// TagOf is the first segment of a path.
func TagOf(path string) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return tag
}

// ByID is the path of a resource with a UUID. It is exported, like everything that requests embed,
// because huma reads only exported ones.
type ByID struct {
	ID string `path:"id" format:"uuid"`
}

// WithBody is a request with a body.
type WithBody[B any] struct {
	Body B
}

// Plain answers with a body that has no version.
type Plain[B any] struct {
	Body B
}

// Answer answers with a body.
func Answer[B any](body B, err error) (*Plain[B], error) {
	if err != nil {
		return nil, err
	}
	return &Plain[B]{body}, nil
}

// declareErrors documents the errors that follow from an operation's parameters
// and body.
func declareErrors(document *huma.OpenAPI, op *huma.Operation) {
	var statuses []int
	if strings.Contains(op.Path, "{") {
		statuses = append(statuses, http.StatusNotFound)
	}
	for _, p := range op.Parameters {
		switch p.Name {
		case "context_id", "endpoint", "event":
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

// Register adds an operation, with what all operations have in common.
func Register[I, O any](a *API, op huma.Operation, do func(ctx context.Context, in *I) (*O, error)) {
	op.Path = a.Root + op.Path
	op.Security = a.Security
	// The body has been read and checked when huma gets it: huma would decode
	// all of it first.
	op.Middlewares = huma.Middlewares{a.readBody(cmp.Or(op.MaxBodyBytes, bodyLimit))}
	op.MaxBodyBytes, op.BodyReadTimeout, op.SkipValidateBody = -1, -1, true
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusServiceUnavailable)
	huma.Register(a.Huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, in)
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

// Stream begins a request that is answered with an event stream, which huma can't do:
// it admits the caller, checks the query as that of an operation, without the parameters
// that are for pages, and takes a place of Streams until leave is called.
func (a *API) Stream(
	w http.ResponseWriter, r *http.Request, op *huma.Operation, forPages ...string,
) (who Session, leave func(), err error) {
	if who, err = a.Admit(w, r); err != nil {
		return nil, nil, err
	}
	if err := checkQuery(r.URL.RawQuery, op); err != nil {
		return nil, nil, err
	}
	query := r.URL.Query()
	for _, name := range forPages {
		if query.Has(name) {
			return nil, nil, Invalid("query."+name, "applies to pages only; omit it for an event stream")
		}
	}
	if r.Header.Get(ifMatch) != "" {
		return nil, nil, Invalid("header."+ifMatch, "this operation does not compare versions; omit the header")
	}
	leave, err = a.Limits.Streams.Enter(r.Context(), who.ID(), 1)
	return who, leave, err
}

// EndStream tells the reader of an event stream why it has ended.
func (a *API) EndStream(ctx context.Context, w http.ResponseWriter, err error) {
	var problem any = a.problem(ctx, err)
	if gone, ok := errors.AsType[*ExpiredProblem](err); ok {
		problem = gone
	}
	text, _ := json.Marshal(problem)                            // numbers and strings
	_, _ = fmt.Fprintf(w, "event: problem\ndata: %s\n\n", text) // it may be gone
	_ = http.NewResponseController(w).Flush()
}

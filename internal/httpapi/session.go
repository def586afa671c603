package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/operator"
)

// session is the caller of a request.
type session struct {
	api           *api
	authorization string
	who           resource.Caller
}

func caller(ctx context.Context) resource.Caller {
	if s, ok := rest.SessionOf(ctx).(*session); ok {
		return s.who
	}
	return resource.Caller{}
}

// admit returns the caller of a request, unless the caller exceeds their rate
// limit, which is checked before the database is queried.
func (a *api) admit(w http.ResponseWriter, r *http.Request) (rest.Session, error) {
	authorization := r.Header.Get("Authorization")
	id, err := a.Authenticator.Identify(authorization)
	if err != nil {
		if _, limited := a.Rates.Strangers.Take(network(r.RemoteAddr)); limited != nil {
			return nil, limited
		}
		return nil, err
	}
	budget, err := a.Rates.Callers.Take(strings.ToLower(id.Email))
	setBudget(w.Header(), budget)
	if err != nil {
		return nil, err
	}
	who, err := a.Authenticator.Caller(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return &session{a, authorization, who}, nil
}

// ID implements [rest.Session].
func (s *session) ID() string { return s.who.UserID }

// MayLook implements [rest.Session]: everything under /webhooks is for admins.
func (s *session) MayLook() error { return s.who.Need(resource.RoleAdmin) }

// MayAct implements [rest.Session].
func (s *session) MayAct() error { return s.who.Need(resource.RoleAdmin) }

// MayRead implements [rest.Session].
func (s *session) MayRead(e tidings.Event) bool {
	if s.api.Resources == nil {
		return s.MayLook() == nil
	}
	return s.api.Resources.MayRead(s.who, e)
}

// Changes implements [rest.Session]: a change of the caller's own user may.
func (s *session) Changes(e tidings.Event) bool {
	return e.Type == resource.UserType && e.ResourceID == s.who.UserID
}

// Changed implements [rest.Session].
func (s *session) Changed() <-chan struct{} { return s.api.Authenticator.Changed() }

// Recheck implements [rest.Session].
func (s *session) Recheck(ctx context.Context) (rest.Session, error) {
	who, err := s.api.Authenticator.Recheck(ctx, s.authorization, s.who)
	if err != nil {
		return nil, err
	}
	return &session{s.api, s.authorization, who}, nil
}

// contextParameter is accepted by all operations on types that may belong to a
// context.
var contextParameter = &huma.Param{
	Name: "context_id", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"},
	Description: "Restricts the request to this context; new resources are created in it.",
}

// limitToContext restricts a request to the context named in its query.
func (a *api) limitToContext(ctx huma.Context, next func(huma.Context)) {
	id := ctx.Query(contextParameter.Name)
	if id == "" || !slices.Contains(ctx.Operation().Parameters, contextParameter) {
		next(ctx)
		return
	}
	s := &session{a, ctx.Header("Authorization"), caller(ctx.Context())}
	s.who.ContextID = id
	next(rest.WithSession(ctx, s))
}

var statuses = map[resource.Code]int{
	resource.Invalid:         http.StatusUnprocessableEntity,
	resource.Unusable:        http.StatusBadRequest,
	resource.Unauthenticated: http.StatusUnauthorized,
	resource.Forbidden:       http.StatusForbidden,
	resource.NotFound:        http.StatusNotFound,
	resource.Conflict:        http.StatusConflict,
	resource.Changed:         http.StatusPreconditionFailed,
	resource.TooLarge:        http.StatusRequestEntityTooLarge,
	resource.NotConfigured:   http.StatusNotImplemented,
	resource.RemoteFailed:    http.StatusBadGateway,
	resource.RemoteTimeout:   http.StatusGatewayTimeout,
	resource.Busy:            http.StatusServiceUnavailable,
}

// explain returns the problem of an error of resources or of operators; nil for others.
func explain(err error) *huma.ErrorModel {
	if e, ok := errors.AsType[*resource.Error](err); ok {
		return rest.FieldProblem(statuses[e.Code], e.Field, e.Message)
	}
	return operator.Explain(err)
}

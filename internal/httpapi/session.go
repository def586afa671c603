package httpapi

import (
	"context"
	"errors"
	"fmt"
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
	name          string
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
	return &session{a, authorization, id.Email, who}, nil
}

// Name implements [rest.Session].
func (s *session) Name() string { return s.name }

// ID implements [rest.Session].
func (s *session) ID() string { return s.who.UserID }

// The roles of a relay, besides [resource.RoleAdmin] and [resource.RoleReader], which may
// also look at a server.
const (
	rolePublisher resource.Role = "publisher"
	roleOperator  resource.Role = "operator"
)

// has returns an error unless the caller is an admin or has one of the roles.
func (s *session) has(roles ...resource.Role) error {
	roles = append(roles, resource.RoleAdmin)
	if slices.Contains(roles, s.who.Role) {
		return nil
	}
	if s.api.Resources != nil { // if only admins may
		return s.who.Need(resource.RoleAdmin)
	}
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = string(role)
	}
	return &resource.Error{Code: resource.Forbidden, Message: fmt.Sprintf("requires the role %s; yours is %s",
		strings.Join(names, " or "), s.who.Role)}
}

// MayLook implements [rest.Session].
func (s *session) MayLook() error { return s.has(resource.RoleReader, roleOperator) }

// MayAct implements [rest.Session].
func (s *session) MayAct() error { return s.has(roleOperator) }

func (s *session) mayPublish() error { return s.has(rolePublisher) }

// MayFollow implements [rest.Session].
func (s *session) MayFollow() error {
	if s.api.Resources == nil {
		return s.MayLook()
	}
	return nil
}

// MayRead implements [rest.Session].
func (s *session) MayRead(e tidings.Event) bool {
	return s.api.Resources == nil || s.api.Resources.MayRead(s.who, e)
}

// Changes implements [rest.Session]: a change of the caller's own user may change permissions.
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
	return &session{s.api, s.authorization, s.name, who}, nil
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
	s := &session{a, ctx.Header("Authorization"), rest.SessionOf(ctx.Context()).Name(), caller(ctx.Context())}
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
	if e, ok := errors.AsType[*ReloadError](err); ok {
		return e.problem()
	}
	if p := explainPublishing(err); p != nil {
		return p
	}
	return operator.Explain(err)
}

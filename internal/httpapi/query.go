package httpapi

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/internal/resource"
)

// knownQuery refuses query parameters that an operation does not document: a
// misspelled filter must not answer with everything.
func (a *api) knownQuery(ctx huma.Context, next func(huma.Context)) {
	if u := ctx.URL(); u.RawQuery != "" {
		if err := checkQuery(u.RawQuery, ctx.Operation()); err != nil {
			a.refuseQuery(ctx, err)
			return
		}
	}
	next(ctx)
}

// contextParameter is known to all operations on what may belong to a context.
var contextParameter = &huma.Param{
	Name: "context_id", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"},
	Description: "Limits the request to what belongs to this context; what is created belongs to it.",
}

// limitToContext limits a request to the context that its query names.
func (a *api) limitToContext(ctx huma.Context, next func(huma.Context)) {
	text := ctx.Query(contextParameter.Name)
	if text == "" || !slices.Contains(ctx.Operation().Parameters, contextParameter) {
		next(ctx)
		return
	}
	id, err := uuid.Parse(text)
	if err != nil {
		a.refuseQuery(ctx, &resource.Error{Code: resource.Invalid, Field: "query.context_id", Message: "expected a UUID"})
		return
	}
	who := caller(ctx.Context())
	who.ContextID = id.String()
	next(huma.WithValue(ctx, callerKey{}, who))
}

func (a *api) refuseQuery(ctx huma.Context, err error) {
	p := a.problem(ctx.Context(), err)
	_, w := humago.Unwrap(ctx)
	writeProblem(w, p.Status, p)
}

// checkQuery returns an error for a query that can't be parsed, and for a
// parameter that is unknown or given more than once.
func checkQuery(raw string, op *huma.Operation) error {
	given, err := url.ParseQuery(raw)
	if err != nil {
		return &resource.Error{Code: resource.Invalid, Field: "query", Message: "is not a valid query string: " + err.Error()}
	}
	var known []string
	for _, p := range op.Parameters {
		if p.In == "query" {
			known = append(known, p.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		field := "query." + name
		switch {
		case !slices.Contains(known, name) && known == nil:
			return &resource.Error{Code: resource.Invalid, Field: field, Message: "unknown parameter: this operation takes none"}
		case !slices.Contains(known, name):
			return &resource.Error{
				Code: resource.Invalid, Field: field,
				Message: "unknown parameter: this operation takes " + strings.Join(known, ", "),
			}
		case len(given[name]) > 1:
			return &resource.Error{Code: resource.Invalid, Field: field, Message: "given more than once"}
		}
	}
	return nil
}

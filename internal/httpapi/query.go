package httpapi

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/resource"
)

// knownQuery refuses query parameters that an operation does not document: a
// misspelled filter must not answer with everything.
func (a *api) knownQuery(ctx huma.Context, next func(huma.Context)) {
	if u := ctx.URL(); u.RawQuery != "" {
		if err := checkQuery(u.RawQuery, ctx.Operation()); err != nil {
			p := a.problem(ctx.Context(), err)
			_, w := humago.Unwrap(ctx)
			writeProblem(w, p.Status, p)
			return
		}
	}
	next(ctx)
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

package rest

import (
	"errors"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/valid"
)

// knownQuery refuses query parameters that an operation does not document: a
// misspelled filter must not answer with everything.
func (a *API) knownQuery(ctx huma.Context, next func(huma.Context)) {
	if u := ctx.URL(); u.RawQuery != "" {
		if err := checkQuery(u.RawQuery, ctx.Operation()); err != nil {
			a.refuseParameter(ctx, err)
			return
		}
	}
	next(ctx)
}

// checkIfMatch refuses If-Match where an operation does not heed it, and one that it
// would not understand: a change that is meant for one version must not be made to
// another.
func (a *API) checkIfMatch(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	given := r.Header.Values(ifMatch)
	heeds := slices.ContainsFunc(ctx.Operation().Parameters, func(p *huma.Param) bool { return p.Name == ifMatch })
	message := ""
	switch {
	case len(given) == 0:
	case !heeds:
		message = "this operation does not compare versions; leave it out"
	case len(given) > 1 || !oneTag.MatchString(given[0]):
		message = `expected *, or one ETag such as "3"`
	}
	if message != "" {
		a.refuseParameter(ctx, Invalid("header."+ifMatch, message))
		return
	}
	next(ctx)
}

// oneTag is an If-Match with one entity tag (RFC 9110, section 8.8.3), or any.
var oneTag = regexp.MustCompile(`^(\*|(W/)?"[\x21\x23-\x7e]*")$`)

const ifMatch = "If-Match"

// checkParameters refuses parameters that hold what is no text, and ids that are
// none. Ids go on as they are kept.
func (a *API) checkParameters(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	query, changed := r.URL.Query(), false
	for _, p := range ctx.Operation().Parameters {
		value := parameter(ctx, p)
		err := valid.Text(value)
		if err == nil && value != "" && p.Schema.Format == "uuid" {
			id, ok := valid.UUID(value)
			switch {
			case !ok:
				err = errNoUUID
			case id == value:
			case p.In == "path":
				r.SetPathValue(p.Name, id)
			case p.In == "query":
				query.Set(p.Name, id)
				changed = true
			}
		}
		if err != nil {
			a.refuseParameter(ctx,
				Invalid(p.In+"."+p.Name, err.Error()))
			return
		}
	}
	if changed {
		r.URL.RawQuery = query.Encode()
	}
	next(ctx)
}

var errNoUUID = errors.New("expected a UUID, such as 550e8400-e29b-41d4-a716-446655440000")

// parameter returns a parameter as it was sent; empty if it was not.
func parameter(ctx huma.Context, p *huma.Param) string {
	switch p.In {
	case "path":
		return ctx.Param(p.Name)
	case "query":
		return ctx.Query(p.Name)
	case "header":
		return ctx.Header(p.Name)
	}
	return ""
}

func (a *API) refuseParameter(ctx huma.Context, err error) {
	p := a.problem(ctx.Context(), err)
	_, w := humago.Unwrap(ctx)
	writeProblem(w, p.Status, p)
}

// checkQuery returns an error for a query that can't be parsed, and for a
// parameter that is unknown, empty or given more than once.
func checkQuery(raw string, op *huma.Operation) error {
	given, err := url.ParseQuery(raw)
	if err != nil {
		return Invalid("query", "is not a valid query string: "+err.Error())
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
			return Invalid(field, "unknown parameter: this operation takes none")
		case !slices.Contains(known, name):
			return Invalid(field, "unknown parameter: this operation takes "+strings.Join(known, ", "))
		case len(given[name]) > 1:
			return Invalid(field, "given more than once")
		case strings.TrimSpace(given[name][0]) == "":
			return Invalid(field, "is empty; leave it out")
		}
	}
	return nil
}

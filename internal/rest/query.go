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

// knownQuery rejects undocumented query parameters, so that a misspelled filter
// does not return everything.
func (a *API) knownQuery(ctx huma.Context, next func(huma.Context)) {
	if u := ctx.URL(); u.RawQuery != "" {
		if err := checkQuery(u.RawQuery, ctx.Operation()); err != nil {
			a.refuseParameter(ctx, err)
			return
		}
	}
	next(ctx)
}

// checkIfMatch rejects If-Match on operations that ignore it, and values that
// cannot be parsed: a change intended for one version must not be applied to
// another.
func (a *API) checkIfMatch(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	given := r.Header.Values(ifMatch)
	heeds := slices.ContainsFunc(ctx.Operation().Parameters, func(p *huma.Param) bool { return p.Name == ifMatch })
	message := ""
	switch {
	case len(given) == 0:
	case !heeds:
		message = "this operation does not compare versions; omit the header"
	case len(given) > 1 || !oneTag.MatchString(given[0]):
		message = `expected * or a single ETag such as "3"`
	}
	if message != "" {
		a.refuseParameter(ctx, Invalid("header."+ifMatch, message))
		return
	}
	next(ctx)
}

// oneTag matches an If-Match with a single entity tag (RFC 9110, section 8.8.3)
// or *.
var oneTag = regexp.MustCompile(`^(\*|(W/)?"[\x21\x23-\x7e]*")$`)

const ifMatch = "If-Match"

// checkParameters rejects parameters that are not valid text and malformed ids.
// Valid ids are passed on in their stored form.
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

// parameter returns the value of a parameter, or "" if it is absent.
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

// checkQuery returns an error for a query that cannot be parsed, and for
// unknown, empty and repeated parameters.
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
			return Invalid(field, "unknown parameter; this operation takes none")
		case !slices.Contains(known, name):
			return Invalid(field, "unknown parameter; this operation takes "+strings.Join(known, ", "))
		case len(given[name]) > 1:
			return Invalid(field, "given more than once")
		case strings.TrimSpace(given[name][0]) == "":
			return Invalid(field, "must not be empty; omit it instead")
		}
	}
	return nil
}

package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/internal/resource"
)

// The verbs: what the routes of all types have in common. A route is one line
// with one of them.

// The types that requests embed are exported because huma reads no others.

// ByID is the path of a resource.
type ByID struct {
	ID string `path:"id" format:"uuid"`
}

// Precondition is the header of a change.
type Precondition struct {
	IfMatch string `header:"If-Match" doc:"The ETag of the version that the change is meant for."`
}

// version is the version that If-Match names: 0 for any, and one that no
// resource has for what is no version.
func (m Precondition) version() int64 {
	if m.IfMatch == "" || m.IfMatch == "*" {
		return 0
	}
	version, err := strconv.ParseInt(strings.Trim(m.IfMatch, `"`), 10, 64)
	if err != nil || version < 1 {
		return -1
	}
	return version
}

type withBody[B any] struct {
	Body B
}

type changeOf[B any] struct {
	ByID
	Precondition
	Body B
}

type removal struct {
	ByID
	Precondition
}

type nothing struct{}

// one answers with a resource.
type one[R any] struct {
	ETag string `header:"ETag"`
	Body R
}

func answer[R resource.Row](row R, err error) (*one[R], error) {
	if err != nil {
		return nil, err
	}
	return &one[R]{ETag: row.ETag(), Body: row}, nil
}

// plain answers with something that has no version.
type plain[B any] struct {
	Body B
}

func answerPlain[B any](b B, err error) (*plain[B], error) {
	if err != nil {
		return nil, err
	}
	return &plain[B]{Body: b}, nil
}

// null is the body of answers that the SDKs of the Agent Stack expect to be empty.
type null struct{}

// MarshalJSON implements [json.Marshaler].
func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// Schema implements [huma.SchemaProvider].
func (null) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: "null"} }

// made answers with where to read what was created, and nothing else.
type made struct {
	Location string `header:"Location" doc:"The path of what was created, which ends with its id."`
	Body     null
}

// operation describes a route: id, summary and tag.
func operation(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{tagOf(path)}}
}

// tagOf is the first segment of a path.
func tagOf(path string) string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return tag
}

func create[B any, R resource.Row](a *api, path, id, summary string,
	do func(context.Context, resource.Caller, B) (R, error),
) {
	op := operation(http.MethodPost, path, id, summary)
	op.DefaultStatus = http.StatusCreated
	op.Errors = []int{http.StatusConflict}
	register(a, op, func(ctx context.Context, who resource.Caller, in *withBody[B]) (*one[R], error) {
		return answer(do(ctx, who, in.Body))
	})
}

func get[R resource.Row](a *api, path, id, summary string,
	do func(context.Context, resource.Caller, string) (R, error),
) {
	register(a, operation(http.MethodGet, path, id, summary),
		func(ctx context.Context, who resource.Caller, in *ByID) (*one[R], error) {
			return answer(do(ctx, who, in.ID))
		})
}

func change[B any, R resource.Row](a *api, method, path, id, summary string,
	do func(context.Context, resource.Caller, string, int64, B) (R, error),
) {
	op := operation(method, path, id, summary)
	op.Errors = []int{http.StatusConflict}
	register(a, op, func(ctx context.Context, who resource.Caller, in *changeOf[B]) (*one[R], error) {
		return answer(do(ctx, who, in.ID, in.version(), in.Body))
	})
}

func remove(a *api, path, id, summary string, do func(context.Context, resource.Caller, string, int64) error) {
	op := operation(http.MethodDelete, path, id, summary)
	op.Errors = []int{http.StatusConflict}
	register(a, op, func(ctx context.Context, who resource.Caller, in *removal) (*nothing, error) {
		return nil, do(ctx, who, in.ID, in.version())
	})
}

// Cut is the part of a list that is wanted.
type Cut struct {
	Limit     int64  `query:"limit" minimum:"1" maximum:"100" default:"40"`
	PageToken string `query:"page_token" format:"uuid" doc:"The id of the last item of the page before."`
	Order     string `query:"order" enum:"asc,desc" default:"desc"`
}

func (c Cut) by(column string) resource.Page {
	return resource.Page{Limit: c.Limit, Token: c.PageToken, OrderBy: column, Descending: c.Order == "desc"}
}

// Paging is the query of lists of resources.
type Paging struct {
	Cut
	OrderBy string `query:"order_by" enum:"created_at,updated_at" default:"created_at"`
}

func (p Paging) page() resource.Page { return p.by(p.OrderBy) }

// list answers with a part of a list; I is [Paging] or the like, and filters.
func list[I, R any](a *api, path, id, summary string,
	do func(context.Context, resource.Caller, *I) (*resource.Items[R], error),
) {
	register(a, operation(http.MethodGet, path, id, summary),
		func(ctx context.Context, who resource.Caller, in *I) (*plain[*resource.Items[R]], error) {
			return answerPlain(do(ctx, who, in))
		})
}

// choice is nil for a choice that was not made.
func choice(text string) *bool {
	if text == "" {
		return nil
	}
	yes := text == "true"
	return &yes
}

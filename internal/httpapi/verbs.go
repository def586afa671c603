package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
)

// The verbs register routes and implement what the routes of all types have in
// common. A route is one line that calls one of them.

// The types that requests embed are exported because huma ignores others.

// Precondition holds the precondition of a change.
type Precondition struct {
	IfMatch string `header:"If-Match" doc:"The ETag of the version to change."`
}

// version returns the version in If-Match: 0 for any, and a version that no
// resource has if it is not one of ours.
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

type changeOf[B any] struct {
	rest.ByID
	Precondition
	Body B
}

type removal struct {
	rest.ByID
	Precondition
}

type nothing struct{}

// one is a response with a resource.
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

// null is the body of responses that the SDKs of the Agent Stack expect to be
// empty.
type null struct{}

// MarshalJSON implements [json.Marshaler].
func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// Schema implements [huma.SchemaProvider].
func (null) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: "null"} }

// created is a response with the path of a new resource.
type created struct {
	Location string `header:"Location" doc:"The path of the new resource, which ends with its id."`
	Body     null
}

// itemsLimit is for the items of a vector store, which are added in bulk.
const itemsLimit = 16 << 20

// scanning runs an operation that reads very many rows.
func scanning[I, O any](a *api, do func(context.Context, resource.Caller, I) (O, error)) func(context.Context,
	resource.Caller, I) (O, error) {
	return func(ctx context.Context, who resource.Caller, in I) (O, error) {
		return rest.Scanning(ctx, a.API, func() (O, error) { return do(ctx, who, in) })
	}
}

func create[B any, R resource.Row](a *api, path, id, summary string,
	do func(context.Context, resource.Caller, B) (R, error),
) {
	op := rest.Operation(http.MethodPost, path, id, summary)
	op.DefaultStatus = http.StatusCreated
	op.Errors = []int{http.StatusConflict}
	register(a, op, func(ctx context.Context, who resource.Caller, in *rest.WithBody[B]) (*one[R], error) {
		return answer(do(ctx, who, in.Body))
	})
}

func get[R resource.Row](a *api, path, id, summary string,
	do func(context.Context, resource.Caller, string) (R, error),
) {
	register(a, rest.Operation(http.MethodGet, path, id, summary),
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*one[R], error) {
			return answer(do(ctx, who, in.ID))
		})
}

func change[B any, R resource.Row](a *api, method, path, id, summary string,
	do func(context.Context, resource.Caller, string, int64, B) (R, error),
) {
	op := rest.Operation(method, path, id, summary)
	op.Errors = []int{http.StatusConflict}
	register(a, op, func(ctx context.Context, who resource.Caller, in *changeOf[B]) (*one[R], error) {
		return answer(do(ctx, who, in.ID, in.version(), in.Body))
	})
}

func remove(a *api, path, id, summary string, do func(context.Context, resource.Caller, string, int64) error) {
	op := rest.Operation(http.MethodDelete, path, id, summary)
	op.Errors = []int{http.StatusConflict}
	register(a, op, func(ctx context.Context, who resource.Caller, in *removal) (*nothing, error) {
		return nil, do(ctx, who, in.ID, in.version())
	})
}

// Cut selects a page of a list.
type Cut struct {
	Limit     int64  `query:"limit" minimum:"1" maximum:"100" default:"40"`
	PageToken string `query:"page_token" format:"uuid" doc:"The id of the last item of the previous page."`
	Order     string `query:"order" enum:"asc,desc" default:"desc"`
}

func (c Cut) by(column string) resource.Page {
	return resource.Page{Limit: c.Limit, Token: c.PageToken, OrderBy: column, Descending: c.Order == "desc"}
}

// Paging holds the query parameters of lists of resources.
type Paging struct {
	Cut
	OrderBy string `query:"order_by" enum:"created_at,updated_at" default:"created_at"`
}

func (p Paging) page() resource.Page { return p.by(p.OrderBy) }

// list registers a route that returns a page of a list; I embeds [Paging] or a
// similar type and adds filters.
func list[I, R any](a *api, path, id, summary string,
	do func(context.Context, resource.Caller, *I) (*resource.Items[R], error),
) {
	register(a, rest.Operation(http.MethodGet, path, id, summary),
		func(ctx context.Context, who resource.Caller, in *I) (*rest.Plain[*resource.Items[R]], error) {
			return rest.Answer(do(ctx, who, in))
		})
}

// choice returns nil if the parameter was omitted.
func choice(text string) *bool {
	if text == "" {
		return nil
	}
	yes := text == "true"
	return &yes
}

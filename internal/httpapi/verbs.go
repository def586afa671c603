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

// The verbs: what the routes of all types have in common. A route is one line
// with one of them.

// The types that requests embed are exported because huma reads no others.

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

// itemsLimit is for the items of a vector store, of which many come at once.
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
	register(a, rest.Operation(http.MethodGet, path, id, summary),
		func(ctx context.Context, who resource.Caller, in *I) (*rest.Plain[*resource.Items[R]], error) {
			return rest.Answer(do(ctx, who, in))
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

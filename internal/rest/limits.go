package rest

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/limit"
)

// Limits limits the resources that requests hold while they last. A request
// takes one place of Streams if it waits for events, of Uploads if it uploads a
// file, and of Requests otherwise. It also takes one of Scans while it reads
// very many rows. A large JSON body takes as many places of Bodies as it has
// bytes.
type Limits struct {
	Requests, Streams, Uploads, Scans, Bodies *limit.Places
}

// Keys of an operation's metadata: the places that a request takes one of, and the
// parameter of the query with which it waits for events.
const (
	Places = "places"
	Waits  = "waits"
)

// placesOf returns the places from which a request takes one.
func (a *API) placesOf(ctx huma.Context) *limit.Places {
	op := ctx.Operation()
	if wait, ok := op.Metadata[Waits].(string); ok && ctx.Query(wait) != "" {
		return a.Limits.Streams
	}
	if places, ok := op.Metadata[Places].(*limit.Places); ok {
		return places
	}
	return a.Limits.Requests
}

// hold takes a place for a request until it is answered.
func (a *API) hold(ctx huma.Context, next func(huma.Context)) {
	leave, err := a.placesOf(ctx).Enter(ctx.Context(), idOf(ctx.Context()), 1)
	if err != nil {
		_, w := humago.Unwrap(ctx)
		a.Fail(ctx.Context(), w, err)
		return
	}
	defer leave()
	next(ctx)
}

// Scanning runs an operation that reads very many rows. Its place is free again
// before the answer is written, which may take long.
func Scanning[O any](ctx context.Context, a *API, do func() (O, error)) (out O, err error) {
	leave, err := a.Limits.Scans.Enter(ctx, idOf(ctx), 1)
	if err != nil {
		return out, err
	}
	defer leave()
	return do()
}

// paced enforces a minimum pace for request bodies, even for those that no
// handler reads and the server drains to keep the connection.
func (a *API) paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setDeadline := http.NewResponseController(w).SetReadDeadline
		if r.Body != http.NoBody && setDeadline(time.Now().Add(a.BodyPace)) == nil {
			r.Body = limit.Body(r.Body, a.BodyPace, setDeadline)
		}
		next.ServeHTTP(w, r)
	})
}

// retryTime is the Retry-After of a 503 whose end is unknown.
const retryTime = 5 * time.Second

// failureHeader returns the headers that accompany an error.
func failureHeader(status int, err error) http.Header {
	h := make(http.Header)
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		after := retryTime
		if busy, ok := errors.AsType[*limit.BusyError](err); ok {
			after = busy.RetryAfter
		}
		h.Set("Retry-After", Seconds(after))
	case http.StatusTooManyRequests:
		if limited, ok := errors.AsType[*limit.RateError](err); ok {
			h.Set("Retry-After", Seconds(limited.RetryAfter))
		}
	}
	return h
}

// Seconds is a duration in whole seconds, at least one.
func Seconds(d time.Duration) string {
	return strconv.FormatInt(max(int64(math.Ceil(d.Seconds())), 1), 10)
}

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
)

// Limits are what requests hold while they last. A request takes one place of
// Streams if it waits for events, of Uploads if it writes a file's content, and of
// Requests otherwise; and one of Scans while it reads very many rows.
type Limits struct {
	Requests, Streams, Uploads, Scans *limit.Places
}

// keepsPlace is the key of the places that an operation takes one of.
const keepsPlace = "places"

// placesOf returns the places of which a request takes one.
func (a *api) placesOf(ctx huma.Context) *limit.Places {
	op := ctx.Operation()
	if op.OperationID == readEvents && ctx.Query("wait") != "" {
		return a.Limits.Streams
	}
	if places, ok := op.Metadata[keepsPlace].(*limit.Places); ok {
		return places
	}
	return a.Limits.Requests
}

// hold takes a place for a request until it is answered.
func (a *api) hold(ctx huma.Context, next func(huma.Context)) {
	leave, err := a.placesOf(ctx).Enter(ctx.Context(), caller(ctx.Context()).UserID, 1)
	if err != nil {
		_, w := humago.Unwrap(ctx)
		a.fail(ctx.Context(), w, err)
		return
	}
	defer leave()
	next(ctx)
}

// scanning runs an operation that reads very many rows. Its place is free again
// before the answer is written, which may take long.
func scanning[I, O any](a *api, do func(context.Context, resource.Caller, I) (O, error)) func(context.Context, resource.Caller, I) (O, error) {
	return func(ctx context.Context, who resource.Caller, in I) (out O, err error) {
		leave, err := a.Limits.Scans.Enter(ctx, who.UserID, 1)
		if err != nil {
			return out, err
		}
		defer leave()
		return do(ctx, who, in)
	}
}

// paced bounds how slowly the body of a request may come, also one that nobody
// reads, which the server reads on to keep the connection.
func (a *api) paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setDeadline := http.NewResponseController(w).SetReadDeadline
		if r.Body != http.NoBody && setDeadline(time.Now().Add(a.BodyPace)) == nil {
			r.Body = limit.Body(r.Body, a.BodyPace, setDeadline)
		}
		next.ServeHTTP(w, r)
	})
}

// retryTime is when to try again after a 503 of which no one knows when it ends.
const retryTime = 5 * time.Second

// failureHeader is what goes with the problem of an error.
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
		h.Set("Retry-After", strconv.Itoa(int(after.Seconds())))
	}
	return h
}

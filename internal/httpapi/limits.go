package httpapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
)

// Limits are what requests hold while they last. A request takes one place of
// Streams if it waits for events, of Uploads if it writes a file's content, and of
// Requests otherwise; and one of Scans while it reads very many rows. A large JSON
// body takes as many of Bodies as it has bytes.
type Limits struct {
	Requests, Streams, Uploads, Scans, Bodies *limit.Places
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
func scanning[I, O any](a *api, do func(context.Context, resource.Caller, I) (O, error)) func(context.Context,
	resource.Caller, I) (O, error) {
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
		h.Set("Retry-After", seconds(after))
	case http.StatusTooManyRequests:
		if limited, ok := errors.AsType[*limit.RateError](err); ok {
			h.Set("Retry-After", seconds(limited.RetryAfter))
		}
	}
	return h
}

// seconds is a duration in whole seconds, at least one.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(int64(math.Ceil(d.Seconds())), 1), 10)
}

// Rates are how often requests may come; what is nil is unlimited.
type Rates struct {
	// Callers have a bucket each, by e-mail address.
	Callers *limit.Rate
	// Strangers are those whose credentials don't count, by network.
	Strangers *limit.Rate
}

// setBudget writes what a caller has left, as in the Internet draft
// draft-ietf-httpapi-ratelimit-headers-10.
func setBudget(h http.Header, b limit.Budget) {
	if b.Limit == 0 {
		return
	}
	h.Set("RateLimit-Policy", fmt.Sprintf(`"requests";q=%d;w=%s`, b.Limit, seconds(b.Window)))
	h.Set("RateLimit", fmt.Sprintf(`"requests";r=%d;t=%s`, b.Left, seconds(b.Reset)))
}

// network is what counts as one place that requests come from: an IPv4 address,
// or a /64 of IPv6, which one customer has.
func network(remote string) string {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := address.Addr().Unmap()
	if ip.Is6() {
		if prefix, err := ip.WithZone("").Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return ip.String()
}

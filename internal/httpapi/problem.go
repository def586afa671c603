package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/webhook"
)

var statuses = map[resource.Code]int{
	resource.Invalid:         http.StatusUnprocessableEntity,
	resource.Unusable:        http.StatusBadRequest,
	resource.Unauthenticated: http.StatusUnauthorized,
	resource.Forbidden:       http.StatusForbidden,
	resource.NotFound:        http.StatusNotFound,
	resource.Conflict:        http.StatusConflict,
	resource.Changed:         http.StatusPreconditionFailed,
	resource.TooLarge:        http.StatusRequestEntityTooLarge,
	resource.NotConfigured:   http.StatusNotImplemented,
	resource.RemoteFailed:    http.StatusBadGateway,
	resource.RemoteTimeout:   http.StatusGatewayTimeout,
	resource.Busy:            http.StatusServiceUnavailable,
}

// statusClientGone is what metrics and traces show for a request whose client hung
// up before the answer: neither the server's fault nor the request's. It is the
// number that nginx uses.
const statusClientGone = 499

func newProblem(status int, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
}

// problem turns an error into a problem document (RFC 9457). Only errors with a
// code are shown; the text of any other stays in the log.
func (a *api) problem(ctx context.Context, err error) *huma.ErrorModel {
	e, ok := errors.AsType[*resource.Error](err)
	// Nobody reads the answer, unless it is about a body that did not come.
	if errors.Is(ctx.Err(), context.Canceled) && (!ok || statuses[e.Code] >= http.StatusInternalServerError) {
		return &huma.ErrorModel{
			Status: statusClientGone, Title: "Client Closed Request",
			Detail: "the client closed the connection",
		}
	}
	if ok {
		p := newProblem(statuses[e.Code], e.Error())
		if e.Field != "" {
			p.Errors = []*huma.ErrorDetail{{Location: e.Field, Message: e.Message}}
		}
		return p
	}
	if e, ok := errors.AsType[*webhook.Error](err); ok {
		if e.NotFound {
			return newProblem(http.StatusNotFound, e.Message)
		}
		if e.Field != "" {
			p := newProblem(http.StatusUnprocessableEntity, e.Error())
			p.Errors = []*huma.ErrorDetail{{Location: e.Field, Message: e.Message}}
			return p
		}
		return newProblem(http.StatusConflict, e.Message)
	}
	if busy, ok := errors.AsType[*limit.BusyError](err); ok {
		return newProblem(http.StatusServiceUnavailable, busy.Error())
	}
	if limited, ok := errors.AsType[*limit.RateError](err); ok {
		return newProblem(http.StatusTooManyRequests, limited.Error())
	}
	if ctx.Err() != nil {
		return newProblem(http.StatusServiceUnavailable, "the request was cut off")
	}
	a.Logger.ErrorContext(ctx, "request failed", "error", err)
	if _, away := errors.AsType[*eventlog.UnavailableError](err); away {
		return newProblem(http.StatusServiceUnavailable,
			"the server's storage does not answer; try again (GET /readyz, or the server's log, says why)")
	}
	return newProblem(http.StatusInternalServerError, "something went wrong here; the server's log says what")
}

// fail answers with the problem of an error.
func (a *api) fail(ctx context.Context, w http.ResponseWriter, err error) {
	if gone, ok := errors.AsType[*ExpiredProblem](err); ok {
		writeProblem(w, gone.Status, gone)
		return
	}
	p := a.problem(ctx, err)
	maps.Copy(w.Header(), failureHeader(p.Status, err))
	writeProblem(w, p.Status, p)
}

func refuse(w http.ResponseWriter, status int, detail string) {
	writeProblem(w, status, newProblem(status, detail))
}

func writeProblem(w http.ResponseWriter, status int, p any) {
	if model, ok := p.(*huma.ErrorModel); ok {
		bound(model)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(p) // whoever asked may be gone
}

// Bounds of the texts in a problem document, in bytes. With [maxProblems] they
// keep it below 64 KiB, escapes included.
const (
	maxDetail   = 1000
	maxMessage  = 400
	maxLocation = 200
)

// bound takes the values out of validation errors, which may be secrets, and
// shortens what a request can make long.
func bound(p *huma.ErrorModel) {
	if more := len(p.Errors) - maxProblems; more > 0 {
		p.Errors, p.Detail = p.Errors[:maxProblems], listed(p.Detail, more)
	}
	p.Detail = shorten(p.Detail, maxDetail)
	for _, e := range p.Errors {
		e.Value, e.Message, e.Location = nil, shorten(e.Message, maxMessage), shorten(e.Location, maxLocation)
	}
}

// listed says how many problems an answer does not list.
func listed(detail string, more int) string {
	if more == 0 {
		return detail
	}
	return fmt.Sprintf("%s: the first %d problems are listed, and there are %d more", detail, maxProblems, more)
}

// shorten cuts a text to so many bytes. Control characters, which JSON writes as
// six bytes each, become question marks.
func shorten(text string, limit int) string {
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit-len("…")], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, text)
}

// boundProblem is [bound] for the problems that huma writes.
func boundProblem(_ huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*huma.ErrorModel); ok {
		bound(p)
	}
	return v, nil
}

func (a *api) noSuchRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{
		http.MethodGet, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete,
	} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := a.mux.Handler(other); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		refuse(w, http.StatusNotFound, "there is no such path; "+root+"/docs lists those there are")
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	refuse(w, http.StatusMethodNotAllowed, "this path takes "+strings.Join(allowed, ", "))
}

func (a *api) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				a.Logger.ErrorContext(r.Context(), "panic in a request", "path", r.URL.Path, "panic", p,
					"stack", string(debug.Stack()))
				refuse(w, http.StatusInternalServerError, "something went wrong here; the server's log says what")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses changes that a browser makes on behalf of a page elsewhere.
func sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "a page elsewhere can't make changes here")
	}))
	return protection.Handler(next)
}

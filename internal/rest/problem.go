package rest

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
)

// Error is a request that is refused.
type Error struct {
	Status int
	// Field is the field that is wrong; empty if it is not a single one.
	Field   string
	Message string
}

// Error returns the field and the message.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Invalid refuses a request because of a field's value.
func Invalid(field, message string) error {
	return &Error{Status: http.StatusUnprocessableEntity, Field: field, Message: message}
}

// ExpiredProblem says where to continue after events have expired, or were lost by the
// database.
type ExpiredProblem struct {
	huma.ErrorModel
	After string `json:"after" doc:"The after with which to start again: before the oldest event there is, or where the database lost some."`
}

// StatusClientGone is what metrics and traces show for a request whose client hung
// up before the answer: neither the server's fault nor the request's. It is the
// number that nginx uses.
const StatusClientGone = 499

// NewProblem returns a problem document.
func NewProblem(status int, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
}

// problem turns an error into a problem document (RFC 9457). Only errors that are meant
// for the caller are shown; the text of any other stays in the log.
func (a *API) problem(ctx context.Context, err error) *huma.ErrorModel {
	var p *huma.ErrorModel
	if e, ok := errors.AsType[*Error](err); ok {
		p = FieldProblem(e.Status, e.Field, e.Message)
	} else {
		p = a.Explain(err)
	}
	// Nobody reads the response, unless it is about a body that did not arrive.
	if errors.Is(ctx.Err(), context.Canceled) && (p == nil || p.Status >= http.StatusInternalServerError) {
		return &huma.ErrorModel{
			Status: StatusClientGone, Title: "Client Closed Request",
			Detail: "the client closed the connection",
		}
	}
	if p != nil {
		return p
	}
	if busy, ok := errors.AsType[*limit.BusyError](err); ok {
		return NewProblem(http.StatusServiceUnavailable, busy.Error())
	}
	if limited, ok := errors.AsType[*limit.RateError](err); ok {
		return NewProblem(http.StatusTooManyRequests, limited.Error())
	}
	if ctx.Err() != nil {
		return NewProblem(http.StatusServiceUnavailable, "the request was interrupted")
	}
	a.Logger.ErrorContext(ctx, "request failed", "error", err)
	if _, away := errors.AsType[*eventlog.UnavailableError](err); away {
		return NewProblem(http.StatusServiceUnavailable,
			"the server's storage is unavailable; try again (for the cause, see GET /readyz or the server's log)")
	}
	return NewProblem(http.StatusInternalServerError, "internal server error; see the server's log")
}

// FieldProblem returns a problem document about a field of a request, which may be empty.
func FieldProblem(status int, field, message string) *huma.ErrorModel {
	if field == "" {
		return NewProblem(status, message)
	}
	p := NewProblem(status, field+": "+message)
	p.Errors = []*huma.ErrorDetail{{Location: field, Message: message}}
	return p
}

// Fail answers with the problem of an error.
func (a *API) Fail(ctx context.Context, w http.ResponseWriter, err error) {
	if gone, ok := errors.AsType[*ExpiredProblem](err); ok {
		writeProblem(w, gone.Status, gone)
		return
	}
	p := a.problem(ctx, err)
	maps.Copy(w.Header(), failureHeader(p.Status, err))
	writeProblem(w, p.Status, p)
}

// Refuse answers with a problem document.
func Refuse(w http.ResponseWriter, status int, detail string) {
	writeProblem(w, status, NewProblem(status, detail))
}

func writeProblem(w http.ResponseWriter, status int, p any) {
	if model, ok := p.(*huma.ErrorModel); ok {
		bound(model)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(p) // the client may be gone
}

// Limits on the texts in a problem document, in bytes. Together with
// [maxProblems] they keep it below 64 KiB even after escaping.
const (
	maxDetail   = 1000
	maxMessage  = 400
	maxLocation = 200
)

// bound removes values from validation errors, because they may be secrets, and
// shortens whatever a request can make long.
func bound(p *huma.ErrorModel) {
	if more := len(p.Errors) - maxProblems; more > 0 {
		p.Errors, p.Detail = p.Errors[:maxProblems], listed(p.Detail, more)
	}
	p.Detail = shorten(p.Detail, maxDetail)
	for _, e := range p.Errors {
		e.Value, e.Message, e.Location = nil, shorten(e.Message, maxMessage), shorten(e.Location, maxLocation)
	}
}

// listed appends how many problems are not listed.
func listed(detail string, more int) string {
	if more == 0 {
		return detail
	}
	return fmt.Sprintf("%s: showing the first %d problems; %d more are not shown", detail, maxProblems, more)
}

// shorten truncates a text to limit bytes. It replaces control characters,
// which JSON escapes to six bytes each, by question marks.
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

// boundProblem applies [bound] to the problems that huma writes.
func boundProblem(_ huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*huma.ErrorModel); ok {
		bound(p)
	}
	return v, nil
}

// NoSuchRoute answers requests whose path a mux does not have at all, or not with their
// method.
func NoSuchRoute(mux interface {
	Handler(r *http.Request) (http.Handler, string)
}, where string,
) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range []string{
			http.MethodGet, http.MethodPost, http.MethodPut,
			http.MethodPatch, http.MethodDelete,
		} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				allowed = append(allowed, method)
			}
		}
		if allowed == nil {
			Refuse(w, http.StatusNotFound, "no such path; see "+where+" for the available ones")
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		Refuse(w, http.StatusMethodNotAllowed, "allowed methods: "+strings.Join(allowed, ", "))
	}
}

func (a *API) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				a.Logger.ErrorContext(r.Context(), "panic in a request", "path", r.URL.Path, "panic", p,
					"stack", string(debug.Stack()))
				Refuse(w, http.StatusInternalServerError, "internal server error; see the server's log")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses state-changing requests that browsers send on behalf of
// other sites.
func sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		Refuse(w, http.StatusForbidden, "cross-origin request refused")
	}))
	return protection.Handler(next)
}

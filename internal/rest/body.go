package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const jsonType = "application/json"

const (
	bodyLimit = 1 << 20
	// smallBody is the size up to which a body needs no room in Bodies.
	smallBody = 64 << 10
)

// readBody reads and checks the JSON body of an operation before it is decoded,
// so that a bad body costs little more than its bytes. A large body waits for
// room, and holds it until the response is written.
func (a *API) readBody(limit int64) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		if ctx.Operation().RequestBody == nil {
			if problem := readNothing(r); problem != nil {
				writeProblem(w, problem.Status, problem)
				return
			}
		}
		schema := bodySchema(ctx.Operation())
		if schema == nil {
			next(ctx)
			return
		}
		b := &body{from: r, limit: limit, leave: func() {}, enter: func(n int64) (func(), error) {
			return a.Limits.Bodies.Enter(ctx.Context(), idOf(ctx.Context()), n)
		}}
		defer func() { b.leave() }()
		problem, err := b.read()
		checked := b.text.Bytes()
		switch {
		case err != nil:
			a.Fail(ctx.Context(), w, err)
			return
		case problem == nil && len(checked) > 0:
			checked, problem = checkBody(a.Huma.OpenAPI().Components.Schemas, schema, checked)
		}
		if problem != nil {
			writeProblem(w, problem.Status, problem)
			return
		}
		if r.Header.Get("Content-Type") == "" {
			r.Header.Set("Content-Type", jsonType)
		}
		r.Body = io.NopCloser(bytes.NewReader(checked))
		next(ctx)
	}
}

// readNothing reads the body of an operation that takes none. It accepts an
// empty object, because some clients always send one.
func readNothing(r *http.Request) *huma.ErrorModel {
	if r.ContentLength == 0 {
		return nil
	}
	const most = 64
	text, err := io.ReadAll(io.LimitReader(r.Body, most))
	if text := strings.TrimSpace(string(text)); err == nil && (text == "" || text == "{}" || text == "null") {
		return nil
	}
	problem := NewProblem(http.StatusUnprocessableEntity, "this operation takes no request body")
	problem.Errors = []*huma.ErrorDetail{{Location: "body", Message: "expected no body"}}
	return problem
}

// bodySchema returns the schema of an operation's JSON body, or nil if there is
// none.
func bodySchema(op *huma.Operation) *huma.Schema {
	if op.RequestBody == nil {
		return nil
	}
	if media := op.RequestBody.Content[jsonType]; media != nil {
		return media.Schema
	}
	return nil
}

// body is a JSON body being read.
type body struct {
	from  *http.Request
	limit int64
	// enter waits for room for a large body.
	enter func(n int64) (leave func(), err error)
	leave func()
	text  bytes.Buffer
}

// read reads the body, at the pace that [API.paced] allows. It returns a problem
// with the body, or an error if there is no room for it.
func (b *body) read() (*huma.ErrorModel, error) {
	if given := b.from.Header.Get("Content-Type"); given != "" {
		kind, _, err := mime.ParseMediaType(given)
		if err != nil || kind != jsonType && !strings.HasSuffix(kind, "+json") {
			return NewProblem(http.StatusUnsupportedMediaType, "expected the Content-Type "+jsonType), nil
		}
	}
	size := b.from.ContentLength
	switch {
	case size > b.limit:
		return tooLarge(b.limit), nil
	case size < 0: // its size is unknown
		if problem := b.readTo(smallBody + 1); problem != nil || b.text.Len() <= smallBody {
			return problem, nil
		}
		size = b.limit
	}
	if size > smallBody {
		leave, err := b.enter(size)
		if err != nil {
			return nil, err
		}
		b.leave = leave
	}
	b.text.Grow(int(size) - b.text.Len() + bytes.MinRead)
	if problem := b.readTo(b.limit + 1); problem != nil {
		return problem, nil
	}
	if int64(b.text.Len()) > b.limit {
		return tooLarge(b.limit), nil
	}
	return nil, nil
}

// readTo reads until the given size or the end of the body.
func (b *body) readTo(size int64) *huma.ErrorModel {
	_, err := b.text.ReadFrom(io.LimitReader(b.from.Body, size-int64(b.text.Len())))
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isNet && timeout.Timeout():
		return NewProblem(http.StatusRequestTimeout, "the body arrived too slowly")
	case err != nil:
		return NewProblem(http.StatusBadRequest, "the body is incomplete")
	}
	return nil
}

func tooLarge(limit int64) *huma.ErrorModel {
	return NewProblem(http.StatusRequestEntityTooLarge,
		fmt.Sprintf("the body exceeds %d bytes, the limit of this operation", limit))
}

package httpapi

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
	// itemsLimit is for the items of a vector store, of which many come at once.
	itemsLimit = 16 << 20
)

// readBody reads and checks the JSON bodies of an operation before anything is
// decoded, so that a bad one costs little more than the bytes it has.
func (a *api) readBody(limit int64) func(huma.Context, func(huma.Context)) {
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
		body, problem := read(r, limit)
		if problem == nil && len(body) > 0 {
			problem = checkBody(a.huma.OpenAPI().Components.Schemas, schema, body)
		}
		if problem != nil {
			writeProblem(w, problem.Status, problem)
			return
		}
		r.Header.Set("Content-Type", jsonType)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(ctx)
	}
}

// readNothing reads the body of an operation that takes none. An empty object does
// no harm: some clients always send one.
func readNothing(r *http.Request) *huma.ErrorModel {
	if r.ContentLength == 0 {
		return nil
	}
	const most = 64
	text, err := io.ReadAll(io.LimitReader(r.Body, most))
	if text := strings.TrimSpace(string(text)); err == nil && (text == "" || text == "{}" || text == "null") {
		return nil
	}
	problem := newProblem(http.StatusUnprocessableEntity, "this operation takes no body")
	problem.Errors = []*huma.ErrorDetail{{Location: "body", Message: "expected no body"}}
	return problem
}

// bodySchema returns the schema of an operation's JSON body; nil if it has none.
func bodySchema(op *huma.Operation) *huma.Schema {
	if op.RequestBody == nil {
		return nil
	}
	if media := op.RequestBody.Content[jsonType]; media != nil {
		return media.Schema
	}
	return nil
}

// read reads a JSON body, at the pace that [api.paced] allows.
func read(r *http.Request, limit int64) ([]byte, *huma.ErrorModel) {
	if given := r.Header.Get("Content-Type"); given != "" {
		kind, _, err := mime.ParseMediaType(given)
		if err != nil || kind != jsonType && !strings.HasSuffix(kind, "+json") {
			return nil, newProblem(http.StatusUnsupportedMediaType, "expected the Content-Type "+jsonType)
		}
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	var body bytes.Buffer
	if r.ContentLength > 0 {
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := body.ReadFrom(io.LimitReader(r.Body, limit+1))
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isNet && timeout.Timeout():
		return nil, newProblem(http.StatusRequestTimeout, "the body came too slowly")
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, "the body broke off")
	case int64(body.Len()) > limit:
		return nil, tooLarge(limit)
	}
	return body.Bytes(), nil
}

func tooLarge(limit int64) *huma.ErrorModel {
	return newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes, the most that this operation takes", limit))
}

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// problemDocument is the body of an error response (RFC 9457).
type problemDocument struct {
	Status int
	Detail string
	After  string // where to continue if a position in the feed is gone
	Errors []struct {
		Message  string
		Location string
		Value    any
	}
}

// refusal is the error for a response with status 400 or above.
type refusal struct {
	error
	status  int
	after   string
	foreign bool // it is not from Tidings
}

// final reports whether the same request would fail again.
func (r *refusal) final() bool {
	return r.status < http.StatusInternalServerError && r.status != http.StatusTooManyRequests
}

// isMissing reports whether the server does not have what was asked for.
func isMissing(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.status == http.StatusNotFound && !r.foreign
}

// refused returns the error for a failed request, with all that the server reports.
func (c *client) refused(response *http.Response, text []byte, query url.Values) error {
	var p problemDocument
	if json.Unmarshal(text, &p) != nil || p.Detail == "" || p.Status != response.StatusCode {
		if response.StatusCode >= http.StatusInternalServerError {
			return &refusal{error: fmt.Errorf("%s returned %s, probably from a proxy; is the server running?",
				c.shownURL(), response.Status), status: response.StatusCode}
		}
		return c.foreign("it returned " + response.Status)
	}
	message := p.Detail
	var parts []string
	for _, e := range p.Errors {
		part := strings.TrimPrefix(e.Location+": ", ": ") + e.Message
		if strings.Contains(p.Detail, e.Message) {
			continue
		}
		if value := e.Value; value != nil {
			part += fmt.Sprintf(" (got %v)", value)
		} else if name, ok := strings.CutPrefix(e.Location, "query."); ok && query.Has(name) {
			part += fmt.Sprintf(" (got %q)", query.Get(name))
		}
		parts = append(parts, part)
	}
	switch {
	case len(parts) == 1:
		message += ": " + parts[0]
	case len(parts) > 1:
		message += ":\n  " + strings.Join(parts, "\n  ")
	}
	if response.StatusCode == http.StatusUnauthorized {
		message += "; set --token, or --data-dir to a folder with an admin-token"
	}
	return &refusal{error: errors.New(message), status: response.StatusCode, after: p.After}
}

// foreign returns the error for a response that Tidings would not send.
func (c *client) foreign(why string) error {
	err := fmt.Errorf("this does not look like Tidings at %s: %s; is --url right?", c.shownURL(), why)
	return &refusal{error: err, status: http.StatusNotFound, foreign: true}
}

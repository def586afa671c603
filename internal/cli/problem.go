package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// problemDocument is how Tidings refuses a request (RFC 9457).
type problemDocument struct {
	Status int
	Detail string
	After  string // of a position in the feed that is gone: where to continue
	Errors []struct {
		Message  string
		Location string
		Value    any
	}
}

// refusal is the error of a request that the server answered with 400 or more.
type refusal struct {
	error
	status int
	after  string
}

// final reports whether the same request would be refused again.
func (r *refusal) final() bool {
	return r.status < http.StatusInternalServerError && r.status != http.StatusTooManyRequests
}

// refused is the error of a request that was refused: all of what the server says.
func (c *client) refused(response *http.Response, text []byte, query url.Values) error {
	var p problemDocument
	if json.Unmarshal(text, &p) != nil || p.Detail == "" || p.Status != response.StatusCode {
		if response.StatusCode >= http.StatusInternalServerError {
			return &refusal{error: fmt.Errorf("%s answered %s, as a proxy before Tidings does; is the server running?",
				c.shownURL(), response.Status), status: response.StatusCode}
		}
		return c.foreign("it answered " + response.Status)
	}
	message := p.Detail
	var parts []string
	for _, e := range p.Errors {
		part := strings.TrimPrefix(e.Location+": ", ": ") + e.Message
		if strings.Contains(p.Detail, e.Message) {
			continue
		}
		if value := e.Value; value != nil {
			part += fmt.Sprintf(" (it is %v)", value)
		} else if name, ok := strings.CutPrefix(e.Location, "query."); ok && query.Has(name) {
			part += fmt.Sprintf(" (it is %q)", query.Get(name))
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
		message += "; give --token, or --data-dir with an admin-token in it"
	}
	return &refusal{errors.New(message), response.StatusCode, p.After}
}

// foreign is the error of an answer that no Tidings gives.
func (c *client) foreign(why string) error {
	err := fmt.Errorf("this does not look like Tidings at %s: %s; is --url right?", c.shownURL(), why)
	return &refusal{error: err, status: http.StatusNotFound}
}

package tidings

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Format is the format of a webhook's body.
type Format string

// The body formats.
const (
	// Thin is an object with the six members of the contract.
	Thin Format = "thin"
	// Standard is the Standard Webhooks envelope: type, timestamp, data.
	Standard Format = "standard"
	// CloudEvents is CloudEvents 1.0 in structured mode.
	CloudEvents Format = "cloudevents"
)

// Formats returns the body formats, the default first.
func Formats() []Format { return []Format{Thin, Standard, CloudEvents} }

// Coalesce selects which waiting events of one resource are merged: a thin
// event means "look again", and one of them is enough.
type Coalesce string

// The ways to coalesce. Only events that have never been attempted are merged.
const (
	// CoalesceOff sends every event.
	CoalesceOff Coalesce = "off"
	// CoalesceUpdates merges consecutive updates into the last one.
	CoalesceUpdates Coalesce = "updates"
	// CoalesceLatest also merges updates into a preceding created, and
	// everything before a deleted into it; nothing is merged across deleted and
	// created again.
	CoalesceLatest Coalesce = "latest"
)

// Endpoint configures where webhooks are sent, and which ones.
type Endpoint struct {
	// Name identifies the endpoint in its cursor, log lines and metrics.
	Name string
	// URL is http or https. It may contain user info, which is sent as basic
	// authentication and never logged.
	URL string
	// Headers are sent unchanged. They override the headers that Tidings sends;
	// a header without values suppresses one.
	Headers http.Header
	// Patterns select events; if there are none, all events are selected.
	Patterns []Pattern
	// Filter further restricts the selected events, by any field, such as
	// OwnerID; nil means no filter. Filtered events are never sent, not even in
	// replays. Filter must be fast and safe for concurrent use.
	Filter func(Event) bool
	// Secrets sign requests, with one signature each: "whsec_…" (HMAC-SHA256)
	// or "whsk_…" (Ed25519). Without secrets, requests are not signed.
	Secrets []string
	// Timeout limits an attempt, from connecting to the last byte read.
	Timeout time.Duration
	// MaxInFlight limits concurrent requests.
	MaxInFlight int
	// Format is the body format; empty means [Thin].
	Format Format
	// NoInfoHeaders omits the headers tidings-sequence, tidings-attempt and
	// tidings-resource-version.
	NoInfoHeaders bool
	// EventPrefix is prepended to the event name in the CloudEvents type, such
	// as "com.example.".
	EventPrefix string
}

// DefaultName returns the name of an endpoint that has none: the host and path
// of its URL, which contain no password. A query, which may be one, adds "?" and the
// first six hex digits of its SHA-256. It is empty if the URL is invalid.
func (e *Endpoint) DefaultName() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	name := strings.TrimSuffix(u.Host+u.EscapedPath(), "/")
	if u.RawQuery != "" {
		name += fmt.Sprintf("?%.3x", sha256.Sum256([]byte(u.RawQuery)))
	}
	return name
}

// Admits reports whether the event passes the endpoint's filter.
func (e *Endpoint) Admits(event Event) bool { return e.Filter == nil || e.Filter(event) }

// Matches reports whether the endpoint receives the event.
func (e *Endpoint) Matches(event Event) bool {
	_, ok := e.MatchedBy(event)
	return ok
}

// MatchedBy returns the first pattern that selects the event, or "*" if the
// endpoint has none. If it returns a pattern and false, the filter rejected the
// event.
func (e *Endpoint) MatchedBy(event Event) (pattern string, ok bool) {
	if len(e.Patterns) == 0 {
		return "*", e.Admits(event)
	}
	for _, p := range e.Patterns {
		if p.Match(event.Type, event.Action) {
			return p.String(), e.Admits(event)
		}
	}
	return "", false
}

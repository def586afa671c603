package tidings

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Format is how the body of a webhook is written.
type Format string

// The body formats.
const (
	// Thin is the six members of the contract.
	Thin Format = "thin"
	// Standard is the Standard Webhooks envelope: type, timestamp, data.
	Standard Format = "standard"
	// CloudEvents is CloudEvents 1.0 in structured mode.
	CloudEvents Format = "cloudevents"
)

// Formats returns the body formats, the default first.
func Formats() []Format { return []Format{Thin, Standard, CloudEvents} }

// Coalesce says which waiting events of one resource become one: thin news says
// "look again", and saying it once is enough.
type Coalesce string

// The ways to coalesce. Only events that were never attempted are merged.
const (
	// CoalesceOff sends every event.
	CoalesceOff Coalesce = "off"
	// CoalesceUpdates makes several updates the last one.
	CoalesceUpdates Coalesce = "updates"
	// CoalesceLatest also lets created take in updates, and deleted what came
	// before it; nothing merges across deleted and created again.
	CoalesceLatest Coalesce = "latest"
)

// Endpoint is where webhooks go and which ones.
type Endpoint struct {
	// Name identifies the endpoint: its cursor, its log lines, its metrics.
	Name string
	// URL is http or https. It may hold user info, which is sent as basic
	// authentication and never logged.
	URL string
	// Headers are sent as they are. Each wins over the header of that name that
	// Tidings would send; one without values has none sent.
	Headers http.Header
	// Patterns select events; none means every event.
	Patterns []Pattern
	// Filter narrows what the patterns select, by the whole event, such as its
	// OwnerID; nil means no filter. What it refuses is never sent, in a replay
	// neither. It must be fast, and safe for concurrent use.
	Filter func(Event) bool
	// Secrets sign the request, one signature each: "whsec_…" (HMAC-SHA256) or
	// "whsk_…" (Ed25519). None means no signature.
	Secrets []string
	// Timeout limits one attempt, from connecting to the last byte read.
	Timeout time.Duration
	// MaxInFlight is how many requests may be under way at once.
	MaxInFlight int
	// Format is the body format; empty means [Thin].
	Format Format
	// NoInfoHeaders leaves out the headers tidings-sequence, tidings-attempt and
	// tidings-resource-version.
	NoInfoHeaders bool
	// EventPrefix is put before the name of the event in the CloudEvents type,
	// such as "com.example.".
	EventPrefix string
}

// DefaultName is the name of an endpoint without one: the host and the path of its
// URL, which hold no password. It is empty for a URL that can't be parsed.
func (e *Endpoint) DefaultName() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Host+u.EscapedPath(), "/")
}

// Admits reports whether the endpoint's filter lets the event through.
func (e *Endpoint) Admits(event Event) bool { return e.Filter == nil || e.Filter(event) }

// Matches reports whether the endpoint wants the event.
func (e *Endpoint) Matches(event Event) bool {
	_, ok := e.MatchedBy(event)
	return ok
}

// MatchedBy returns the first pattern that selects the event, "*" where the
// endpoint has none. With a pattern and false, it is the filter that refuses the event.
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

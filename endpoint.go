package tidings

import (
	"net/http"
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

// Matches reports whether the endpoint wants the event.
func (e *Endpoint) Matches(event Event) bool {
	_, ok := e.MatchedBy(event)
	return ok
}

// MatchedBy returns the first pattern that selects the event, "*" where the
// endpoint has none.
func (e *Endpoint) MatchedBy(event Event) (pattern string, ok bool) {
	if len(e.Patterns) == 0 {
		return "*", true
	}
	for _, p := range e.Patterns {
		if p.Match(event.Type, event.Action) {
			return p.String(), true
		}
	}
	return "", false
}

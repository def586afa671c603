package tidings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// TimeLayout is how the timestamp of an event is written: RFC 3339 in UTC with
// up to microseconds, trailing zeros left out.
const TimeLayout = "2006-01-02T15:04:05.999999Z07:00"

// Event tells that one resource was created, updated or deleted. The JSON form
// of an Event is the body of a webhook: exactly six members, in a fixed order.
type Event struct {
	// ID is the same in every attempt and for every endpoint: the webhook-id
	// header. A UUIDv7 unless the application chose another.
	ID string
	// Sequence is the position in the log, from 1; 0 before it has one.
	Sequence int64

	Type        ResourceType
	Action      Action
	ResourceID  string
	ResourceURL string
	// UserID is whoever caused the change; empty where nobody did.
	UserID string
	// Time is when the change was made, to the microsecond.
	Time time.Time

	// ResourceVersion is the version of the resource after the change.
	ResourceVersion int64

	// OwnerID is whose resource it is; empty for nobody's. It decides who may read
	// the event in the catch-up feed, and is never sent.
	OwnerID string
	// Trace is the W3C traceparent of the change, which attempts carry on; empty
	// for none.
	Trace string
}

// Name is the event as patterns and receivers know it, such as
// "provider.created".
func (e Event) Name() string { return string(e.Type) + "." + string(e.Action) }

// Resource identifies the resource within the log; events of one resource are
// delivered in order.
func (e Event) Resource() string { return string(e.Type) + "/" + e.ResourceID }

// AppendJSON appends the six members of the contract to b.
func (e Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"event":`...)
	b = AppendString(b, e.Name())
	b = append(b, `,"resource_type":`...)
	b = AppendString(b, string(e.Type))
	b = append(b, `,"resource_id":`...)
	b = AppendString(b, e.ResourceID)
	b = append(b, `,"resource_url":`...)
	b = AppendString(b, e.ResourceURL)
	b = append(b, `,"user_id":`...)
	if e.UserID == "" {
		b = append(b, "null"...)
	} else {
		b = AppendString(b, e.UserID)
	}
	b = append(b, `,"timestamp":"`...)
	b = e.Time.UTC().AppendFormat(b, TimeLayout)
	return append(b, `"}`...)
}

// MarshalJSON returns the six members of the contract.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(make([]byte, 0, 320)), nil }

// UnmarshalJSON reads the six members of the contract. A member that is
// missing, unknown, of the wrong type or repeated in a contradiction (an event
// whose name does not begin with its resource type) is an error.
func (e *Event) UnmarshalJSON(data []byte) error {
	var body struct {
		Event        *string `json:"event"`
		ResourceType *string `json:"resource_type"`
		ResourceID   *string `json:"resource_id"`
		ResourceURL  *string `json:"resource_url"`
		UserID       *string `json:"user_id"`
		Timestamp    *string `json:"timestamp"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		return fmt.Errorf("event body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("event body: more follows the JSON object")
	}
	required := []struct {
		name  string
		value *string
	}{
		{"event", body.Event},
		{"resource_type", body.ResourceType},
		{"resource_id", body.ResourceID},
		{"resource_url", body.ResourceURL},
		{"timestamp", body.Timestamp},
	}
	for _, member := range required {
		if member.value == nil || *member.value == "" {
			return fmt.Errorf("event body: member %q is missing", member.name)
		}
	}
	action, ok := strings.CutPrefix(*body.Event, *body.ResourceType+".")
	ping := *body.Event == PingEvent
	if !ok || (!validAction(Action(action)) && !ping) {
		return fmt.Errorf("event body: event %q is not created, updated or deleted of resource type %q",
			*body.Event, *body.ResourceType)
	}
	at, err := time.Parse(time.RFC3339Nano, *body.Timestamp)
	if err != nil {
		return fmt.Errorf("event body: timestamp: %w", err)
	}
	*e = Event{
		Type: ResourceType(*body.ResourceType), Action: Action(action),
		ResourceID: *body.ResourceID, ResourceURL: *body.ResourceURL, Time: at.UTC(),
	}
	if body.UserID != nil {
		e.UserID = *body.UserID
	}
	return nil
}

// PingEvent is the name of the event that an operator sends to try an endpoint.
// It tells of no change and is in no log.
const PingEvent = string(webhookType) + "." + string(ping)

const (
	webhookType ResourceType = "webhook"
	ping        Action       = "ping"
)

// Ping returns the event that tries an endpoint.
func Ping(id, endpoint, userID string, at time.Time) Event {
	return Event{
		ID: id, Type: webhookType, Action: ping, ResourceID: endpoint,
		ResourceURL: "/api/v1/webhooks/endpoints/" + url.PathEscape(endpoint), UserID: userID,
		Time: at.UTC().Truncate(time.Microsecond),
	}
}

func validAction(a Action) bool { return a == Created || a == Updated || a == Deleted }

// AppendString appends s to b as a JSON string. Unlike [json.Marshal] it leaves
// <, > and & as they are, so a URL reads as it was written.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	plain := 0 // where what can be copied as it is begins
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		b = append(b, s[plain:i]...)
		size := 1
		switch {
		case c >= utf8.RuneSelf:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
		i += size
		plain = i
	}
	b = append(b, s[plain:]...)
	return append(b, '"')
}

package tidings

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// TimeLayout is how the timestamp of an event is written: RFC 3339 in UTC with
// up to microseconds, trailing zeros left out.
const TimeLayout = "2006-01-02T15:04:05.999999Z07:00"

// Event tells that something happened to one resource: it was created, updated or
// deleted, or what else the program tells of. The JSON form of an Event is the body of a
// webhook: exactly six members, in a fixed order.
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

// The limits of an event, in bytes.
const (
	idLimit    = 256 // of the webhook-id, which Standard Webhooks leaves open
	valueLimit = 512 // of the ids of resources, users and owners
	urlLimit   = 2048
)

// Check returns an error that names the field unless receivers can read the event:
// the type and the action have the right form, the resource has an id of at most 512
// bytes and a URL of at most 2,048, no text has control characters, and the time is
// set. An empty ID is fine: the log gives it one.
func (e Event) Check() error {
	if err := cmp.Or(e.Type.Check(), e.Action.Check()); err != nil {
		return err
	}
	if e.Name() == PingEvent {
		return fmt.Errorf("action: %s is the event that tries an endpoint; choose another name", PingEvent)
	}
	if strings.ContainsFunc(e.ID, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '.' }) {
		return fmt.Errorf("id %s: expected ASCII letters, digits and signs, but no space and no dot", quoted(e.ID))
	}
	for _, text := range []struct {
		name, value string
		limit       int
		required    bool
	}{
		{"id", e.ID, idLimit, false},
		{"resource id", e.ResourceID, valueLimit, true},
		{"resource url", e.ResourceURL, urlLimit, true},
		{"user id", e.UserID, valueLimit, false},
		{"owner id", e.OwnerID, valueLimit, false},
	} {
		if err := checkText(text.value, text.limit, text.required); err != nil {
			return fmt.Errorf("%s: %w", text.name, err)
		}
	}
	if _, err := url.Parse(e.ResourceURL); err != nil {
		return fmt.Errorf("resource url: %w", err)
	}
	if year := e.Time.UTC().Year(); e.Time.IsZero() || year < 1 || year > 9999 {
		return fmt.Errorf("time: expected one in the years 1 to 9999, not %s", e.Time.UTC().Format(TimeLayout))
	}
	return nil
}

func checkText(text string, limit int, required bool) error {
	switch {
	case required && text == "":
		return errors.New("is missing")
	case len(text) > limit:
		return fmt.Errorf("is longer than %d bytes", limit)
	case !utf8.ValidString(text):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s has control characters", quoted(text))
	}
	return nil
}

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
	if !ok {
		return fmt.Errorf("event body: event %s is not of resource type %s", quoted(*body.Event),
			quoted(*body.ResourceType))
	}
	if err := cmp.Or(ResourceType(*body.ResourceType).Check(), Action(action).Check()); err != nil {
		return fmt.Errorf("event body: %w", err)
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

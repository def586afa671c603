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

	"github.com/tidings-dev/tidings/internal/jsontext"
)

// TimeLayout is the format of an event's timestamp: RFC 3339 in UTC with up to
// six decimals, without trailing zeros.
const TimeLayout = "2006-01-02T15:04:05.999999Z07:00"

// Event announces a change of one resource: that it was created, updated or
// deleted, or another action that the program defines. Its JSON form is the
// body of a webhook: exactly six members, in a fixed order.
type Event struct {
	// ID is the webhook-id header, the same in every attempt and for every
	// endpoint. It is a UUIDv7 unless the application sets it.
	ID string
	// Sequence is the position in the log, from 1; 0 until assigned.
	Sequence int64

	Type        ResourceType
	Action      Action
	ResourceID  string
	ResourceURL string
	// UserID is the user who caused the change; empty if there is none.
	UserID string
	// Time is the time of the change, to the microsecond.
	Time time.Time

	// ResourceVersion is the version of the resource after the change.
	ResourceVersion int64

	// OwnerID is the owner of the resource; empty if there is none. It
	// determines who may read the event in the catch-up feed, and is never
	// sent.
	OwnerID string
	// Trace is the W3C traceparent of the change, which attempts continue;
	// empty if there is none.
	Trace string
}

// Name returns the name of the event in patterns and webhooks, such as
// "provider.created".
func (e Event) Name() string { return string(e.Type) + "." + string(e.Action) }

// Resource identifies the resource within the log; events of one resource are
// delivered in order.
func (e Event) Resource() string { return string(e.Type) + "/" + e.ResourceID }

// Limits on an event, in bytes.
const (
	idLimit    = 256 // webhook-id; Standard Webhooks sets no limit
	valueLimit = 512 // ids of resources, users and owners
	urlLimit   = 2048
)

// Check returns an error that names the invalid field unless receivers can
// decode the event: type and action must be well-formed, the resource must have
// an id of at most 512 bytes and a URL of at most 2,048, which is an http or https
// URL or a path that begins with "/", text must not contain control characters, and
// the time must be set. An empty ID is valid: the log assigns one.
func (e Event) Check() error {
	if err := cmp.Or(e.Type.Check(), e.Action.Check()); err != nil {
		return err
	}
	if e.Name() == PingEvent {
		return fmt.Errorf("action: %s is reserved for testing endpoints; choose another name", PingEvent)
	}
	if strings.ContainsFunc(e.ID, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '.' }) {
		return fmt.Errorf("id %s: expected printable ASCII characters other than spaces and dots", quoted(e.ID))
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
	if err := checkURL(e.ResourceURL); err != nil {
		return fmt.Errorf("resource url: %w", err)
	}
	if year := e.Time.UTC().Year(); e.Time.IsZero() || year < 1 || year > 9999 {
		return fmt.Errorf("time: expected a year from 1 to 9999, got %s", e.Time.UTC().Format(TimeLayout))
	}
	return nil
}

// checkURL returns an error unless receivers can read a resource at the URL.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	absolute := (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	if !absolute && !strings.HasPrefix(text, "/") {
		return fmt.Errorf("%s: expected an http or https URL, or a path that begins with /", quoted(text))
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
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%s contains control characters", quoted(text))
	}
	return nil
}

// AppendJSON appends the six members of the contract to b.
func (e Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"event":`...)
	b = jsontext.AppendString(b, e.Name())
	b = append(b, `,"resource_type":`...)
	b = jsontext.AppendString(b, string(e.Type))
	b = append(b, `,"resource_id":`...)
	b = jsontext.AppendString(b, e.ResourceID)
	b = append(b, `,"resource_url":`...)
	b = jsontext.AppendString(b, e.ResourceURL)
	b = append(b, `,"user_id":`...)
	if e.UserID == "" {
		b = append(b, "null"...)
	} else {
		b = jsontext.AppendString(b, e.UserID)
	}
	b = append(b, `,"timestamp":"`...)
	b = e.Time.UTC().AppendFormat(b, TimeLayout)
	return append(b, `"}`...)
}

// MarshalJSON returns the six members of the contract.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(make([]byte, 0, 320)), nil }

// UnmarshalJSON decodes the six members of the contract. Members that are
// missing, unknown, of the wrong type or contradictory (an event whose name
// does not start with its resource type) are an error.
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
		return errors.New("event body: unexpected data after the JSON object")
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

// PingEvent is the name of the event that an operator sends to test an
// endpoint. It announces no change and is not in the log.
const PingEvent = string(webhookType) + "." + string(ping)

const (
	webhookType ResourceType = "webhook"
	ping        Action       = "ping"
)

// Ping returns the event that tests an endpoint.
func Ping(id, endpoint, userID string, at time.Time) Event {
	return Event{
		ID: id, Type: webhookType, Action: ping, ResourceID: endpoint,
		ResourceURL: "/api/v1/webhooks/endpoints/" + url.PathEscape(endpoint), UserID: userID,
		Time: at.UTC().Truncate(time.Microsecond),
	}
}

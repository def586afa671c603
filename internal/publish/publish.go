// Package publish reads the events that programs publish over HTTP: the six members of
// a webhook, CloudEvents 1.0 (structured and batched), and Standard Webhooks.
package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/valid"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/vocabulary"
)

// The supported media types.
const (
	JSON             = "application/json"
	CloudEvent       = "application/cloudevents+json"
	CloudEventsBatch = "application/cloudevents-batch+json"
)

// Request is what a program sent.
type Request struct {
	ContentType string
	// Key is the Idempotency-Key header or, without it, the webhook-id; may be empty.
	Key string
	// Publisher identifies the sender. The keys of different publishers never collide.
	Publisher string
	Body      []byte
}

// Problem is something wrong with a request.
type Problem struct {
	// Location is where, such as "body[3].resource_id"; never empty.
	Location, Message string
}

// Problems are all that is wrong with a request, up to a limit.
type Problems []Problem

// Error returns all problems in one line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Location + ": " + one.Message
	}
	return strings.Join(lines, "; ")
}

const maxProblems = 20

// ErrContentType means that the media type is not supported.
var ErrContentType = fmt.Errorf("expected the Content-Type %s, %s or %s", JSON, CloudEvent, CloudEventsBatch)

// maxKey bounds an idempotency key, in bytes.
const maxKey = 256

// Decode returns the events of a request, all of which are among the types. The error
// is [ErrContentType] or [Problems].
func Decode(r Request, types vocabulary.Types) ([]outbox.Publication, error) {
	media := JSON
	if r.ContentType != "" {
		given, _, err := mime.ParseMediaType(r.ContentType)
		if err != nil || !slices.Contains([]string{JSON, CloudEvent, CloudEventsBatch}, given) {
			return nil, ErrContentType
		}
		media = given
	}
	if len(r.Key) > maxKey {
		return nil, Problems{{"Idempotency-Key", fmt.Sprintf("is longer than %d bytes", maxKey)}}
	}
	items, isList, err := split(r.Body)
	switch {
	case err != nil:
		return nil, Problems{{"body", err.Error()}}
	case media == CloudEvent && isList:
		return nil, Problems{{"body", "expected one event; a list has the Content-Type " + CloudEventsBatch}}
	case media == CloudEventsBatch && !isList:
		return nil, Problems{{"body", "expected a list of events; a single event has the Content-Type " + CloudEvent}}
	case len(items) > outbox.MaxPublish:
		return nil, Problems{{"body", fmt.Sprintf("%d events; the limit is %d per request", len(items), outbox.MaxPublish)}}
	}
	events := make([]outbox.Publication, len(items))
	var all Problems
	for i, item := range items {
		d := &decoder{at: "body", types: types}
		if isList {
			d.at = "body[" + strconv.Itoa(i) + "]"
		}
		events[i] = d.event(item, media != JSON)
		switch {
		case r.Key != "":
			events[i].Key, events[i].Batch = join(r.Publisher, "key", r.Key, strconv.Itoa(i)), len(items)
		case d.cloudID != "":
			events[i].Key = join(r.Publisher, "cloudevent", d.cloudSource, d.cloudID)
		}
		if all = append(all, d.problems...); len(all) >= maxProblems {
			break
		}
	}
	if len(all) > 0 {
		return nil, all[:min(len(all), maxProblems)]
	}
	return events, nil
}

// join makes one key of parts; different parts make different keys.
func join(parts ...string) string {
	for i, part := range parts {
		parts[i] = strconv.Quote(part)
	}
	return strings.Join(parts, " ")
}

// split returns the events of a body, which is a list or a single event.
func split(body []byte) (items []json.RawMessage, isList bool, err error) {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return nil, false, errors.New("is empty: expected an event, or a list of events, as JSON")
	case bytes.HasPrefix(body, []byte(valid.ByteOrderMark)):
		return nil, false, valid.ErrMark
	case body[0] != '[':
		return []json.RawMessage{body}, false, nil
	}
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, true, notJSON(err)
	}
	if len(items) == 0 {
		return nil, true, errors.New("is an empty list: expected events")
	}
	return items, true, nil
}

func notJSON(err error) error {
	if at, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("is not valid JSON: %w (at byte %d)", err, at.Offset)
	}
	return errors.New("is not valid JSON")
}

// decoder reads one event.
type decoder struct {
	at                   string
	types                vocabulary.Types
	problems             Problems
	cloudSource, cloudID string
}

func (d *decoder) problem(member, format string, args ...any) {
	at := d.at
	if member != "" {
		at += "." + member
	}
	d.problems = append(d.problems, Problem{at, fmt.Sprintf(format, args...)})
}

func (d *decoder) event(item []byte, cloud bool) (p outbox.Publication) {
	m, ok := d.members("", item)
	if !ok {
		return p
	}
	_, hasVersion := m["specversion"]
	_, hasEvent := m["event"]
	switch {
	case cloud || hasVersion:
		d.cloudEvent(m, &p.Event)
	case hasEvent:
		d.six(m, &p.Event)
	case m["type"] != nil:
		d.standard(m, &p.Event)
	default:
		d.problem("event", `is missing: expected a name such as "order.created"`)
	}
	if len(d.problems) == 0 {
		d.complete(&p.Event)
	}
	return p
}

// six reads the six members of a webhook, as Tidings sends it.
func (d *decoder) six(m map[string]json.RawMessage, e *outbox.Event) {
	d.only("", m, "event", "resource_type", "resource_id", "resource_url", "user_id", "timestamp", "resource_version")
	d.name("event", d.text("", m, "event", true), e)
	d.resource("", m, e)
	e.Time = d.time("timestamp", d.text("", m, "timestamp", false))
}

// standard reads the envelope of Standard Webhooks, whose data is an event's.
func (d *decoder) standard(m map[string]json.RawMessage, e *outbox.Event) {
	d.only("", m, "type", "timestamp", "data")
	d.name("type", d.text("", m, "type", true), e)
	e.Time = d.time("timestamp", d.text("", m, "timestamp", false))
	if data, ok := d.members("data", m["data"]); ok {
		d.only("data", data, dataMembers...)
		d.resource("data", data, e)
	}
}

// dataMembers are the members of an envelope's data. Those that the log sets are accepted,
// since Tidings sends them, but ignored.
var dataMembers = []string{
	"id", "sequence", "resource_version", "resource_type", "resource_id", "resource_url", "user_id",
}

// cloudEvent reads a CloudEvent (CloudEvents 1.0, JSON format). The type ends in the
// event's name, and the subject is the resource. Other attributes are not passed on.
func (d *decoder) cloudEvent(m map[string]json.RawMessage, e *outbox.Event) {
	if version := d.text("", m, "specversion", true); version != "" && version != "1.0" {
		d.problem("specversion", "%q is not supported: expected \"1.0\"", shorten(version))
	}
	d.cloudID, d.cloudSource = d.text("", m, "id", true), d.text("", m, "source", true)
	kind := d.text("", m, "type", true)
	if parts := strings.Split(kind, "."); len(parts) > 2 { // com.example.order.created
		kind = strings.Join(parts[len(parts)-2:], ".")
	}
	d.name("type", kind, e)
	e.Time = d.time("time", d.text("", m, "time", false))
	subject := d.text("", m, "subject", false)
	id := d.subject(subject, e.Type)
	e.ID = id
	e.Trace = d.text("", m, "traceparent", false)
	if _, ok := m["data_base64"]; ok {
		d.problem("data_base64", "an event carries no data: receivers read the resource from its URL")
	}
	if raw := m["data"]; raw != nil && string(raw) != "null" {
		if data, ok := d.members("data", raw); ok {
			d.only("data", data, dataMembers...)
			d.resource("data", data, e)
		}
	}
	if subject != "" && e.ID != id && e.ID != subject {
		d.problem("data.resource_id", "%q does not match the subject's resource, %q", shorten(e.ID), shorten(subject))
	}
	if e.ID == "" {
		d.problem("subject", "is missing: expected the id of the resource, or its type and id such as \"order/4711\"")
	}
}

// subject returns the id in the subject of a CloudEvent: the id itself, or type and
// id with a slash between them.
func (d *decoder) subject(subject string, of tidings.ResourceType) string {
	first, rest, cut := strings.Cut(subject, "/")
	if kind := tidings.ResourceType(first); cut && kind == of {
		return rest
	} else if _, known := d.types[kind]; cut && known && of != "" {
		d.problem("subject", "%q has the type %s, but the event has the type %s", shorten(subject), kind, of)
	}
	return subject
}

// resource reads the resource's identity and the user who changed it.
func (d *decoder) resource(in string, m map[string]json.RawMessage, e *outbox.Event) {
	if given := d.text(in, m, "resource_type", false); given != "" && given != string(e.Type) && e.Type != "" {
		d.problem(path(in, "resource_type"), "%q does not match the event's type, %q", shorten(given), e.Type)
	}
	if id := d.text(in, m, "resource_id", e.ID == ""); id != "" {
		e.ID = id
	}
	e.URL = d.text(in, m, "resource_url", false)
	e.UserID = d.text(in, m, "user_id", false)
	if raw := m["resource_version"]; raw != nil && string(raw) != "null" {
		if err := json.Unmarshal(raw, &e.Version); err != nil || e.Version < 0 {
			d.problem(path(in, "resource_version"), "expected a non-negative integer")
		}
	}
}

func (d *decoder) name(member, name string, e *outbox.Event) {
	if name == "" {
		return
	}
	kind, action, _ := strings.Cut(name, ".")
	e.Type, e.Action = tidings.ResourceType(kind), tidings.Action(action)
	if d.types.Has(e.Type, e.Action) {
		return
	}
	var known []string
	for t, actions := range d.types {
		if len(actions) == 0 {
			actions = tidings.Actions()
		}
		for _, a := range actions {
			known = append(known, string(t)+"."+string(a))
		}
	}
	slices.Sort(known)
	if len(known) == 0 {
		d.problem(member, "there is no event %q: the configuration has no types", shorten(name))
		return
	}
	d.problem(member, "there is no event %q; did you mean %q?", shorten(name), vocabulary.Nearest(name, known))
}

// complete fills in what was omitted, and checks that receivers can read the event.
func (d *decoder) complete(e *outbox.Event) {
	if e.URL == "" {
		e.URL = "/" + string(e.Type) + "/" + url.PathEscape(e.ID)
	}
	check := tidings.Event{
		Type: e.Type, Action: e.Action, ResourceID: e.ID, ResourceURL: e.URL, UserID: e.UserID, Time: time.Now(),
	}
	if !e.Time.IsZero() {
		check.Time = e.Time
	}
	if err := check.Check(); err != nil {
		d.problem("", "%s", err)
	}
}

func (d *decoder) time(member, text string) (at time.Time) {
	if text == "" {
		return at
	}
	at, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		d.problem(member, "%q is not a valid time: expected RFC 3339, such as \"2026-03-26T12:00:00Z\"", shorten(text))
	case at.Before(time.Unix(0, 0)) || at.After(time.Now().Add(maxAhead)):
		d.problem(member, "%q is out of range: expected the time of the change, from 1970 to now", shorten(text))
	}
	return at
}

// maxAhead is how far the clock of a publisher may be ahead.
const maxAhead = 24 * time.Hour

// text returns a member that is a string; null counts as omitted.
func (d *decoder) text(in string, m map[string]json.RawMessage, name string, required bool) (text string) {
	raw := m[name]
	if raw == nil || string(raw) == "null" {
		if required {
			d.problem(path(in, name), "is missing")
		}
		return ""
	}
	if err := json.Unmarshal(raw, &text); err != nil || raw[0] != '"' {
		d.problem(path(in, name), "expected a string")
		return ""
	}
	if text == "" && required {
		d.problem(path(in, name), "is empty")
	}
	return text
}

// only refuses members without a meaning: whoever sends them expects them to arrive.
func (d *decoder) only(in string, m map[string]json.RawMessage, names ...string) {
	for name := range m {
		if slices.Contains(names, name) {
			continue
		}
		d.problem(path(in, shorten(name)), "unknown member: an event has %s, and carries no data", strings.Join(names, ", "))
	}
}

// members returns the members of an object. Duplicates are refused, because programs
// differ in which of them counts.
func (d *decoder) members(name string, raw []byte) (map[string]json.RawMessage, bool) {
	if len(raw) == 0 {
		d.problem(name, "is missing")
		return nil, false
	}
	if raw[0] != '{' {
		d.problem(name, "expected an object")
		return nil, false
	}
	m := make(map[string]json.RawMessage)
	reader := json.NewDecoder(bytes.NewReader(raw))
	_, err := reader.Token()
	for err == nil && reader.More() {
		var key json.Token
		var value json.RawMessage
		if key, err = reader.Token(); err != nil {
			break
		}
		member, _ := key.(string)
		if err = reader.Decode(&value); err != nil {
			break
		}
		if _, twice := m[member]; twice {
			d.problem(path(name, shorten(member)), "duplicate member")
			return nil, false
		}
		m[member] = value
	}
	if err == nil {
		_, err = reader.Token()
	}
	if err == nil && reader.InputOffset() != int64(len(raw)) {
		err = errors.New("unexpected data after the object")
	}
	if err != nil {
		d.problem(name, "%s", notJSON(err))
		return nil, false
	}
	return m, true
}

func path(in, name string) string {
	if in == "" {
		return name
	}
	return in + "." + name
}

func shorten(text string) string { return strings.ToValidUTF8(text[:min(len(text), 64)], "�") }

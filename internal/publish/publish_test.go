package publish_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/publish"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/vocabulary"
)

var types = vocabulary.Types{"order": nil, "invoice": {"paid", "voided"}}

func paid(e outbox.Event, key string) outbox.Publication {
	if e.Type == "" {
		e.Type, e.Action = "invoice", "paid"
	}
	p := outbox.Publication{Event: e, Key: key}
	if strings.Contains(key, `"key"`) {
		p.Batch = 1
	}
	return p
}

func TestDecode(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		media, key, body string
		want             []outbox.Publication
	}{
		"the least": {
			"", "", `{"event":"invoice.paid","resource_id":"1"}`,
			[]outbox.Publication{paid(outbox.Event{ID: "1", URL: "/invoice/1"}, "")},
		},
		"six members": {
			"application/json; charset=utf-8", "k",
			` {"event":"invoice.paid","resource_type":"invoice","resource_id":"a/b",` +
				`"resource_url":"/i/1","user_id":null,"timestamp":"2026-03-26T12:00:00Z","resource_version":7} `,
			[]outbox.Publication{paid(outbox.Event{ID: "a/b", URL: "/i/1", Time: noon, Version: 7},
				`"me" "key" "k" "0"`)},
		},
		"a list": {
			"application/json", "",
			`[{"event":"order.created","resource_id":"é"},{"event":"invoice.paid","resource_id":"2","user_id":"u"}]`,
			[]outbox.Publication{
				paid(outbox.Event{Type: "order", Action: "created", ID: "é", URL: "/order/%C3%A9"}, ""),
				paid(outbox.Event{ID: "2", URL: "/invoice/2", UserID: "u"}, ""),
			},
		},
		"Standard Webhooks": {
			"application/json", "msg_1", `{"type":"invoice.paid","timestamp":"2026-03-26T12:00:00Z",` +
				`"data":{"resource_id":"1","resource_url":"/i/1","user_id":"u"}}`,
			[]outbox.Publication{paid(outbox.Event{ID: "1", URL: "/i/1", UserID: "u", Time: noon},
				`"me" "key" "msg_1" "0"`)},
		},
		"a CloudEvent": {
			publish.CloudEvent, "",
			`{"specversion":"1.0","id":"a","source":"/shop","type":"com.example.invoice.paid",` +
				`"subject":"invoice/1","time":"2026-03-26T12:00:00Z","traceparent":"00-1","comexampleother":3}`,
			[]outbox.Publication{paid(outbox.Event{ID: "1", URL: "/invoice/1", Time: noon, Trace: "00-1"},
				`"me" "cloudevent" "/shop" "a"`)},
		},
		"a subject with a slash": {
			"", "", `{"specversion":"1.0","id":"a","source":"s","type":"invoice.paid","subject":"2026/1"}`,
			[]outbox.Publication{paid(outbox.Event{ID: "2026/1", URL: "/invoice/2026%2F1"}, `"me" "cloudevent" "s" "a"`)},
		},
		"recognized without its Content-Type": {
			"application/json", "", `{"specversion":"1.0","id":"a","source":"s","type":"invoice.paid","subject":"1"}`,
			[]outbox.Publication{paid(outbox.Event{ID: "1", URL: "/invoice/1"}, `"me" "cloudevent" "s" "a"`)},
		},
		"a batch": {
			publish.CloudEventsBatch, "",
			`[{"specversion":"1.0","id":"a","source":"s","type":"invoice.paid","data":{"resource_id":"1","user_id":"u"}}]`,
			[]outbox.Publication{paid(outbox.Event{ID: "1", URL: "/invoice/1", UserID: "u"},
				`"me" "cloudevent" "s" "a"`)},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := publish.Decode(publish.Request{
				ContentType: test.media, Key: test.key, Publisher: "me", Body: []byte(test.body),
			}, types)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const cloud = `{"specversion":"1.0","id":"a","source":"s","type":"invoice.paid","subject":"1"`
	for _, test := range []struct{ media, body, want string }{
		{"text/plain", `{}`, publish.ErrContentType.Error()},
		{"", "", "body: is empty: expected an event, or a list of events, as JSON"},
		{"", "[]", "body: is an empty list: expected events"},
		{"", "7", "body: expected an object"},
		{"", "{", "body: is not valid JSON"},
		{"", "\ufeff{}", "body: begins with a byte order mark; send UTF-8 without one"},
		{"", "[{]", "body: is not valid JSON: invalid character ']' looking for beginning of object key string " +
			"(at byte 3)"},
		{"", `{"event":"invoice.paid","resource_id":"1"} x`, "body: is not valid JSON"},
		{"", `{"resource_id":"1"}`, `body.event: is missing: expected a name such as "order.created"`},
		{"", `{"event":"invoice.paid"}`, "body.resource_id: is missing"},
		{"", `{"event":"invoice.paid","resource_id":1}`, "body.resource_id: expected a string"},
		{"", `{"event":"invoice.paid","resource_id":""}`, "body.resource_id: is empty"},
		{
			"", `{"event":"invoice.pay","resource_id":"1"}`,
			`body.event: there is no event "invoice.pay"; did you mean "invoice.paid"?`,
		},
		{
			"", `{"event":"customer.banned","resource_id":"1"}`,
			`body.event: there is no event "customer.banned"; did you mean "invoice.paid"?`,
		},
		{"", `{"event":"invoice.paid","event":"invoice.paid"}`, "body.event: duplicate member"},
		{
			"", `{"event":"invoice.paid","resource_id":"1","amount":3}`,
			"body.amount: unknown member: an event has event, resource_type, resource_id, resource_url, user_id, " +
				"timestamp, resource_version, and carries no data",
		},
		{
			"", `{"event":"invoice.paid","resource_id":"1","resource_type":"order"}`,
			`body.resource_type: "order" does not match the event's type, "invoice"`,
		},
		{
			"", `{"event":"invoice.paid","resource_id":"1","timestamp":"yesterday"}`,
			`body.timestamp: "yesterday" is not a valid time: expected RFC 3339, such as "2026-03-26T12:00:00Z"`,
		},
		{
			"", `{"event":"invoice.paid","resource_id":"1","timestamp":"0001-01-01T00:00:00Z"}`,
			`body.timestamp: "0001-01-01T00:00:00Z" is out of range: expected the time of the change, from 1970 to now`,
		},
		{
			"", `{"event":"invoice.paid","resource_id":"1","timestamp":"9999-12-31T23:59:59Z"}`,
			`body.timestamp: "9999-12-31T23:59:59Z" is out of range: expected the time of the change, from 1970 to now`,
		},
		{
			"", `{"event":"invoice.paid","resource_id":"1","resource_version":-1}`,
			"body.resource_version: expected a non-negative integer",
		},
		{
			"", `[{"event":"invoice.paid","resource_id":"1"},{"event":"invoice.paid","resource_id":"a\u0000"}]`,
			`body[1]: resource id: "a\x00" contains control characters`,
		},
		{
			"", `{"type":"invoice.paid","data":{"resource_id":"1","amount":3}}`,
			"body.data.amount: unknown member: an event has id, sequence, resource_version, resource_type, " +
				"resource_id, resource_url, user_id, and carries no data",
		},
		{"", `{"type":"invoice.paid"}`, "body.data: is missing"},
		{
			publish.CloudEvent, "[" + cloud + "}]",
			"body: expected one event; a list has the Content-Type application/cloudevents-batch+json",
		},
		{
			publish.CloudEventsBatch, cloud + "}",
			"body: expected a list of events; a single event has the Content-Type application/cloudevents+json",
		},
		{
			publish.CloudEvent, strings.Replace(cloud, "1.0", "0.3", 1) + "}",
			`body.specversion: "0.3" is not supported: expected "1.0"`,
		},
		{
			publish.CloudEvent, strings.Replace(cloud, `,"subject":"1"`, "", 1) + "}",
			`body.subject: is missing: expected the id of the resource, or its type and id such as "order/4711"`,
		},
		{publish.CloudEvent, strings.Replace(cloud, `"id":"a",`, "", 1) + "}", "body.id: is missing"},
		{
			publish.CloudEvent, strings.Replace(cloud, `"subject":"1"`, `"subject":"order/1"`, 1) + "}",
			`body.subject: "order/1" has the type order, but the event has the type invoice`,
		},
		{
			publish.CloudEvent, cloud + `,"data":{"resource_id":"2"}}`,
			`body.data.resource_id: "2" does not match the subject's resource, "1"`,
		},
		{
			"", `{"event":"invoice.paid","resource_id":"1","resource_url":"ftp://x/1"}`,
			`body: resource url: "ftp://x/1": expected an http or https URL, or a path that begins with /`,
		},
		{
			publish.CloudEvent, cloud + `,"data_base64":"aGk="}`,
			"body.data_base64: an event carries no data: receivers read the resource from its URL",
		},
	} {
		_, err := publish.Decode(publish.Request{ContentType: test.media, Body: []byte(test.body)}, types)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s %s:\n got %v\nwant %s", test.media, test.body, err, test.want)
		}
	}
	many := "[" + strings.Repeat(`{"event":"invoice.paid","resource_id":"1"},`, outbox.MaxPublish) + "{}]"
	if _, err := publish.Decode(publish.Request{Body: []byte(many)}, types); err == nil ||
		err.Error() != "body: 1001 events; the limit is 1000 per request" {
		t.Errorf("1001 events: %v", err)
	}
	wrong := "[" + strings.Repeat("{},", 99) + "{}]"
	_, err := publish.Decode(publish.Request{Body: []byte(wrong)}, types)
	if all, _ := errors.AsType[publish.Problems](err); len(all) != 20 {
		t.Errorf("100 wrong events: %v; want 20 problems", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(publish.JSON, `{"event":"invoice.paid","resource_id":"1"}`)
	f.Add(publish.CloudEventsBatch, `[{"specversion":"1.0","id":"a","source":"s","type":"invoice.paid","subject":"1"}]`)
	f.Fuzz(func(t *testing.T, media, body string) {
		events, err := publish.Decode(publish.Request{ContentType: media, Body: []byte(body)}, types)
		if (err == nil) == (len(events) == 0) {
			t.Errorf("%d events, error %v", len(events), err)
		}
		for _, e := range events {
			if !types.Has(e.Type, e.Action) || e.ID == "" || e.URL == "" {
				t.Errorf("%+v", e)
			}
		}
	})
}

package tidings_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
)

func sample() tidings.Event {
	return tidings.Event{
		Type: "provider", Action: tidings.Created,
		ResourceID:  "550e8400-e29b-41d4-a716-446655440000",
		ResourceURL: "/api/v1/providers/550e8400-e29b-41d4-a716-446655440000",
		UserID:      "660e8400-e29b-41d4-a716-446655440000",
		Time:        time.Date(2026, 3, 26, 13, 0, 0, 0, time.FixedZone("", 3600)),
	}
}

func TestBodyIsTheSixMembersInOrder(t *testing.T) {
	const head = `{"event":"provider.created","resource_type":"provider",` +
		`"resource_id":"550e8400-e29b-41d4-a716-446655440000",` +
		`"resource_url":"/api/v1/providers/550e8400-e29b-41d4-a716-446655440000",`
	tests := map[string]struct {
		change func(*tidings.Event)
		want   string
	}{
		"whole seconds": {
			func(*tidings.Event) {},
			`"user_id":"660e8400-e29b-41d4-a716-446655440000","timestamp":"2026-03-26T12:00:00Z"}`,
		},
		"no user": {
			func(e *tidings.Event) { e.UserID = "" },
			`"user_id":null,"timestamp":"2026-03-26T12:00:00Z"}`,
		},
		"microseconds without trailing zeros": {
			func(e *tidings.Event) { e.UserID, e.Time = "", e.Time.Add(120*time.Millisecond+999) },
			`"user_id":null,"timestamp":"2026-03-26T12:00:00.12Z"}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := sample()
			tt.change(&e)
			if diff := cmp.Diff(head+tt.want, string(e.AppendJSON(nil))); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnmarshalRefusesWhatIsNoEvent(t *testing.T) {
	good := string(sample().AppendJSON(nil))
	for name, tt := range map[string]struct{ body, want string }{
		"unknown member":  {strings.Replace(good, `{`, `{"data":1,`, 1), "unknown field"},
		"missing member":  {strings.Replace(good, `"resource_id"`, `"user_id"`, 1), `"resource_id" is missing`},
		"contradiction":   {strings.Replace(good, `provider.created`, `file.created`, 1), "file.created"},
		"another action":  {strings.Replace(good, `provider.created`, `provider.Paid!`, 1), `action "Paid!"`},
		"another type":    {strings.ReplaceAll(good, `provider`, `Provider`), `resource type "Provider"`},
		"timestamp":       {strings.Replace(good, `2026-03-26T`, `yesterday `, 1), "timestamp"},
		"something after": {good + `{}`, "after"},
	} {
		t.Run(name, func(t *testing.T) {
			var e tidings.Event
			if err := json.Unmarshal([]byte(tt.body), &e); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Events that receivers could not decode are rejected with the name of the
// field.
func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for name, tt := range map[string]struct {
		change func(*tidings.Event)
		want   string
	}{
		"as it is":        {func(*tidings.Event) {}, ""},
		"own action":      {func(e *tidings.Event) { e.Type, e.Action = "invoice", "paid" }, ""},
		"any id":          {func(e *tidings.Event) { e.ResourceID = "Zürich/№ 7" }, ""},
		"no type":         {func(e *tidings.Event) { e.Type = "" }, "resource type"},
		"action":          {func(e *tidings.Event) { e.Action = "Paid!" }, `action "Paid!"`},
		"ping":            {func(e *tidings.Event) { e.Type, e.Action = "webhook", "ping" }, "webhook.ping"},
		"no resource id":  {func(e *tidings.Event) { e.ResourceID = "" }, "resource id: is missing"},
		"long id":         {func(e *tidings.Event) { e.ResourceID = long }, "resource id: is longer than 512"},
		"no URL":          {func(e *tidings.Event) { e.ResourceURL = "" }, "resource url: is missing"},
		"long URL":        {func(e *tidings.Event) { e.ResourceURL = long }, "resource url: is longer than 2048"},
		"another scheme":  {func(e *tidings.Event) { e.ResourceURL = "javascript:alert(1)" }, "expected an http or https"},
		"no host":         {func(e *tidings.Event) { e.ResourceURL = "https:orders" }, "expected an http or https"},
		"a relative path": {func(e *tidings.Event) { e.ResourceURL = "orders/1" }, "a path that begins with /"},
		"no URL at all":   {func(e *tidings.Event) { e.ResourceURL = "http://[::1" }, "resource url"},
		"line in an id":   {func(e *tidings.Event) { e.ResourceID = "a\nb" }, "control characters"},
		"user":            {func(e *tidings.Event) { e.UserID = "\xff" }, "user id: is not valid UTF-8"},
		"owner":           {func(e *tidings.Event) { e.OwnerID = long }, "owner id"},
		"dot in the id":   {func(e *tidings.Event) { e.ID = "a.b" }, "other than spaces and dots"},
		"line in the id":  {func(e *tidings.Event) { e.ID = "a\r\nb" }, "other than spaces and dots"},
		"long webhook-id": {func(e *tidings.Event) { e.ID = long }, "id: is longer than 256"},
		"no time":         {func(e *tidings.Event) { e.Time = time.Time{} }, "time"},
		"far time":        {func(e *tidings.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
	} {
		t.Run(name, func(t *testing.T) {
			e := sample()
			tt.change(&e)
			err := e.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error = %v, want one with %q", err, tt.want)
			}
			if err == nil {
				var read tidings.Event
				if err := read.UnmarshalJSON(e.AppendJSON(nil)); err != nil {
					t.Errorf("it passes, but can't be read: %v", err)
				}
			}
		})
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(sample().AppendJSON(nil))
	f.Add([]byte(`{"event":"a.created","resource_type":"a","resource_id":"\u0000\"<é","resource_url":"/",` +
		`"user_id":null,"timestamp":"2026-03-26T12:00:00.000001Z"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var first, second tidings.Event
		if first.UnmarshalJSON(body) != nil || first.Time.Year() < 0 || first.Time.Year() > 9999 {
			return
		}
		first.Time = first.Time.Truncate(time.Microsecond)
		if err := second.UnmarshalJSON(first.AppendJSON(nil)); err != nil {
			t.Fatalf("%s: %v", first.AppendJSON(nil), err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("after a round trip (-want +got):\n%s", diff)
		}
	})
}

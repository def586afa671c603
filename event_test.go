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
		Type: tidings.Provider, Action: tidings.Created,
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
		"whole seconds": {func(*tidings.Event) {}, `"user_id":"660e8400-e29b-41d4-a716-446655440000","timestamp":"2026-03-26T12:00:00Z"}`},
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
		"unknown action":  {strings.Replace(good, `provider.created`, `provider.moved`, 1), "provider.moved"},
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

func FuzzEvent(f *testing.F) {
	f.Add(sample().AppendJSON(nil))
	f.Add([]byte(`{"event":"a.created","resource_type":"a","resource_id":"\u0000\"<é","resource_url":"/","user_id":null,"timestamp":"2026-03-26T12:00:00.000001Z"}`))
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

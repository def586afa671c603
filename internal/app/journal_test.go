package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Operators' actions, an endpoint's states and its rates are recorded. A pause can end by
// itself.
func TestJournal(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusNoContent)
		}))
		defer receiver.Close()
		w := newWorldWith(t, settings, object{"name": "crm", "url": receiver.URL, "events": []any{"context.*"}})
		const crm = "/webhooks/endpoints/crm"
		w.call("ann", "POST", "/contexts", object{})
		w.until("admin", "GET", "/webhooks/attempts?endpoint=crm", nil, has(`"outcome":"delivered"`))

		at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }
		for want, body := range map[string]object{
			"body.coment":                  {"coment": "typed in a hurry"},
			"must be in the future":        {"until": at(-time.Minute)},
			"must be within a year":        {"until": at(400 * 24 * time.Hour)},
			"expected length <= 500":       {"comment": strings.Repeat("x", 501)},
			"expected string to be RFC 33": {"until": "2h"},
		} {
			w.wants(w.try("admin", "POST", crm+"/pause", body), 422, want)
		}
		w.wants(w.try("admin", "POST", crm+"/pause?until=x", nil), 422, "query.until")
		w.wants(w.try("admin", "GET", crm+"/states?range=1y", nil), 422, "query.range")
		w.wants(w.try("admin", "GET", "/webhooks/endpoints/cmr/states", nil), 404, `did you mean \"crm\"?`)
		w.wants(w.try("admin", "GET", "/webhooks/series?endpoint=cmr", nil), 422, `did you mean \"crm\"?`)
		w.wants(w.try("admin", "GET", "/webhooks/actions?endpoint=cmr", nil), 422, `did you mean \"crm\"?`)

		end := at(1500 * time.Millisecond)
		paused := w.call("admin", "POST", crm+"/pause", object{"comment": "<b>moves</b>", "until": end})
		control, _ := paused.body["control"].(map[string]any)
		if control["by"] != "admin@example.com" || control["comment"] != "<b>moves</b>" ||
			paused.body["state"] != "disabled" {
			t.Errorf("paused: %s", paused.text)
		}
		w.until("admin", "GET", crm, nil, func(a answer) bool { return a.body["state"] == "healthy" })
		w.wants(w.call("admin", "POST", crm+"/pause", nil), 200, `"reason":"paused"`) // until resumed
		w.wants(w.call("admin", "POST", crm+"/resume", nil), 200)
		w.wants(w.call("admin", "POST", crm+"/test", object{}), 200, "delivered")

		actions := w.call("admin", "GET", "/webhooks/actions?endpoint=crm&limit=3", nil)
		var done []string
		for _, item := range actions.body["items"].([]any) {
			done = append(done, item.(map[string]any)["action"].(string))
		}
		if got := strings.Join(done, " "); got != "test resume pause" || actions.body["next"] == nil {
			t.Errorf("actions: %s", actions.text)
		}
		rest := w.call("admin", "GET", "/webhooks/actions?before="+fmt.Sprint(actions.body["next"]), nil)
		w.wants(rest, 200, `"action":"pause"`, `"by":"admin@example.com"`, "moves")

		states := w.until("admin", "GET", crm+"/states", nil, has(`"comment":"<b>moves</b>"`))
		var names []string
		for _, item := range states.body["items"].([]any) {
			names = append(names, item.(map[string]any)["state"].(string))
		}
		if got := strings.Join(names, " "); !strings.HasPrefix(got, "healthy disabled") {
			t.Errorf("states: %s", states.text)
		}
		for _, query := range []string{"?endpoint=crm&range=1h", "?range=1h", "?endpoint=crm&range=24h", "?range=7d"} {
			series := w.until("admin", "GET", "/webhooks/series"+query, nil, func(a answer) bool {
				return strings.Count(a.text, `"delivered":0`) < strings.Count(a.text, `"delivered":`)
			})
			want := map[float64]int{60: 60, 600: 144, 4200: 144}[series.body["step_seconds"].(float64)]
			if got := len(series.body["items"].([]any)); got != want {
				t.Errorf("%s has %d points, want %d", query, got, want)
			}
		}
	})
}

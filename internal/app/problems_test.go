package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// Problems that need an operator come first, and an endpoint's requests are shown without
// secrets.
func TestProblems(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		var status atomic.Int64
		status.Store(http.StatusServiceUnavailable)
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			answer := http.StatusNoContent
			if r.URL.Path == "/down" {
				answer = int(status.Load())
			}
			rw.WriteHeader(answer)
		}))
		defer receiver.Close()
		secret := "whsec_" + strings.Repeat("c2VjcmV0", 6)
		endpoint := func(name string) object {
			return object{
				"name": name, "url": receiver.URL + "/" + name + "?key=hidden&flag", "events": []any{"context.*"},
				"headers": object{"x-api-key": "hidden"}, "secrets": []any{secret}, "max_in_flight": 7,
			}
		}
		w := newWorldWith(t, settings, endpoint("down"), endpoint("well"), endpoint("paused"))
		w.call("admin", "POST", "/webhooks/endpoints/paused/pause", object{"comment": "till Monday"})
		status.Store(http.StatusInternalServerError)
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.call("ann", "POST", "/contexts", object{})
		problems := w.until("admin", "GET", "/webhooks/problems", nil, has(`"kind":"down"`, `"kind":"paused"`,
			`"reason":"http_500"`, `"detail":"till Monday"`, `"lost_at":"`))
		if at := strings.Index(problems.text, `"down"`); at > strings.Index(problems.text, `"paused"`) ||
			strings.Contains(problems.text, `"well"`) {
			t.Errorf("problems: %s", problems.text)
		}
		w.until("admin", "GET", "/webhooks/attempts?endpoint=down", nil, has(`"probe":true`))
		down := w.until("admin", "GET", "/webhooks/endpoints/down", nil, has(`"probes":`, `"waiting":2`))
		w.wants(down, 200, `"max_in_flight":7`, `"headers":["X-Api-Key"]`, `"signatures":1`)

		// The list says which endpoints lack the event, and how many.
		listed := w.until("admin", "GET", "/webhooks/events?resource="+id, nil,
			has(`"undelivered_to":["down","paused"]`))
		w.wants(listed, 200, `"total":1,"total_exact":true`)
		event, _ := listed.body["items"].([]any)[0].(map[string]any)["id"].(string)
		w.wants(w.call("admin", "GET", "/webhooks/events/"+event, nil), 200, `"positions_ahead":1`, `"state":"disabled"`,
			`"settled_at":"`)
		request := w.call("admin", "GET", "/webhooks/events/"+event+"/request?endpoint=down", nil)
		w.wants(request, 200, `"method":"POST"`, receiver.URL+`/down?key=***&flag`, `\"event\":\"context.created\"`,
			`{"name":"X-Api-Key","value":"***","masked":true}`, `{"name":"Webhook-Signature","value":"***","masked":true}`,
			`{"name":"Webhook-Id","value":"`+event+`"}`)
		w.wants(w.call("admin", "GET", "/webhooks/events/"+event+"/request", nil), 200, `/down?key=***`)
		w.wants(w.try("admin", "GET", "/webhooks/events/"+event+"/request?endpoint=donw", nil), 422, "did you mean")
		for _, a := range []answer{problems, down, request} {
			if strings.Contains(a.text, "hidden") || strings.Contains(a.text, secret) {
				t.Errorf("a secret is shown: %s", a.text)
			}
		}
		status.Store(http.StatusNoContent)
		w.until("admin", "GET", "/webhooks/problems", nil, func(a answer) bool {
			return !strings.Contains(a.text, `"down"`) && strings.Contains(a.text, `"paused"`)
		})

		server := w.call("admin", "GET", "/webhooks/status", nil)
		kind, _ := server.body["database"].(map[string]any)["kind"].(string)
		w.wants(server, 200, `"primary":true`, `"leases":`, `"retention_seconds":`, `"in_force_since":"`, `"sources":[]`)
		if !strings.Contains(strings.ToLower(t.Name()), kind) || kind == "" {
			t.Errorf("database %q", kind)
		}
	})
}

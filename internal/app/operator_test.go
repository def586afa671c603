package app_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// until repeats a request until its answer is as wanted.
func (w *world) until(as, method, path string, body any, want func(answer) bool) answer {
	w.Helper()
	deadline := time.Now().Add(testTimeout)
	for {
		a := w.try(as, method, path, body)
		if want(a) {
			return a
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s %s: %d %s", method, path, a.status, a.text)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func has(texts ...string) func(answer) bool {
	return func(a answer) bool {
		for _, text := range texts {
			if !strings.Contains(a.text, text) {
				return false
			}
		}
		return true
	}
}

// TestOperator tests what operators see and do.
func TestOperator(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		status := new(atomic.Int64)
		status.Store(http.StatusNoContent)
		var again atomic.Int64
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("tidings-replay") == "1" {
				again.Add(1)
			}
			answer := int(status.Load())
			if body, _ := io.ReadAll(r.Body); answer == http.StatusBadRequest &&
				bytes.Contains(body, []byte(`"event":"context.created"`)) {
				answer = http.StatusNoContent // not all events are refused
			}
			rw.WriteHeader(answer)
			fmt.Fprint(rw, "said")
		}))
		defer receiver.Close()
		w := newWorldWith(t, settings, object{
			"name": "crm/eu", "url": strings.Replace(receiver.URL, "http://", "http://me:hidden@", 1) +
				"/hook?key=hidden", "events": []any{"context.*"},
			"headers": object{"X-Key": "hidden"}, "retry": object{"schedule": []any{"1h"}, "max_attempts": 3},
		})
		crm := "/webhooks/endpoints/" + url.PathEscape("crm/eu")
		for _, as := range []string{"ann", "developer"} {
			w.wants(w.try(as, "GET", "/webhooks/endpoints", nil), 403, "admin")
		}
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.mark()
		a := w.until("admin", "GET", crm, nil, has(`"state":"healthy"`, `"lag_events":0`))
		if strings.Contains(a.text, "hidden") || a.body["url"] != receiver.URL+"/hook" {
			t.Errorf("endpoint shows %v", a.body["url"])
		}
		w.wants(w.try("admin", "GET", "/webhooks/endpoints/crm", nil), 404, `did you mean \"crm/eu\"?`)

		// A failed event is parked, with those that wait behind it.
		status.Store(http.StatusBadRequest)
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": "1"}})
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": "2"}})
		w.whileOthersPass("parked events", func() bool {
			return has(`"reason":"http_400"`, `"attempts":0`)(w.call("admin", "GET", "/webhooks/parked?endpoint=crm/eu", nil))
		})
		attempts := w.until("admin", "GET", "/webhooks/attempts?endpoint=crm/eu&outcome=failures", nil,
			has(`"outcome":"refused"`, `"response":"said"`, `"status":400`, `"address":"127.0.0.1:`))
		if strings.Contains(attempts.text, "hidden") {
			t.Errorf("attempts show a secret: %s", attempts.text)
		}
		event := attempts.body["items"].([]any)[0].(map[string]any)
		w.wants(w.call("admin", "GET", fmt.Sprintf("/webhooks/events/%v", event["event_id"]), nil), 200,
			`"endpoint":"crm/eu","pattern":"context.*","fate":"parked"`, "attempt 1 failed with http_400",
			`"endpoint":"receiver","pattern":"*","fate":"delivered"`)
		w.wants(w.call("admin", "GET", fmt.Sprintf("/webhooks/events/%v", event["sequence"].(float64)+1), nil), 200,
			fmt.Sprintf("it waits behind the event at position %v of the same resource", event["sequence"]))
		w.wants(w.try("admin", "GET", "/webhooks/events/nonsense", nil), 404, "has no event")

		// A paused endpoint can be tested, and resumed.
		w.wants(w.call("admin", "POST", crm+"/pause", nil), 200, `"state":"disabled"`, `"reason":"paused"`)
		other := w.call("ann", "POST", "/contexts", object{}).id()
		w.wants(w.call("admin", "POST", crm+"/test", nil), 200, `"outcome":"refused"`, `"reason":"http_400"`)
		status.Store(http.StatusNoContent)
		w.wants(w.call("admin", "POST", crm+"/test", nil), 200, `"outcome":"delivered"`)
		w.mark()
		waiting := w.until("admin", "GET", "/webhooks/events?resource="+other, nil, has(other))
		w.wants(w.call("admin", "GET",
			fmt.Sprintf("/webhooks/events/%v", waiting.body["items"].([]any)[0].(map[string]any)["id"]), nil), 200,
			`"fate":"waiting"`, "the endpoint is disabled (paused)")
		w.wants(w.call("admin", "POST", crm+"/resume", nil), 200, `"configured":true`)
		w.until("admin", "GET", "/webhooks/attempts?endpoint=crm/eu&resource="+other, nil, has(`"outcome":"delivered"`))

		// 410 disables the endpoint; enable, not resume, re-enables it.
		status.Store(http.StatusGone)
		w.call("ann", "POST", "/contexts", object{})
		w.until("admin", "GET", crm, nil, has(`"state":"disabled"`, `"reason":"http_410"`))
		w.wants(w.try("admin", "POST", crm+"/resume", nil), 409, "enable it")
		status.Store(http.StatusNoContent)
		w.call("admin", "POST", crm+"/enable", nil)
		w.until("admin", "GET", crm, nil, func(a answer) bool { return a.body["lag_events"] == a.body["parked"] })

		// Replays of one event, then of a range; the parked event is due in an hour.
		one := w.call("admin", "POST", "/webhooks/replays",
			object{"endpoint": "crm/eu", "event": fmt.Sprint(event["sequence"])})
		w.until("admin", "GET", "/webhooks/replays/"+one.id(), nil, has(`"state":"done"`, `"delivered":1`))
		all := w.call("admin", "POST", "/webhooks/replays",
			object{
				"endpoint": "crm/eu", "events": []any{"context.created"},
				"since": w.begun.UTC().Format(time.RFC3339Nano),
			})
		done := w.until("admin", "GET", "/webhooks/replays/"+all.id(), nil, has(`"state":"done"`, `"failed":0`))
		if n := done.body["delivered"].(float64) + 1; int64(n) != again.Load() || n < 4 {
			t.Errorf("%v delivered, %d were marked as replays", n, again.Load())
		}
		w.wants(w.try("admin", "POST", "/webhooks/replays/"+all.id()+"/cancel", nil), 409, "already done")
		future, past := time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
			time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		for _, tt := range []struct {
			replay object
			want   string
		}{
			{object{"events": []any{"context.made"}}, "did you mean"},
			{object{"events": []any{}}, "events"},
			{object{"endpoint": "crm"}, `did you mean \"crm/eu\"?`},
			{object{"since": past, "until": past}, "must be later than since"},
			{object{"since": future}, "is in the future"},
			{object{"resource": "provider/not-a-uuid"}, "not a UUID"},
			{object{"resource": "provdier/" + id}, `did you mean \"provider\"?`},
			{object{"resource": id}, "expected TYPE/ID"},
			{object{}, "say what to send"},
			{object{"all": true, "dead": true}, "leave out either all"},
			{object{"missed": true, "dead": true}, "never delivered"},
			{object{"event": "99999"}, "no event at position 99999"},
			{object{"event": "nonsense"}, "has no event"},
			{object{"event": "1", "dead": true}, "names one event"},
		} {
			if tt.replay["endpoint"] == nil {
				tt.replay["endpoint"] = "crm/eu"
			}
			w.wants(w.try("admin", "POST", "/webhooks/replays", tt.replay), 422, tt.want)
		}
		for _, list := range []string{"events", "attempts"} {
			for query, want := range map[string]string{
				"types=context.made": "did you mean", "resource=nonsense": "not a UUID",
				"resource=x/" + id: "unknown resource type",
				"since=" + future:  "is in the future", "since=" + past + "&until=" +
					past: "must be later than since",
			} {
				w.wants(w.try("admin", "GET", "/webhooks/"+list+"?"+query, nil), 422, want)
			}
		}
		for _, list := range []string{"attempts", "parked"} {
			w.wants(w.try("admin", "GET", "/webhooks/"+list+"?endpoint=crm", nil), 422, `did you mean \"crm/eu\"?`)
		}
		w.wants(w.call("admin", "GET", "/webhooks/replays", nil), 200, one.id(), all.id())
		w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 422, "without a configuration file")
	})
}

// Receivers read missed events from the feed, which shows callers only what they may see.
func TestFeed(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		ann := w.user("ann")
		annContext := w.call("ann", "POST", "/contexts", object{}).id()
		bobContext := w.call("bob", "POST", "/contexts", object{}).id()
		provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url}).id()
		w.mark()
		feed := func(as, query string) answer { return w.call(as, "GET", "/events"+query, nil) }
		all := feed("admin", "")
		for _, id := range []string{ann, annContext, bobContext, provider} {
			if !strings.Contains(all.text, id) {
				t.Errorf("an admin does not see %s", id)
			}
		}
		own := feed("ann", "")
		for id, want := range map[string]bool{ann: true, annContext: true, provider: true, bobContext: false} {
			if strings.Contains(own.text, `"resource_id":"`+id) != want {
				t.Errorf("ann sees %s: %v, want %v", id, !want, want)
			}
		}
		some := feed("admin", "?types=provider.*&limit=1")
		w.wants(some, 200, `"event":"provider.created"`, `"sequence":`, `"resource_version":1`)
		w.wants(w.try("admin", "GET", "/events?types=provider.made", nil), 422, "did you mean")
		w.wants(w.try("admin", "GET", "/events?after=x", nil), 422, "a whole number")
		w.wants(w.try("admin", "GET", "/events?after=1000000", nil), 410, "the log ends at", `"after":"`)
		w.wants(w.try("", "GET", "/events", nil), 401)
		for _, wait := range []string{"61s", "9999s"} { // whether there are events or not
			w.wants(w.try("admin", "GET", "/events?wait="+wait, nil), 422, "at most 60s")
			w.wants(w.try("admin", "GET", fmt.Sprintf("/events?wait=%s&after=%v", wait, all.body["next"]), nil), 422,
				"at most 60s")
		}

		// A waiting request gets the event at once.
		next := all.body["next"]
		waited := make(chan answer, 1)
		begun := time.Now()
		go func() { waited <- feed("ann", fmt.Sprintf("?after=%s&types=context.*&wait=30s", next)) }()
		w.call("bob", "POST", "/contexts", object{}) // ann may not see it
		mine := w.call("ann", "POST", "/contexts", object{}).id()
		w.wants(<-waited, 200, mine)
		if took := time.Since(begun); took > testtool.Allow(10*time.Second) {
			t.Errorf("the wait took %v", took)
		}
		begun = time.Now()
		none := feed("ann", fmt.Sprintf("?after=%s&types=*.deleted&wait=300ms", next))
		if items := none.body["items"].([]any); len(items) != 0 || time.Since(begun) < 300*time.Millisecond {
			t.Errorf("waited %v for %v", time.Since(begun), items)
		}
	})
}

// The feed as server-sent events ends when the server stops, and can be resumed.
func TestFeedStream(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		first := w.call("ann", "POST", "/contexts", object{}).id()
		w.mark()
		open := func(header ...string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/api/v1/events?types=context.*", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer ann")
			r.Header.Set("Accept", "text/event-stream")
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { response.Body.Close() })
			return response
		}
		stream := open()
		if got := stream.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Fatalf("%d %s", stream.StatusCode, got)
		}
		until := func(text string) string {
			var b strings.Builder
			buffer := make([]byte, 4096)
			for !strings.Contains(b.String(), text) {
				n, err := stream.Body.Read(buffer)
				b.Write(buffer[:n])
				if err != nil {
					t.Fatalf("the stream ended before %q: %v\n%s", text, err, b.String())
				}
			}
			return b.String()
		}
		until(first)
		second := w.call("ann", "POST", "/contexts", object{}).id()
		got := until(second)
		if !strings.Contains(got, "event: context.created\ndata: {") {
			t.Errorf("stream:\n%s", got)
		}
		id := strings.Fields(got[strings.LastIndex(got, "id: "):])[1]
		third := w.call("ann", "POST", "/contexts", object{}).id()
		stream = open("Last-Event-ID", id)
		if got := until(third); strings.Contains(got, second) {
			t.Errorf("earlier events were sent after position %s:\n%s", id, got)
		}
		stopped := make(chan error, 1)
		begun := time.Now()
		go func() { stopped <- w.stop() }()
		if err := <-stopped; err != nil || time.Since(begun) > testtool.Allow(4*time.Second) {
			t.Errorf("shutdown took %v, %v", time.Since(begun), err)
		}
	})
}

// A cursor before expired events is refused with a new one.
func TestExpiredEvents(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["webhook"] = object{"retention": "1s", "history_retention": "1s", "endpoints": []any{}}
		w := newWorld(t, settings)
		w.call("ann", "POST", "/contexts", object{})
		var gone answer
		deadline := time.Now().Add(testTimeout)
		for gone.status != http.StatusGone {
			w.call("ann", "POST", "/contexts", object{})
			if gone = w.try("ann", "GET", "/events?after=0", nil); time.Now().After(deadline) {
				t.Fatalf("after=0: %d %s", gone.status, gone.text)
			}
			<-time.After(100 * time.Millisecond)
		}
		after := fmt.Sprint(gone.body["after"])
		if strings.HasPrefix(after, "0") {
			t.Fatalf("new cursor %s", after)
		}
		w.until("ann", "GET", "/events?after="+after, nil, func(a answer) bool {
			return a.status == http.StatusOK || a.status == http.StatusGone // more may have expired
		})
	})
}

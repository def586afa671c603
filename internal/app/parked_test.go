package app_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// moody returns a receiver that refuses updates while refuses is set. Its answers contain
// the credentials that it received.
func moody(t *testing.T) (url string, refuses *atomic.Bool, got func() int) {
	refuses = new(atomic.Bool)
	refuses.Store(true)
	var accepted atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		updated := bytes.Contains(body, []byte(`"event":"context.updated"`))
		if updated && refuses.Load() {
			rw.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprintf(rw, "no tenant\x00\x1b[31m for %s%s", r.Header.Get("X-Key"), strings.Repeat("!", 500))
			return
		}
		if updated {
			accepted.Add(1)
		}
		fmt.Fprintf(rw, "thanks %s", r.Header.Get("X-Key"))
	}))
	t.Cleanup(s.Close)
	return s.URL, refuses, func() int { return int(accepted.Load()) }
}

// Parked events show the reason, and operators retry or discard them.
func TestRetryAndDiscardParkedEvents(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		url, refuses, got := moody(t)
		w := newWorldWith(t, settings, object{
			"name": "crm", "url": url, "events": []any{"context.*"}, "headers": object{"X-Key": "hidden-key"},
			"retry": object{"schedule": []any{"1h"}, "max_attempts": 3},
		})
		const path = "/webhooks/endpoints/crm"
		var ids []string
		for range 3 {
			id := w.call("ann", "POST", "/contexts", object{}).id()
			ids = append(ids, id)
			for n := range 2 { // the second waits behind the first
				w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": fmt.Sprint(n)}})
			}
			w.call("ann", "POST", "/contexts", object{}) // others get through
		}
		w.shows(path, `"parked":6,`)
		list := func(query string) answer { return w.call("admin", "GET", "/webhooks/parked?endpoint=crm"+query, nil) }
		rows := items(list("&reason=http_422"))
		if len(rows) != 3 {
			t.Fatalf("%d failed, want 3: %v", len(rows), rows)
		}
		shown, _ := rows[0]["response"].(string)
		if !strings.HasPrefix(shown, "no tenant  [31m for <secret>!!!") || len([]rune(shown)) > 200 {
			t.Errorf("the answer is shown as %q", shown)
		}
		w.logged("delivery failed", "webhook_id="+rows[0]["id"].(string), fmt.Sprintf("position=%v", rows[0]["sequence"]),
			"resource=context/"+ids[0], `answer="no tenant`)
		for _, place := range []string{
			path, "/webhooks/attempts?outcome=failures", "/webhooks/parked",
			fmt.Sprintf("/webhooks/events/%v", rows[0]["sequence"]),
		} {
			w.until("admin", "GET", place, nil, has("no tenant  [31m for"))
		}
		if log, all := w.log.String(), w.call("admin", "GET", "/webhooks/attempts?limit=1000", nil).text; strings.Contains(
			log+all, "hidden-key") || strings.Contains(all, "thanks") {
			t.Error("a secret or the answer to a delivered event is shown")
		}
		waits := items(list("&resource=" + ids[0]))[1]
		if waits["behind"] != rows[0]["sequence"] {
			t.Errorf("the event waits for %v, want %v: %v", waits["behind"], rows[0]["sequence"], waits)
		}
		w.wants(w.call("admin", "GET", "/webhooks/parked/groups", nil), 200, `"reason":"http_422"`, `"count":3,"dead":0`)
		w.until("admin", "GET", path, nil, has(`"oldest_undelivered":{"position":`, `"last_answer":{"at":`,
			`"status":422`))
		w.wants(list("&types=context.deleted"), 200, `"items":[]`)

		act := func(verb string, body object) answer {
			body["endpoint"] = "crm"
			return w.try("admin", "POST", "/webhooks/parked/"+verb, body)
		}
		w.wants(act("retry", object{"count": 2}), 409, "there are now 6, not 2")
		w.wants(act("retry", object{"types": []any{"context.deleted"}}), 200, `"count":0`)
		w.wants(act("retry", object{"types": []any{""}}), 422, "types")
		w.wants(act("retry", object{"event": "99999"}), 404, "no parked event 99999")

		// Events behind a discarded event are delivered.
		w.wants(act("discard", object{"event": rows[0]["id"], "comment": "sent by hand"}), 200, `"count":1`)
		refuses.Store(false)
		explained := fmt.Sprintf("/webhooks/events/%v", rows[0]["sequence"])
		w.until("admin", "GET", explained, nil, has(`"fate":"discarded"`, "sent by hand"))
		w.shows(path, `"parked":4,`)
		// A resource without parked events is no longer blocked.
		w.wants(act("discard", object{"resource": "context/" + ids[1], "comment": "obsolete"}), 200, `"count":2`)
		w.shows(path, `"parked":2,`)
		w.call("ann", "PUT", "/contexts/"+ids[1], object{"metadata": object{"n": "more"}})
		w.waitFor("the update after the discard", func() bool { return got() == 2 })

		w.call("admin", "POST", path+"/pause", nil)
		w.wants(act("retry", object{}), 200, `"count":2`, "endpoint crm is paused")
		w.call("admin", "POST", path+"/resume", nil)
		w.wants(w.call("admin", "GET", "/webhooks/actions?endpoint=crm", nil), 200, `"action":"retry"`,
			`"action":"discard"`, `"comment":"sent by hand"`, `"by":"admin@example.com"`)
		w.shows(path, `"parked":0,`)
		if n := got(); n != 4 {
			t.Errorf("%d updates arrived, want 4", n)
		}
	})
}

// A retried dead letter is parked again, and then delivered.
func TestRetryDeadLetters(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		url, refuses, got := moody(t)
		w := newWorldWith(t, settings, object{
			"name": "crm", "url": url, "events": []any{"context.*"},
			"retry": object{"schedule": []any{"10ms"}, "max_attempts": 1},
		})
		const path = "/webhooks/endpoints/crm"
		begun := w.begun.UTC().Format("2006-01-02T15:04:05.999999Z")
		w.update(3)
		w.shows(path, `"parked":0,"dead":3,`)
		again := func(verb string, body object) answer {
			body["endpoint"] = "crm"
			return w.try("admin", "POST", verb, body)
		}
		w.wants(again("/webhooks/replays/plan", object{"since": begun, "events": []any{"context.updated"}, "missed": true}),
			200, `"to_send":3,`, `"exact":true`)
		w.wants(again("/webhooks/replays/plan", object{"dead": true}), 200, `"to_send":3,"left_out":0`)
		refuses.Store(false)
		w.wants(again("/webhooks/parked/retry", object{"dead": true}), 200, `"count":3`)
		w.shows(path, `"parked":0,"dead":0,`)
		if n := got(); n != 3 {
			t.Errorf("%d updates arrived, want 3", n)
		}
		w.wants(again("/webhooks/replays", object{"dead": true}), 409, "nothing would be sent")
	})
}

// A replay of missed events sends only events that were never delivered.
func TestReplayMissed(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		url, refuses, got := moody(t)
		w := newWorldWith(t, settings, object{
			"name": "crm/eu", "url": url, "events": []any{"context.*"},
			"retry": object{"schedule": []any{"10ms"}, "max_attempts": 1},
		})
		const path = "/webhooks/endpoints/crm%2Feu"
		w.update(3)
		w.shows(path, `"dead":3,`)
		refuses.Store(false)
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": "1"}})
		w.waitFor("an update", func() bool { return got() == 1 })
		for range 5 { // pings, too, are in the history
			w.call("ann", "POST", "/contexts", object{})
			w.wants(w.call("admin", "POST", path+"/test", nil), 200, `"outcome":"delivered"`)
		}
		missed := object{"endpoint": "crm/eu", "missed": true, "events": []any{"context.updated"}}
		w.until("admin", "POST", "/webhooks/replays/plan", missed, has(`"to_send":3,`)) // once the history is written
		replay := w.call("admin", "POST", "/webhooks/replays", missed)
		w.wants(replay, 201, `"total":3`)
		w.until("admin", "GET", "/webhooks/replays/"+replay.id(), nil,
			has(`"state":"done"`, `"attempts":3,"delivered":3,"failed":0`))
		if n := got(); n != 4 {
			t.Errorf("%d updates arrived, want 4", n)
		}
		w.shows(path, `"dead":0`)
		w.until("admin", "POST", "/webhooks/replays/plan", missed, has(`"to_send":0`))
		w.wants(w.try("admin", "POST", "/webhooks/replays", missed), 409, "or has received them")
	})
}

// The log stays short, however many events are refused.
func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		var accepted atomic.Int64
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.URL.Path == "/all" || bytes.Contains(body, []byte(`"event":"context.updated"`)) {
				http.NotFound(rw, r)
				return
			}
			accepted.Add(1)
		}))
		t.Cleanup(receiver.Close)
		w := newWorldWith(t, settings,
			object{"name": "refuses-all", "url": receiver.URL + "/all", "events": []any{"context.*"}},
			object{"name": "refuses-half", "url": receiver.URL + "/half", "events": []any{"context.*"}})
		pairs := 350
		if testtool.Raced {
			pairs = 70
		}
		for range pairs {
			id := w.call("ann", "POST", "/contexts", object{}).id()
			w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": "1"}})
		}
		w.waitFor("deliveries of others", func() bool { return accepted.Load() >= int64(pairs)/4 })
		w.until("admin", "GET", "/webhooks/endpoints/refuses-all", nil,
			has(fmt.Sprintf(`"lag_events":%d,`, 2*pairs+1), `"parked":0,`))
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"refuses-all", "refuses-half"} {
			var lines []string
			for line := range strings.Lines(w.log.String()) {
				if strings.Contains(line, "endpoint="+name) && !strings.Contains(line, "level=DEBUG") {
					lines = append(lines, line)
				}
			}
			if n := len(lines); n == 0 || n >= 20 {
				t.Errorf("%d log lines about %s:\n%s", n, name, strings.Join(lines, ""))
			}
		}
	})
}

// heldChange adds a discard of many parked events that another replica works on, and
// returns its id.
func (w *world) heldChange() string {
	w.Helper()
	db, schema := database(w.T, w.settings)
	id := uuid.NewString()
	_, err := db.ExecContext(w.Context(), `INSERT INTO `+schema+`tidings_parked_changes (id, action, endpoint, dead,
		reason, patterns, resource, comment, position, to_seq, total, done, state, created_at, updated_at, created_by,
		owner, held_until)
		VALUES ($1, 'discard', 'receiver', 1, '', '', '', 'old', 0, 0, 5000, 0, 'running', 1, 1, 'ada', 'another', $2)`,
		id, int64(1)<<62)
	if err != nil {
		w.Fatal(err)
	}
	return id
}

package app_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
)

// reconfigure replaces the endpoints of a running server.
func (w *world) reconfigure(endpoints ...any) {
	w.Helper()
	webhook := object{}
	maps.Copy(webhook, w.settings["webhook"].(object))
	webhook["endpoints"] = endpoints
	w.settings["webhook"] = webhook
	w.configure()
	w.call("admin", "POST", "/webhooks/reload", nil)
}

// endpoint returns the settings of a configured endpoint.
func (w *world) endpoint(i int) object {
	return w.settings["webhook"].(object)["endpoints"].([]any)[i].(object)
}

// series returns the metric series that contain a text.
func (w *world) series(text string) (found []string) {
	w.Helper()
	for line := range strings.Lines(w.request("", "GET", "/metrics", nil, nil).text) {
		if strings.Contains(line, text) && !strings.HasPrefix(line, "#") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// A removed endpoint leaves no metric series, even if attempts end after its removal.
func TestRemovedEndpointLeavesNoSeries(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		var under atomic.Int64
		release := make(chan struct{})
		slow := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if under.Add(1) > 1 {
				<-release
			}
		}))
		defer slow.Close()
		w := newWorldWith(t, settings, object{"name": "leaver", "url": slow.URL, "coalesce": "latest"}, option(reloads))
		const label = `endpoint="leaver"`
		w.call("ann", "POST", "/contexts", object{})
		w.waitFor("series", func() bool { return len(w.series(label)) > 20 })
		t.Logf("%d series before the removal", len(w.series(label)))
		w.call("ann", "POST", "/contexts", object{})
		w.waitFor("a request in flight", func() bool { return under.Load() > 1 })
		w.reconfigure(w.endpoint(0))
		if found := w.series(label); found != nil {
			t.Errorf("after the removal: %d series, %s", len(found), found[0])
		}
		close(release)
		w.waitFor("the lease is free", func() bool {
			return strings.Contains(w.call("admin", "GET", "/webhooks/endpoints/leaver", nil).text, `"replica":""`)
		})
		if found := w.series(label); found != nil {
			t.Errorf("after the last request: %d series, %s", len(found), found[0])
		}
		w.mark()
		if w.series(`endpoint="receiver"`) == nil {
			t.Error("the other endpoint has no series")
		}
	})
}

// A receiver that answers with many different statuses creates few series.
func TestManyStatusesCreateFewSeries(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		status := new(atomic.Int64)
		odd := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(int(status.Load()))
		}))
		defer odd.Close()
		w := newWorldWith(t, settings, object{"name": "odd", "url": odd.URL, "events": []any{"provider_build.*"}})
		for code := int64(400); code < 700; code++ {
			status.Store(code)
			w.call("admin", "POST", "/webhooks/endpoints/odd/test", nil)
		}
		found := w.series("tidings_webhook_attempts_total{endpoint=\"odd\"")
		t.Logf("%d series for 300 statuses", len(found))
		if len(found) > 25 {
			t.Errorf("%d series for 300 statuses", len(found))
		}
		for _, reason := range []string{`"http_404"`, `"http_4xx"`, `"http_5xx"`, `"http_other"`} {
			if !strings.Contains(strings.Join(found, ""), "reason="+reason) {
				t.Errorf("no reason %s", reason)
			}
		}
	})
}

// A client that disconnects does not count as a server error, and is not logged as one.
func TestClientDisconnects(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		w.user("admin") // the user's first request creates an event
		w.mark()
		after := w.call("admin", "GET", "/events", nil).body["next"]
		w.log.clear()
		for _, accept := range []string{"application/json", "text/event-stream"} {
			ctx, hangUp := context.WithCancel(t.Context())
			query := ""
			if accept == "application/json" {
				query = "&wait=30s"
			}
			r, err := http.NewRequestWithContext(ctx, "GET",
				fmt.Sprintf("%s/api/v1/events?after=%v%s", w.url, after, query), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer admin")
			r.Header.Set("Accept", accept)
			done := make(chan struct{})
			go func() {
				defer close(done)
				response, err := http.DefaultClient.Do(r)
				if err == nil {
					_, _ = bufio.NewReader(response.Body).ReadString('\n')
					_, _ = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			}()
			w.waitFor("the request waits", func() bool {
				return strings.Join(w.series(`tidings_limit_taken{limit="event_streams"}`),
					"") == `tidings_limit_taken{limit="event_streams"} 1`
			})
			hangUp()
			<-done
			w.waitFor("the request ends", func() bool {
				return strings.Join(w.series(`tidings_limit_taken{limit="event_streams"}`),
					"") == `tidings_limit_taken{limit="event_streams"} 0`
			})
		}
		w.waitFor("the requests are counted", func() bool {
			return len(w.series(`tidings_http_request_seconds_count{method="GET",route="/api/v1/events"`)) > 1
		})
		if found := w.series(`route="/api/v1/events",status="503"`); found != nil {
			t.Errorf("a client that disconnected counts as %s", found[0])
		}
		if log := w.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
			t.Errorf("a disconnected client was logged:\n%s", log)
		}
	})
}

// A replay by a later version, with patterns that this version can't read, is canceled
// with a reason.
func TestReplayWithUnreadablePatternsIsCanceled(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorldWith(t, settings)
		w.call("ann", "POST", "/contexts", object{})
		last, later := w.mark(), uuid.NewString()
		w.halt()
		driver, schema, database := "pgx", "tidings.", ""
		if url, ok := settings["database_url"].(string); ok {
			database = url
		} else {
			driver, schema, database = "sqlite", "", filepath.Join(w.settings["data_dir"].(string), "tidings.db")
		}
		db, err := sql.Open(driver, database)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		_, err = db.ExecContext(t.Context(), `INSERT INTO `+schema+
			`tidings_replays (id, endpoint, dead, from_seq, to_seq, since, until,
			patterns, resource, position, delivered, failed, reason, state, created_at, updated_at, created_by, expired)
			VALUES ($1, 'receiver', 0, 1, $2, 0, 0, 'context.*,context~updated', '', 0, 0, 0, '', 'running', 1, 1, '',
				0)`, later, last)
		if err != nil {
			t.Fatal(err)
		}
		w.start()
		w.until("admin", "GET", "/webhooks/replays/"+later, nil,
			has(`"state":"canceled"`, "context~updated", `"delivered":0`))
		w.logged("replay is canceled", "context~updated")
	})
}

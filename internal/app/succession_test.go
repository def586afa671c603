package app_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hooks is a receiver with the paths /hook, which accepts everything, and /refuses, which
// refuses updates.
type hooks struct {
	url string

	mu      sync.Mutex
	arrived map[string][]string // events and their resources, by path
}

func newHooks(t *testing.T) *hooks {
	h := &hooks{arrived: make(map[string][]string)}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

// ServeHTTP implements [http.Handler].
func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	event, rest, _ := strings.Cut(strings.TrimPrefix(string(body), `{"event":"`), `"`)
	switch {
	case r.URL.Path == "/refuses" && event == "context.updated":
		w.WriteHeader(http.StatusBadRequest)
		return
	case r.URL.Path != "/hook" && r.URL.Path != "/refuses" && r.URL.Path != "/other":
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, id, _ := strings.Cut(rest, `"resource_id":"`)
	id, _, _ = strings.Cut(id, `"`)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrived[r.URL.Path] = append(h.arrived[r.URL.Path], event+" "+id)
}

// got returns how many of the wanted events a path has received.
func (h *hooks) got(path string, wanted ...string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range wanted {
		if slices.Contains(h.arrived[path], w) {
			n++
		}
	}
	return n
}

// change creates contexts, updates each once, and returns the events.
func (w *world) change(contexts int) (events []string) {
	w.Helper()
	for i := range contexts {
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": fmt.Sprint(i)}})
		events = append(events, "context.created "+id, "context.updated "+id)
	}
	return events
}

// shows waits until an endpoint shows a text, such as the number of parked events.
func (w *world) shows(path, text string) {
	w.Helper()
	w.whileOthersPass(path+" shows "+text, func() bool {
		return strings.Contains(w.call("admin", "GET", path, nil).text, text)
	})
}

// whileOthersPass waits until done returns true. Meanwhile events of other resources are
// delivered, so that a failure counts as the event's and not the endpoint's.
func (w *world) whileOthersPass(what string, done func() bool) {
	w.Helper()
	posted := time.Time{}
	w.waitFor(what, func() bool {
		if time.Since(posted) > 100*time.Millisecond {
			w.call("ann", "POST", "/contexts", object{})
			posted = time.Now()
		}
		return done()
	})
}

// An unnamed endpoint whose URL is corrected, by a reload or restart, keeps its backlog
// and its parked events. The log says so.
func TestCorrectedURLKeepsBacklog(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		h := newHooks(t)
		host := strings.TrimPrefix(h.url, "http://")
		at := func(path string, more ...string) object {
			o := object{"url": h.url + path, "retry": object{"schedule": []any{"2s"}, "max_attempts": 50}}
			if more != nil {
				o["name"] = more[0]
			}
			return o
		}
		settings["webhook"] = object{"endpoints": []any{at("/hok")}}
		w := newWorldWith(t, settings, option(reloads))
		shown := func(name string) string {
			return "/webhooks/endpoints/" + strings.ReplaceAll(host+name, "/", "%2F")
		}
		w.user("ann")
		wanted := w.change(5)
		w.until("admin", "GET", shown("/hok"), nil, has(`"reason":"refuses: http_404"`))
		w.reconfigure(at("/hook"))
		w.waitFor("the backlog is delivered", func() bool { return h.got("/hook", wanted...) == len(wanted) })
		w.waitFor("the log reports it", func() bool {
			return strings.Contains(w.log.String(),
				fmt.Sprintf(`msg="endpoint resumes where one stopped that is no longer configured" `+
					`endpoint=%s/hook former=%s/hok`, host, host))
		})
		w.wants(w.try("admin", "GET", shown("/hok"), nil), 404)

		// Parked events and a pause are kept, too.
		w.reconfigure(at("/refuses"))
		wanted = w.change(4)
		w.shows(shown("/refuses"), `"parked":4,`)
		w.call("admin", "POST", shown("/refuses")+"/pause", nil)
		wanted = append(wanted, w.change(1)...)
		w.reconfigure(at("/hook"))
		w.until("admin", "GET", shown("/hook"), nil, has(`"parked":4`, `"reason":"paused"`))
		w.call("admin", "POST", shown("/hook")+"/resume", nil)
		updates := slices.DeleteFunc(slices.Clone(wanted),
			func(e string) bool { return strings.HasPrefix(e, "context.created") })
		w.waitFor("parked events are delivered", func() bool { return h.got("/hook", updates...) == len(updates) })
		w.until("admin", "GET", shown("/hook"), nil, has(`"parked":0`, `"lag_events":0`))

		// It is disabled for a while when its URL is corrected.
		w.reconfigure(at("/hok"))
		wanted = w.change(3)
		w.until("admin", "GET", shown("/hok"), nil, has(`"reason":"refuses: http_404"`))
		disabled := at("/hook")
		disabled["enabled"] = false
		w.reconfigure(disabled)
		wanted = append(wanted, w.change(1)...)
		w.reconfigure(at("/hook"))
		w.waitFor("the backlog is delivered", func() bool { return h.got("/hook", wanted...) == len(wanted) })

		// The endpoint gets a name, with a restart.
		w.reconfigure(at("/hok"))
		wanted = w.change(3)
		w.until("admin", "GET", shown("/hok"), nil, has(`"reason":"refuses: http_404"`))
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		w.settings["webhook"] = object{"endpoints": []any{at("/hook", "crm")}}
		w.start(reloads)
		w.waitFor("the backlog is delivered", func() bool { return h.got("/hook", wanted...) == len(wanted) })
		w.wants(w.try("admin", "GET", shown("/hok"), nil), 404)
	})
}

// If it is unclear which endpoint replaces which, cursor_from decides. A backlog that no
// endpoint takes over causes a warning.
func TestCursorFrom(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		h := newHooks(t)
		host := strings.TrimPrefix(h.url, "http://")
		settings["webhook"] = object{"endpoints": []any{
			object{"url": h.url + "/hok"},
			object{"name": "crm", "url": h.url + "/crm"},
		}}
		w := newWorldWith(t, settings, option(reloads))
		w.user("ann")
		wanted := w.change(3)
		crm := "/webhooks/endpoints/crm"
		w.until("admin", "GET", crm, nil, has(`"reason":"refuses: http_404"`))
		w.reconfigure(object{"url": h.url + "/hook"}, object{"url": h.url + "/other"})
		for _, want := range []string{
			fmt.Sprintf("endpoint=%s/hok behind=", host), fmt.Sprintf(`candidates="[%s/hook %s/other]"`, host, host),
			"endpoint=crm behind=",
		} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
		late := w.change(1)
		w.waitFor("new endpoints work",
			func() bool { return h.got("/hook", late...) == 2 && h.got("/other", late...) == 2 })
		if n := h.got("/hook", wanted...) + h.got("/other", wanted...); n != 0 {
			t.Errorf("%d events of another endpoint's backlog were delivered", n)
		}
		w.reconfigure(object{"name": "crm2", "url": h.url + "/hook", "cursor_from": "crm"})
		w.waitFor("the backlog is delivered", func() bool { return h.got("/hook", wanted...) == len(wanted) })
		w.wants(w.try("admin", "GET", crm, nil), 404)
		w.log.clear()
		w.reconfigure(object{"name": "crm2", "url": h.url + "/hook", "cursor_from": "crm", "timeout": "9s"},
			object{"name": "crm3", "url": h.url + "/other", "cursor_from": "nobody"})
		if log := w.log.String(); !strings.Contains(log, "endpoint=crm3 cursor_from=nobody") ||
			strings.Contains(log, "cursor_from=crm") {
			t.Errorf("log:\n%s", log)
		}
		w.settings["webhook"] = object{"endpoints": []any{
			object{"name": "a", "url": h.url},
			object{"name": "b", "url": h.url, "cursor_from": "a"},
		}}
		w.configure()
		w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 422,
			"webhook.endpoints[1].cursor_from", "has that name")
	})
}

// A new endpoint begins at the end of the log, at the oldest event, or at a time.
func TestStart(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		h := newHooks(t)
		settings["webhook"] = object{"endpoints": []any{}}
		w := newWorldWith(t, settings, option(reloads))
		w.user("ann")
		old := w.change(3)
		w.reconfigure(
			object{"name": "oldest", "url": h.url + "/hook", "start": "oldest"},
			object{
				"name": "time", "url": h.url + "/refuses",
				"start": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339),
			},
			object{"name": "newest", "url": h.url + "/other"},
		)
		created := slices.DeleteFunc(slices.Clone(old),
			func(e string) bool { return strings.HasPrefix(e, "context.updated") })
		w.waitFor("old events arrive", func() bool {
			return h.got("/hook", old...) == len(old) && h.got("/refuses", created...) == len(created)
		})
		late := w.change(1)
		w.waitFor("new events arrive", func() bool { return h.got("/other", late...) == len(late) })
		if n := h.got("/other", old...); n != 0 {
			t.Errorf("%d old events were delivered to an endpoint that begins at the end of the log", n)
		}
		w.settings["webhook"] = object{"endpoints": []any{object{"url": h.url, "start": "yesterday"}}}
		w.configure()
		w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 422,
			"webhook.endpoints[0].start: expected newest, oldest or a time")
	})
}

// Narrowed patterns also apply to parked events: those that no longer match are not sent,
// and the events behind them are delivered.
func TestNarrowedEvents(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		h := newHooks(t)
		crm := object{
			"name": "crm", "url": h.url + "/refuses",
			"retry": object{"schedule": []any{"1h"}, "max_attempts": 20},
		}
		settings["webhook"] = object{"endpoints": []any{crm}}
		w := newWorldWith(t, settings, option(reloads))
		w.user("ann")
		const path = "/webhooks/endpoints/crm"
		var deleted []string
		for _, e := range w.change(3) {
			if event, id, _ := strings.Cut(e, " "); event == "context.updated" {
				w.call("ann", "DELETE", "/contexts/"+id, nil)
				deleted = append(deleted, "context.deleted "+id)
			}
		}
		w.shows(path, `"parked":6,`)
		crm["events"] = []any{"context.created", "context.deleted"}
		w.reconfigure(crm)
		w.waitFor("the events behind them are delivered", func() bool { return h.got("/refuses", deleted...) == 3 })
		w.until("admin", "GET", path, nil, has(`"parked":0`, `"lag_events":0`))
		if got := strings.Join(w.series("tidings_webhook_filtered_total"),
			""); got != `tidings_webhook_filtered_total{endpoint="crm"} 3` {
			t.Errorf("metric: %q", got)
		}
	})
}

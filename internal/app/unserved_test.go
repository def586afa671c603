package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// expired creates events until an endpoint has missed some, and returns how many.
func (w *world) expired(name string) (n int64) {
	w.Helper()
	w.waitFor(name+" misses events", func() bool {
		w.call("ann", "POST", "/contexts", object{})
		missed, _ := w.call("admin", "GET", "/webhooks/endpoints/"+name, nil).body["missed"].(float64)
		n = int64(missed)
		return n > 0
	})
	return n
}

// missedMetric returns the metric of events that an endpoint has missed.
func (w *world) missedMetric(name string) (n int64) {
	w.Helper()
	for _, line := range w.series(fmt.Sprintf(`tidings_webhook_missed_total{endpoint=%q,reason="expired"}`, name)) {
		_, value, _ := strings.Cut(line, "} ")
		_, err := fmt.Sscan(value, &n)
		if err != nil {
			w.Fatal(err)
		}
	}
	return n
}

// Events that disabled endpoints miss are reported, whether the receiver disabled the
// endpoint by answering 410 or the configuration did.
func TestExpiryOfDisabledEndpoints(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		gone := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter,
			_ *http.Request,
		) {
			rw.WriteHeader(http.StatusGone)
		}))
		defer gone.Close()
		said := object{"name": "said", "url": gone.URL}
		settings["webhook"] = object{
			"retention": "5s", "history_retention": "1h",
			"endpoints": []any{said, object{"name": "off", "url": gone.URL}},
		}
		w := newWorldWith(t, settings, option(reloads))
		w.call("ann", "POST", "/contexts", object{})
		w.until("admin", "GET", "/webhooks/endpoints/said", nil, has(`"state":"disabled"`))
		w.reconfigure(said, object{"name": "off", "url": gone.URL, "enabled": false})
		for _, name := range []string{"said", "off"} {
			w.expired(name)
			w.logged(`level=ERROR msg="events expired before the endpoint could get them" endpoint=` + name)
			w.waitFor("the metric of "+name, func() bool {
				missed, _ := w.call("admin", "GET", "/webhooks/endpoints/"+name, nil).body["missed"].(float64)
				return w.missedMetric(name) == int64(missed)
			})
		}
	})
}

// The process that removes events also reports what other processes' endpoints miss. Each
// event is counted once.
func TestExpiryOfOtherReplicasEndpoints(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	down := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter,
		_ *http.Request,
	) {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer down.Close()
	var endpoints []any
	for n := range 4 {
		endpoints = append(endpoints, object{"name": fmt.Sprint("down", n), "url": down.URL})
	}
	settings := func() map[string]any {
		return object{"webhook": object{"retention": "5s", "history_retention": "1h", "endpoints": endpoints}}
	}
	one, two := settings(), settings()
	one["database_url"] = testdb.Postgres(t)
	two["database_url"] = one["database_url"]
	a, b := newWorld(t, one), newWorld(t, two)
	a.waitFor("both deliver", func() bool {
		return len(a.series("tidings_leases_held 2")) == 1 && len(b.series("tidings_leases_held 2")) == 1
	})
	for n := range 4 {
		name := fmt.Sprint("down", n)
		a.expired(name)
		a.waitFor("the metric of "+name, func() bool {
			missed, _ := a.call("admin", "GET", "/webhooks/endpoints/"+name, nil).body["missed"].(float64)
			return a.missedMetric(name)+b.missedMetric(name) == int64(missed)
		})
	}
}

// If the clock jumps forward, neither a restart nor a reload deletes the state of a removed
// endpoint. The log says that nothing expires.
func TestJumpedClockKeepsRemovedEndpoints(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		url := refuser(t, "context.updated")
		stays := object{"name": "stays", "url": url, "events": []any{"provider.*"}}
		leaver := object{"name": "leaver", "url": url, "retry": object{"schedule": []any{"1h"}, "max_attempts": 20}}
		settings["webhook"] = object{"retention": "1h", "endpoints": []any{stays, leaver}}
		w := newWorldWith(t, settings, option(reloads))
		const path = "/webhooks/endpoints/leaver"
		w.update(3)
		w.shows(path, `"parked":3,`)
		w.reconfigure(stays)
		db, schema := database(t, settings)
		change := func(table, what string) {
			t.Helper()
			if _, err := db.Exec("UPDATE " + schema + table + " SET " +
				fmt.Sprintf(what, (2*time.Hour).Microseconds())); err != nil {
				t.Fatal(err)
			}
		}
		change("tidings_cursors", "removed_at = removed_at - %d WHERE removed_at > 0")
		for _, do := range []struct {
			what string
			do   func()
		}{
			{"reload", func() { stays["timeout"] = "9s"; w.reconfigure(stays) }},
			{"start", func() { w.halt(); w.start(reloads) }},
		} {
			change("tidings_expiry", "run_at = run_at - %d, jumped_at = 0")
			w.log.clear()
			do.do()
			if a := w.try("admin", "GET", path, nil); a.status != 200 || !has(`"state":"removed"`, `"parked":3`)(a) {
				t.Errorf("after a %s: %d %s", do.what, a.status, a.text)
			}
			w.logged(`msg="the data of removed endpoints is kept for now" error="the database's clock is 2h0m`)
		}
		w.logged(`msg="not everything past its retention could be removed" error="the database's clock is 2h0m`)
		change("tidings_expiry", "jumped_at = jumped_at - %d")
		stays["timeout"] = "8s"
		w.reconfigure(stays)
		w.wants(w.try("admin", "GET", path, nil), 404)
	})
}

// A failed reload changes nothing.
func TestReloadWithoutDatabase(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		w := newWorldWith(t, settings, object{"name": "off", "url": "http://127.0.0.1:1", "enabled": false},
			option(reloads))
		db, schema := database(t, settings)
		rename := func(from, to string) {
			t.Helper()
			if _, err := db.Exec("ALTER TABLE " + schema + from + " RENAME TO " + to); err != nil {
				t.Fatal(err)
			}
		}
		rename("tidings_controls", "tidings_away")
		w.endpoint(0)["timeout"] = "9s"
		w.configure()
		if a := w.try("admin", "POST", "/webhooks/reload", nil); a.status < 400 {
			t.Errorf("reloaded: %d %s", a.status, a.text)
		}
		if strings.Contains(w.log.String(), "panic") {
			t.Error("a failed reload panicked")
		}
		rename("tidings_away", "tidings_controls")
		w.waitFor("a reload",
			func() bool { return w.try("admin", "POST", "/webhooks/reload", nil).status == http.StatusOK })
	})
}

package app_test

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// Loading an endpoint with very many parked events does not delay API writes for long.
func TestWritesWhileParkedEventsAreLoaded(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	const parked = 100_000
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(receiver.Close)
	folder := t.TempDir()
	w := newWorldWith(t, map[string]any{"data_dir": folder, "log": object{"level": "error"}},
		object{"name": "loaded", "url": receiver.URL, "events": []any{"file.*"}}, option(reloads))
	w.mark()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, "tidings.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO tidings_retries (endpoint, seq, id, resource_type, action, resource_id, resource_url, user_id, at,
			resource_version,
			owner_id, trace, attempts, first_at, next_at, dead_at, reason, lane)
		SELECT 'loaded', 1000000 + i, 'id' || i, 'file', 'updated', 'f' || (i % 40000), '', '', 1, 1, '', '',
			CASE WHEN i <= 40000 THEN 1 ELSE 0 END, 1, CASE WHEN i <= 40000 THEN 4102444800000000 ELSE 0 END, 0, 'http_400', 0
		FROM n`, parked)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		endpoints := w.settings["webhook"].(map[string]any)["endpoints"].([]any)
		endpoints[len(endpoints)-1].(object)["headers"] = object{"X-Other": "1"} // restarts its consumer
		w.configure()
		w.call("admin", "POST", "/webhooks/reload", nil)
	}()
	go func() {
		defer close(done)
		<-reloaded
		// Loading continues for some time after the reload.
		<-time.After(3 * time.Second)
	}()
	var most time.Duration
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		begun := time.Now()
		w.call("ann", "POST", "/contexts", object{})
		most = max(most, time.Since(begun))
	}
	t.Logf("the slowest write took %v", most)
	limit := time.Second
	if testtool.Raced {
		limit = 3 * time.Second
	}
	if most > limit {
		t.Errorf("a write took %v while parked events were loaded", most)
	}
}

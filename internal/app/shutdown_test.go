//go:build unix

package app_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// One deadline covers the whole shutdown, from the requests in flight to the last writes,
// even while the database, the receivers and the trace collector hang.
func TestShutdownHasOneDeadline(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		// database returns a function that makes the database hang.
		database func(t *testing.T, settings map[string]any) (freeze func())
	}{
		{"SQLite", func(t *testing.T, settings map[string]any) func() {
			folder := t.TempDir()
			settings["data_dir"] = folder
			return func() { holdLock(t, folder) }
		}},
		{"PostgreSQL", func(t *testing.T, settings map[string]any) func() {
			m := newMute(t, testdb.Postgres(t))
			settings["database_url"] = m.url
			return func() { m.silence(true) }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var arrived atomic.Int64
			var hang atomic.Bool
			hanging := make(chan struct{})
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				arrived.Add(1)
				if hang.Load() {
					<-hanging
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			t.Cleanup(receiver.Close)
			t.Cleanup(func() { close(hanging) })
			collector, err := net.Listen("tcp", "127.0.0.1:0") // never accepts connections
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { collector.Close() })
			const endpoints, timeout = 20, 3 * time.Second
			var all []any
			for n := range endpoints {
				all = append(all, object{"name": fmt.Sprint("e", n), "url": receiver.URL})
			}
			settings := map[string]any{
				"shutdown_timeout": timeout.String(), "webhook": object{"endpoints": all},
				"tracing": object{"endpoint": "http://" + collector.Addr().String()},
			}
			freeze := test.database(t, settings)
			p := newProcess(t, settings)
			p.start()
			create := func(more int64) {
				before := arrived.Load()
				if err := p.create(); err != nil {
					t.Fatal(err)
				}
				p.wait("deliveries", func() bool { return arrived.Load() >= before+more })
			}
			create(1)
			hang.Store(true)
			create(endpoints / 2)
			freeze()
			go p.create() //nolint:errcheck // still in flight when the process ends
			begun := time.Now()
			_ = p.end(syscall.SIGTERM) // fails, since cursors could not be saved
			if took := time.Since(begun); took > timeout+testtool.Allow(2*time.Second) {
				t.Errorf("shutdown took %v with a deadline of %v; log:\n%s", took, timeout, p.log)
			} else {
				t.Logf("ended after %v", took)
			}
			if !strings.Contains(p.log.String(), "msg=stopped") {
				t.Errorf("the process did not shut down cleanly; log:\n%s", p.log)
			}
		})
	}
}

package app_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// fickle is a receiver that, once it is up, accepts requests to /hook and no others. It
// can hold updates until the test decides the answer.
type fickle struct {
	*record
	url string

	mu    sync.Mutex
	up    bool
	holds bool
	held  map[string]chan int // by context
}

func newFickle(t *testing.T) *fickle {
	f := &fickle{
		record: &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)},
		held:   make(map[string]chan int),
	}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// ServeHTTP implements [http.Handler].
func (f *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	up, holds := f.up && r.URL.Path == "/hook", f.holds
	f.mu.Unlock()
	if !up {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if holds && r.Header.Get("tidings-resource-version") == "2" {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		_, id, _ := strings.Cut(string(body), `"resource_id":"`)
		id, _, _ = strings.Cut(id, `"`)
		answer := make(chan int)
		f.mu.Lock()
		f.held[id] = answer
		f.mu.Unlock()
		if status := <-answer; status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
	}
	f.record.ServeHTTP(w, r)
}

func (f *fickle) set(up, holds bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up, f.holds = up, holds
}

// reconfigure replaces the endpoints of a server.
func (p *process) reconfigure(endpoints ...any) {
	p.Helper()
	text, err := os.ReadFile(p.file)
	must(p.T, err)
	var settings map[string]any
	must(p.T, json.Unmarshal(text, &settings))
	settings["webhook"] = object{"endpoints": endpoints}
	text, err = json.Marshal(settings)
	must(p.T, err)
	must(p.T, os.WriteFile(p.file, text, 0o600))
	if status, answer, err := p.call("POST", "/webhooks/reload", nil); err != nil || status >= 300 {
		p.Fatalf("reload: %d %v %v", status, answer, err)
	}
}

// cursorsIn returns the endpoints with a cursor, and the number of partitions of each.
func cursorsIn(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	rows, err := db.Query("SELECT endpoint || ' ' || count(*) || '/' || max(parts) FROM tidings.tidings_cursors WHERE " +
		"removed_at = 0 GROUP BY endpoint ORDER BY 1")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var one string
		must(t, rows.Scan(&one))
		all = append(all, one)
	}
	must(t, rows.Err())
	return all
}

// A failover to an asynchronous standby also loses state: that an event was parked, that
// an endpoint was partitioned or renamed. The servers recover by themselves, and nothing
// on the standby is lost.
func TestFailoverLosesState(t *testing.T) {
	testtool.InAll(t)
	for name, test := range map[string]struct {
		before object // the endpoint
		forget func(w *wentBack, f *fickle, stop func())
		after  string // its cursor
	}{
		"a parked event": {
			object{"name": "hook", "url": "/hook", "retry": object{"schedule": []any{"1h"}, "max_attempts": 20}},
			func(w *wentBack, f *fickle, stop func()) {
				f.set(true, true)
				ids := w.write(2)
				p := w.processes[0]
				for _, id := range ids {
					status, answer, err := p.call("PUT", "/contexts/"+id, object{"metadata": object{"n": "1"}})
					if err != nil || status != http.StatusOK {
						w.Fatalf("%d %v %v", status, answer, err)
					}
				}
				held := func(id string) chan int {
					f.mu.Lock()
					defer f.mu.Unlock()
					return f.held[id]
				}
				p.wait("requests", func() bool { return held(ids[0]) != nil && held(ids[1]) != nil })
				stop()
				f.set(true, false)
				held(ids[0]) <- http.StatusInternalServerError
				held(ids[1]) <- http.StatusOK
				p.wait("a parked event", func() bool {
					_, answer, err := p.call("GET", "/webhooks/endpoints/hook", nil)
					return err == nil && answer["parked"] == 1.0
				})
			}, "hook 1/1",
		},
		"partitions": {
			object{"name": "hook", "url": "/hook"},
			func(w *wentBack, f *fickle, stop func()) {
				w.write(10)
				stop()
				for _, p := range w.processes {
					p.reconfigure(object{"name": "hook", "url": f.url + "/hook", "partitions": 3})
				}
			}, "hook 3/3",
		},
		"another name": {
			object{"url": "/wrong"},
			func(w *wentBack, f *fickle, stop func()) {
				w.write(10)
				stop()
				for _, p := range w.processes {
					p.reconfigure(object{"url": f.url + "/hook"})
				}
			}, "HOST/hook 1/1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := testdb.OwnServer(t)
			if _, err := primary.Create("failover"); err != nil {
				t.Fatal(err)
			}
			standby := primary.AsyncStandby(t)
			m := newMovable(t, primary.Address())
			f := newFickle(t)
			test.before["url"] = f.url + test.before["url"].(string)
			w := &wentBack{
				T: t,
				processes: startTwo(t, "postgres://tidings@"+m.listener.Addr().String()+"/failover?sslmode=disable",
					test.before),
			}
			test.forget(w, f, func() {
				must(t, standby.CatchUp(primary))
				must(t, standby.Stop())
			})
			must(t, primary.Kill())
			must(t, standby.Start())
			must(t, standby.Promote())
			m.move(standby.Address())
			p := w.processes[0]
			want := strings.ReplaceAll(test.after, "HOST", strings.TrimPrefix(f.url, "http://"))
			db := openDB(t, standby.URL("failover"))
			p.wait("cursors "+want, func() bool { return slices.Equal(cursorsIn(t, db), []string{want}) })
			f.set(true, false)
			w.write(5)
			p.checkDelivered(f.record)
		})
	}
}

// startTwo starts two servers with the same database and endpoint.
func startTwo(t *testing.T, database string, endpoint object) (processes []*process) {
	for range 2 {
		p := newProcess(t, map[string]any{"database_url": database, "webhook": object{"endpoints": []any{endpoint}}})
		p.awayAllowed = true
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log:\n%s", p.log)
			}
		})
		p.start()
		processes = append(processes, p)
	}
	return processes
}

// An endpoint's URL is corrected on one server after another. Nothing is lost, even if a
// server restarts with the old settings in between.
func TestRollingRename(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	database, f := testdb.Postgres(t), newFickle(t)
	w := &wentBack{T: t, processes: startTwo(t, database, object{"url": f.url + "/wrong"})}
	now, old := w.processes[0], w.processes[1]
	u, err := url.Parse(f.url)
	must(t, err)
	renamed := []string{fmt.Sprintf("%s/hook 1/1", u.Host)}
	f.set(true, false)
	backlog := w.write(20)
	now.reconfigure(object{"url": f.url + "/hook"})
	w.arrived(f.record, backlog)
	w.arrived(f.record, w.write(20))
	db := openDB(t, database)
	if got := cursorsIn(t, db); !slices.Equal(got, renamed) {
		t.Errorf("cursors: %v, want %v", got, renamed)
	}
	must(t, old.end(syscall.SIGTERM))
	old.start()
	w.write(20)
	old.reconfigure(object{"url": f.url + "/hook"})
	now.checkDelivered(f.record)
	now.wait("one cursor", func() bool { return slices.Equal(cursorsIn(t, db), renamed) })
}

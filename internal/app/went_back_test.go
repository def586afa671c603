package app_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// lostEvents is how many acknowledged changes a database loses in a test.
const lostEvents = 60

// wentBack is one or more servers whose database loses its latest changes.
type wentBack struct {
	*testing.T
	processes []*process
	got, late *record // of a healthy endpoint, and of one that is down at first
	up        atomic.Bool
	urls      map[string]string
}

func newWentBack(t *testing.T, n int, settings map[string]any) *wentBack {
	w := &wentBack{T: t}
	w.got = &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
	w.late = &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
	well := httptest.NewServer(w.got)
	t.Cleanup(well.Close)
	down := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !w.up.Load() {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		w.late.ServeHTTP(rw, r)
	}))
	t.Cleanup(down.Close)
	w.urls = map[string]string{"well": well.URL, "late": down.URL}
	settings["webhook"] = object{"endpoints": []any{
		object{"name": "well", "url": well.URL},
		object{"name": "late", "url": down.URL},
	}}
	for range n {
		p := newProcess(t, settings)
		p.awayAllowed = true
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log:\n%s", p.log)
			}
		})
		p.start()
		w.processes = append(w.processes, p)
	}
	return w
}

// write creates contexts on each server in turn, and returns their ids.
func (w *wentBack) write(n int) (ids []string) {
	w.Helper()
	for i := range n {
		p := w.processes[i%len(w.processes)]
		p.wait("a write", func() bool {
			status, answer, err := p.call("POST", "/contexts", object{})
			if err == nil && status == http.StatusCreated {
				ids = append(ids, answer["id"].(string))
				return true
			}
			return false
		})
	}
	return ids
}

// arrived waits until a receiver has received events of all contexts.
func (w *wentBack) arrived(r *record, ids []string) {
	w.Helper()
	missing := func() (n int) {
		for _, id := range ids {
			if r.missing(id, 1) > 0 {
				n++
			}
		}
		return n
	}
	defer func() {
		if w.Failed() {
			w.Logf("%d of %d never arrived", missing(), len(ids))
		}
	}()
	w.processes[0].wait("all webhooks", func() bool { return missing() == 0 })
}

// feed reads all events after a cursor.
func (w *wentBack) feed(after string) (status int, text, next string) {
	w.Helper()
	path := "/events?limit=1000&types=context.*"
	if after != "" {
		path += "&after=" + after
	}
	status, answer, err := w.processes[0].call("GET", path, nil)
	if err != nil {
		w.Fatal(err)
	}
	if status == http.StatusGone {
		return status, fmt.Sprint(answer), fmt.Sprint(answer["after"])
	}
	return status, fmt.Sprint(answer), fmt.Sprint(answer["next"])
}

// checkFeed checks that a cursor before the lost events still works, and that a cursor
// within them is refused with a new one, from which everything written since can be read.
func (w *wentBack) checkFeed(common, lost string, written []string) {
	w.Helper()
	status, text, start := w.feed(lost)
	if status != http.StatusGone || !strings.Contains(text, "no longer in the log") {
		w.Errorf("after %s: %d %s; want 410", lost, status, text)
	}
	if position(w.T, start) < position(w.T, common) {
		w.Errorf("after %s: the new cursor is %s, want %s or later", lost, start, common)
	}
	r, err := http.NewRequest("GET", "http://"+w.processes[0].address+"/api/v1/events", nil)
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer token")
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Last-Event-ID", lost)
	response, err := client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusGone {
		w.Errorf("event stream after %s: %d", lost, response.StatusCode)
	}
	for _, after := range []string{common, start} {
		status, text, _ := w.feed(after)
		if status != http.StatusOK {
			w.Fatalf("after %s: %d %s", after, status, text)
		}
		for _, id := range written {
			if !strings.Contains(text, id) {
				w.Fatalf("after %s, there is no event of %s", after, id)
			}
		}
	}
}

// A failover to an asynchronous standby loses the latest changes. Everything written
// afterwards arrives, even events that reuse positions of lost ones, whether or not the
// servers restart. The loss is logged, counted and shown.
func TestFailoverLosesLatestEvents(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted=%t", restarted), func(t *testing.T) {
			if restarted {
				testtool.InAll(t)
			}
			t.Parallel()
			primary := testdb.OwnServer(t)
			if _, err := primary.Create("failover"); err != nil {
				t.Fatal(err)
			}
			standby := primary.AsyncStandby(t)
			m := newMovable(t, primary.Address())
			w := newWentBack(t, 2, map[string]any{"database_url": "postgres://tidings@" + m.listener.Addr().String() +
				"/failover?sslmode=disable"})
			kept := w.write(20)
			w.arrived(w.got, kept)
			_, _, common := w.feed("")
			must(t, standby.CatchUp(primary))
			must(t, standby.Stop()) // it misses all later changes
			lost := w.write(lostEvents)
			w.arrived(w.got, lost)
			_, _, beyond := w.feed(common)

			must(t, primary.Kill())
			if restarted {
				for _, p := range w.processes {
					_ = p.end(syscall.SIGKILL)
				}
			}
			must(t, standby.Start())
			must(t, standby.Promote())
			m.move(standby.Address())
			if restarted {
				for _, p := range w.processes {
					p.start()
				}
			}
			written := w.write(lostEvents)
			w.arrived(w.got, written)
			w.checkFeed(common, beyond, written)
			w.up.Store(true)
			w.arrived(w.late, append(kept, written...))
			more := w.write(lostEvents) // beyond the old end
			w.arrived(w.got, more)
			w.arrived(w.late, more)
			w.checkFeed(common, beyond, append(written, more...))
			t.Logf("%d changes lost by the database, all of %d written since arrived", len(lost), len(written)+len(more))
			if !restarted {
				w.checkLoss()
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkLoss checks that the servers report the loss.
func (w *wentBack) checkLoss() {
	w.Helper()
	for _, p := range w.processes {
		if n := strings.Count(p.log.String(), "the database lost the end of the event log"); n != 1 {
			w.Errorf("%d log lines about the loss, want 1", n)
		}
	}
	status, answer, err := w.processes[0].call("GET", "/webhooks/endpoints", nil)
	if err != nil || status != http.StatusOK {
		w.Fatalf("%d %v", status, err)
	}
	for _, item := range answer["items"].([]any) {
		if e := item.(map[string]any); e["lost"] != float64(lostEvents) || e["missed"] != 0.0 {
			w.Errorf("endpoint %v: lost %v, missed %v; want %d and 0", e["name"], e["lost"], e["missed"], lostEvents)
		}
	}
	// Each server counts what it had seen of the endpoints that it delivered to.
	var counted []string
	for _, p := range w.processes {
		response, err := client.Get("http://" + p.address + "/metrics")
		if err != nil {
			w.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			w.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`tidings_webhook_missed_total\{endpoint="(\w+)",reason="lost"\} (\d+)\n`).
			FindAllStringSubmatch(string(text), -1) {
			if n, _ := strconv.Atoi(found[2]); n < lostEvents/2 || n > lostEvents {
				w.Errorf("%s, want up to %d", found[0], lostEvents)
			}
			counted = append(counted, found[1])
		}
	}
	slices.Sort(counted)
	if want := []string{"late", "well"}; !slices.Equal(counted, want) {
		w.Errorf("metrics of %q count the loss, want %q", counted, want)
	}
}

// Changes after a SQLite file was restored from a backup arrive. A reader of the feed with
// a lost cursor gets an error, even once the positions have been reused.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "data")
	database := filepath.Join(folder, datadir.Database)
	w := newWentBack(t, 1, map[string]any{"data_dir": folder})
	p := w.processes[0]
	w.up.Store(true)
	kept := w.write(20)
	w.arrived(w.got, kept)
	_, _, common := w.feed("")
	must(t, p.end(syscall.SIGTERM))
	backup, err := os.ReadFile(database)
	must(t, err)
	p.start()
	lost := w.write(lostEvents)
	w.arrived(w.got, lost)
	_, _, beyond := w.feed(common)
	_ = p.end(syscall.SIGKILL)

	for _, old := range []string{database + "-wal", database + "-shm"} {
		if err := os.Remove(old); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	must(t, os.WriteFile(database, backup, 0o600))
	p.start()
	first := w.write(10)
	w.checkFeed(common, beyond, first)
	written := append(first, w.write(2*lostEvents)...)
	w.arrived(w.got, written)
	w.arrived(w.late, append(kept, written...))
	w.checkFeed(common, beyond, written)
	t.Logf("%d changes lost by the database, all of %d written since arrived", len(lost), len(written))
}

// position returns the position in a cursor of the feed.
func position(t *testing.T, cursor string) int64 {
	t.Helper()
	text, _, _ := strings.Cut(cursor, "-")
	n, err := strconv.ParseInt(text, 10, 64)
	must(t, err)
	return n
}

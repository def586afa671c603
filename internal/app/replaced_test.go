//go:build unix

package app_test

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/datadir"
)

// If a SQLite database file is replaced under a running server, changes are refused, and
// the log and /readyz say why. The old file, wherever it was moved, has all acknowledged
// changes. A restart uses the new file, which is intact.
func TestDatabaseFileReplaced(t *testing.T) {
	t.Parallel()
	rename := func(t *testing.T, from, to string) { must(t, os.Rename(from, to)) }
	for _, test := range []struct {
		name    string
		signal  syscall.Signal
		replace func(t *testing.T, database, backup string)
		former  bool // whether the old file still exists
	}{
		{"moved away", syscall.SIGTERM, func(t *testing.T, database, backup string) {
			rename(t, database, database+".old")
			rename(t, backup, database)
		}, true},
		{"moved away, then killed", syscall.SIGKILL, func(t *testing.T, database, backup string) {
			rename(t, database, database+".old")
			rename(t, backup, database)
		}, true},
		{"moved over", syscall.SIGTERM, func(t *testing.T, database, backup string) { rename(t, backup, database) }, false},
		{"removed", syscall.SIGTERM, func(t *testing.T, database, _ string) { must(t, os.Remove(database)) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
			receiver := httptest.NewServer(got)
			t.Cleanup(receiver.Close)
			folder := filepath.Join(t.TempDir(), "data")
			database, backup := filepath.Join(folder, datadir.Database), filepath.Join(folder, "backup.db")
			p := newProcess(t, map[string]any{
				"data_dir": folder,
				"webhook":  object{"endpoints": []any{object{"name": "receiver", "url": receiver.URL}}},
			})
			p.start()
			write := func() (id string) {
				status, answer, err := p.call("POST", "/contexts", object{})
				if err != nil || status != http.StatusCreated {
					t.Fatalf("write: %d %v %v", status, answer, err)
				}
				return answer["id"].(string)
			}
			for range 20 {
				write()
			}
			query(t, database, "VACUUM INTO '"+backup+"'")
			for range 20 {
				write()
			}
			test.replace(t, database, backup)
			if status, answer, err := p.call("POST", "/contexts", object{}); status != http.StatusServiceUnavailable {
				t.Errorf("write after the file was replaced: %d %v %v; want 503", status, answer, err)
			}
			const reason = "the database file in data_dir was moved, removed or replaced"
			if status, text := p.readyz(); status != http.StatusServiceUnavailable || !strings.Contains(text, reason) {
				t.Errorf("/readyz: %d %s", status, text)
			}
			p.wait("the reason in the log", func() bool { return strings.Contains(p.log.String(), reason) })
			_ = p.end(test.signal) // the server can't save its cursors
			if test.former {
				if n := query(t, database+".old", "SELECT count(*) FROM contexts"); n != 40 {
					t.Errorf("the old file contains %d contexts, want 40", n)
				}
			}
			p.start()
			want := 20
			if test.name == "removed" {
				want = 0
			}
			if all := p.contexts(); len(all) != want {
				t.Errorf("%d contexts after a restart, want the %d of the backup", len(all), want)
			}
			id := write()
			p.wait("the webhook", func() bool { return got.missing(id, 1) == 0 })
		})
	}
}

// query runs a statement on a SQLite file, and returns its result, if any.
func query(t *testing.T, file, statement string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	must(t, err)
	defer db.Close()
	if err := db.QueryRow(statement).Scan(&n); err != nil && err != sql.ErrNoRows {
		t.Fatalf("%s: %v", statement, err)
	}
	return n
}

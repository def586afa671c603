//go:build unix

package app_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// An older dump is restored into a running PostgreSQL database, which loses later writes.
// Everything written after the restore arrives.
func TestRestoreInPlace(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	// One server starts after tables were truncated and loaded; another is suspended
	// meanwhile and remembers the later writes.
	t.Run("truncated", func(t *testing.T) {
		t.Parallel()
		w, back, kept := newRestored(t)
		hanging, fresh := w.processes[0], w.processes[1]
		must(t, hanging.cmd.Process.Signal(syscall.SIGSTOP))
		_ = fresh.end(syscall.SIGKILL)
		back("BEGIN", "TRUNCATE tidings.%s CASCADE", "INSERT INTO tidings.%[1]s OVERRIDING SYSTEM VALUE "+
			"SELECT * FROM app.%[1]s", "COMMIT")
		fresh.start()
		w.processes = []*process{fresh}
		written := w.write(lostEvents / 2)
		must(t, hanging.cmd.Process.Signal(syscall.SIGCONT))
		w.processes = []*process{fresh, hanging}
		written = append(written, w.write(2*lostEvents)...)
		w.arrived(w.got, written)
		w.arrived(w.late, append(kept, written...))
	})
	// Rows are deleted and loaded, a table at a time, while both servers run. They may
	// write a row again before the copy of it is loaded.
	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		w, back, kept := newRestored(t)
		_, _, beyond := w.feed("")
		back("DELETE FROM tidings.%s", "INSERT INTO tidings.%[1]s OVERRIDING SYSTEM VALUE "+
			"SELECT * FROM app.%[1]s ON CONFLICT DO NOTHING")
		written := w.write(2 * lostEvents)
		w.arrived(w.got, written)
		w.arrived(w.late, append(kept, written...))
		if status, text, _ := w.feed(beyond); status != http.StatusGone {
			t.Errorf("the feed after %s: %d %s; want 410", beyond, status, text)
		}
		for _, p := range w.processes {
			if !strings.Contains(p.log.String(), "the database lost the end of the event log") {
				t.Error("a server's log does not tell of the loss")
			}
		}
	})
}

// newRestored starts two servers, and returns a function that restores an older state of
// their database, in which there are only the contexts kept. It calls each statement for
// each table, if it has a place for the name.
func newRestored(t *testing.T) (w *wentBack, back func(statements ...string), kept []string) {
	t.Helper()
	database := testdb.Postgres(t)
	w = newWentBack(t, 2, map[string]any{"database_url": database})
	w.up.Store(true)
	kept = w.write(20)
	w.arrived(w.got, kept)
	db, err := sql.Open("pgx", database)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	tables := tablesOf(t, db)
	for _, name := range tables {
		_, err := db.Exec("CREATE TABLE app." + name + " AS TABLE tidings." + name)
		must(t, err)
	}
	lost := w.write(lostEvents)
	w.arrived(w.got, lost)
	w.arrived(w.late, lost)
	return w, func(statements ...string) {
		t.Helper()
		_, err := db.Exec("SET session_replication_role = replica") // disables foreign keys
		must(t, err)
		for _, statement := range statements {
			if !strings.Contains(statement, "%") {
				_, err := db.Exec(statement)
				must(t, err)
				continue
			}
			for _, name := range tables {
				_, err := db.Exec(fmt.Sprintf(statement, name))
				must(t, err)
			}
		}
	}, kept
}

// tablesOf returns Tidings' tables, without partitions.
func tablesOf(t *testing.T, db *sql.DB) (names []string) {
	t.Helper()
	rows, err := db.Query(`SELECT relname FROM pg_class WHERE relnamespace = 'tidings'::regnamespace
		AND relkind IN ('r', 'p') AND NOT relispartition`)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		names = append(names, name)
	}
	must(t, rows.Err())
	return names
}

//go:build unix

package app_test

import (
	"database/sql"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// An older dump is restored into a running PostgreSQL database, which loses later writes.
// One server starts afterwards; another is suspended meanwhile and remembers them.
// Everything written after the restore arrives.
func TestRestoreInPlace(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	database := testdb.Postgres(t)
	w := newWentBack(t, 2, map[string]any{"database_url": database})
	w.up.Store(true)
	hanging, fresh := w.processes[0], w.processes[1]
	kept := w.write(20)
	w.arrived(w.got, kept)
	db, err := sql.Open("pgx", database)
	must(t, err)
	defer db.Close()
	tables := tablesOf(t, db)
	for _, name := range tables {
		_, err := db.Exec("CREATE TABLE app." + name + " AS TABLE tidings." + name)
		must(t, err)
	}
	lost := w.write(lostEvents)
	w.arrived(w.got, lost)
	w.arrived(w.late, lost)

	must(t, hanging.cmd.Process.Signal(syscall.SIGSTOP))
	_ = fresh.end(syscall.SIGKILL)
	tx, err := db.Begin()
	must(t, err)
	for _, name := range tables {
		_, err := tx.Exec("TRUNCATE tidings." + name + " CASCADE")
		must(t, err)
	}
	_, err = tx.Exec("SET session_replication_role = replica") // disables foreign keys
	must(t, err)
	for _, name := range tables {
		_, err := tx.Exec("INSERT INTO tidings." + name + " OVERRIDING SYSTEM VALUE SELECT * FROM app." + name)
		must(t, err)
	}
	must(t, tx.Commit())
	fresh.start()
	w.processes = []*process{fresh}
	written := w.write(lostEvents / 2)
	must(t, hanging.cmd.Process.Signal(syscall.SIGCONT))
	w.processes = []*process{fresh, hanging}
	written = append(written, w.write(2*lostEvents)...)
	w.arrived(w.got, written)
	w.arrived(w.late, written)
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

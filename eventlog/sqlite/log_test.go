package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
)

func TestLog(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) eventlogtest.Home {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "log.db")+"?_pragma=journal_mode(WAL)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		db.SetMaxOpenConns(1)
		log := sqlite.New(db, db)
		for range 2 { // a second time changes nothing
			if err := log.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		transact := func(t *testing.T, end func(*sql.Tx) error, events ...tidings.Event) {
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if err := log.Append(t.Context(), tx, events...); err != nil {
				t.Fatal(err)
			}
			if err := end(tx); err != nil {
				t.Fatal(err)
			}
		}
		return eventlogtest.Home{
			Log: log,
			Append: func(t *testing.T, events ...tidings.Event) {
				transact(t, (*sql.Tx).Commit, events...)
				log.Committed(events...)
			},
			Rollback: func(t *testing.T, events ...tidings.Event) { transact(t, (*sql.Tx).Rollback, events...) },
			Expire: func(t *testing.T) {
				if _, err := log.ExpireEvents(t.Context(), -time.Hour); err != nil {
					t.Fatal(err)
				}
			},
			Cut: func(t *testing.T, after int64) {
				for _, cut := range []string{
					"DELETE FROM tidings_events WHERE seq > ?",
					"UPDATE sqlite_sequence SET seq = ? WHERE name = 'tidings_events'",
				} {
					if _, err := db.ExecContext(t.Context(), cut, after); err != nil {
						t.Fatal(err)
					}
				}
			},
			Backup:  func(t *testing.T) func(*testing.T) { return backup(t, db) },
			Start:   func(*testing.T) eventlog.Log { return sqlite.New(db, db) },
			Restart: func(*testing.T) eventlog.Log { return sqlite.New(db, db) },
		}
	})
}

// backup copies all tables. restore deletes their rows and loads the copies.
func backup(t *testing.T, db *sql.DB) (restore func(t *testing.T)) {
	t.Helper()
	var names string
	if err := db.QueryRow(`SELECT group_concat(name) FROM sqlite_master WHERE type = 'table'
		AND (name LIKE 'tidings%' OR name = 'sqlite_sequence')`).Scan(&names); err != nil {
		t.Fatal(err)
	}
	each := func(t *testing.T, statement string) {
		t.Helper()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.SplitSeq(names, ",") {
			if _, err := tx.Exec(strings.ReplaceAll(statement, "$", name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	each(t, "CREATE TABLE copy_$ AS SELECT * FROM $")
	return func(t *testing.T) { each(t, "DELETE FROM $; INSERT INTO $ SELECT * FROM copy_$") }
}

func TestUpgrade(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	eventlogtest.Upgrade(t, db, goose.DialectSQLite3, sqlite.New(db, db))
}

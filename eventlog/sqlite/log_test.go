package sqlite_test

import (
	"database/sql"
	"path/filepath"
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
			Log:      log,
			Append:   func(t *testing.T, events ...tidings.Event) { transact(t, (*sql.Tx).Commit, events...) },
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
			Restart: func(*testing.T) eventlog.Log { return sqlite.New(db, db) },
		}
	})
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

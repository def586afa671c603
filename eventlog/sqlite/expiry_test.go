package sqlite_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
)

// Events with wrong times neither expire others early nor keep them; nothing
// expires after the clock was set forward.
func TestWrongTimes(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	log := sqlite.New(db, db)
	if err := log.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		e := eventlogtest.Sample(n, 1)
		e.Time = time.Now()
		if n == 2 || n == 4 {
			e.Time = time.Unix(1, 0)
		}
		if err := log.Append(t.Context(), tx, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	oldest := func(want int64) {
		t.Helper()
		if got, err := log.Oldest(t.Context()); err != nil || got != want {
			t.Errorf("oldest = %d, %v; want %d", got, err, want)
		}
	}
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.Exec(statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.ExpireEvents(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	oldest(1)
	// The second one was logged while the clock was ahead.
	exec("UPDATE tidings_events SET logged_at = logged_at + CASE seq WHEN 2 THEN 1 ELSE -1 END * $1 WHERE seq < 4",
		(2 * time.Hour).Microseconds())
	if _, err := log.ExpireEvents(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	oldest(4)
	exec("UPDATE tidings_events SET logged_at = 1")
	exec("UPDATE tidings_expiry SET run_at = run_at - $1", (48 * time.Hour).Microseconds())
	_, err = log.ExpireEvents(t.Context(), time.Hour)
	if clock, ok := errors.AsType[*eventlog.ClockError](err); !ok || clock.Jump < 47*time.Hour {
		t.Errorf("error = %v, want one about the clock", err)
	}
	oldest(4)
}

package receive_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/receive"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// storages are all implementations; reopen returns the storage that the next process would use.
func storages(t *testing.T) map[string]func(t *testing.T) (s receive.Storage, db *sql.DB) {
	t.Helper()
	open := func(t *testing.T, driver, url string) (receive.Storage, *sql.DB) {
		t.Helper()
		db, err := sql.Open(driver, url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		s, err := receive.NewSQL(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return s, db
	}
	return map[string]func(t *testing.T) (receive.Storage, *sql.DB){
		"memory": func(*testing.T) (receive.Storage, *sql.DB) { return receive.NewMemory(1000), nil },
		"SQLite": func(t *testing.T) (receive.Storage, *sql.DB) {
			return open(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "r.db")+
				"?_pragma=busy_timeout(30000)&_pragma=journal_mode(wal)&_txlock=immediate")
		},
		"PostgreSQL": func(t *testing.T) (receive.Storage, *sql.DB) { return open(t, "pgx", testdb.Postgres(t)) },
	}
}

func change(id string, version int64, at time.Time) tidings.Event {
	return tidings.Event{
		ID: id, Type: "order", Action: tidings.Updated, ResourceID: "7", ResourceURL: "/orders/7", Time: at,
		ResourceVersion: version, Sequence: version,
	}
}

func TestStorage(t *testing.T) {
	start := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	for name, open := range storages(t) {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			broken := errors.New("broken")
			for _, step := range []struct {
				event tidings.Event
				err   error // of handle
				want  receive.Result
			}{
				{change("a", 1, start), nil, receive.Handled},
				{change("a", 1, start), nil, receive.Duplicate},
				{change("c", 3, start.Add(3*time.Second)), broken, receive.Failed},
				{change("c", 3, start.Add(3*time.Second)), nil, receive.Handled},
				{change("b", 2, start.Add(2*time.Second)), nil, receive.Stale},
				{change("b", 2, start.Add(2*time.Second)), nil, receive.Duplicate},
				{change("d", 4, start), nil, receive.Handled}, // of a server whose clock is behind
				{change("e", 3, start.Add(time.Second)), nil, receive.Stale},
				{change("f", 2, start.Add(time.Hour)), nil, receive.Handled}, // after a restored backup
				{change("g", 0, start.Add(time.Hour-time.Second)), nil, receive.Handled},
			} {
				called := false
				got, err := s.Once(t.Context(), step.event, func(context.Context) error { called = true; return step.err })
				if got != step.want || !errors.Is(err, step.err) || called != (got == receive.Handled || step.err != nil) {
					t.Errorf("%s: %s, %v, called: %v; want %s", step.event.ID, got, err, called, step.want)
				}
			}
			for _, cursor := range []string{"", "7-x", "8-x"} {
				if cursor != "" {
					if err := s.SetCursor(t.Context(), cursor); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := s.Cursor(t.Context()); got != cursor || err != nil {
					t.Errorf("cursor = %q, %v, want %q", got, err, cursor)
				}
			}
		})
	}
}

func TestStorageHandlesOneAtATime(t *testing.T) {
	for name, open := range storages(t) {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			var handled, busy atomic.Int64
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					e := change(fmt.Sprint(i%5), int64(i%5+1), time.Now())
					_, err := s.Once(t.Context(), e, func(context.Context) error {
						if busy.Add(1) > 1 {
							t.Error("two events of a resource at once")
						}
						<-time.After(time.Millisecond)
						busy.Add(-1)
						handled.Add(1)
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := handled.Load(); n < 1 || n > 5 {
				t.Errorf("handled %d times", n)
			}
		})
	}
}

// What the handler function writes is rolled back together with the memory of the event.
func TestSQLHandlesInOneTransaction(t *testing.T) {
	for name, open := range storages(t) {
		if name == "memory" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s, db := open(t)
			if _, err := db.ExecContext(t.Context(), "CREATE TABLE done (id TEXT)"); err != nil {
				t.Fatal(err)
			}
			for _, result := range []error{errors.New("crash"), nil, nil} {
				_, err := s.Once(t.Context(), change("a", 1, time.Now()), func(ctx context.Context) error {
					if _, err := receive.Tx(ctx).ExecContext(ctx, "INSERT INTO done VALUES ('a')"); err != nil {
						return err
					}
					return result
				})
				if !errors.Is(err, result) {
					t.Error(err)
				}
			}
			var n int
			if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM done").Scan(&n); err != nil || n != 1 {
				t.Errorf("done %d times, %v", n, err)
			}
		})
	}
}

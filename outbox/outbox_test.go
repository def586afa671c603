package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

var orders = outbox.Types{"order": nil}

// shop is a program with a table, and one way to begin a transaction.
type shop struct {
	database outbox.Database
	// order writes an order and its event, and commits or rolls back.
	order func(ctx context.Context, hooks *outbox.Outbox, id string, commit bool) error
}

const ordersTable = "CREATE TABLE orders (id TEXT PRIMARY KEY)"

func ordered(id string) outbox.Event {
	return outbox.Event{Type: "order", Action: tidings.Created, ID: id, URL: "/orders/" + id}
}

func sqlShop(t *testing.T, database outbox.Database, db *sql.DB) shop {
	t.Helper()
	if _, err := db.Exec(ordersTable); err != nil {
		t.Fatal(err)
	}
	return shop{database, func(ctx context.Context, hooks *outbox.Outbox, id string, commit bool) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
			return err
		}
		if err := hooks.Tell(ctx, tx, ordered(id)); err != nil || !commit {
			return err
		}
		return tx.Commit()
	}}
}

func pgxShop(t *testing.T) shop {
	t.Helper()
	pool := newPool(t, testdb.Postgres(t))
	if _, err := pool.Exec(t.Context(), ordersTable); err != nil {
		t.Fatal(err)
	}
	return shop{outbox.Postgres(pool), func(ctx context.Context, hooks *outbox.Outbox, id string, commit bool) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
			return err
		}
		if err := hooks.Tell(ctx, tx, ordered(id)); err != nil || !commit {
			return err
		}
		return tx.Commit(ctx)
	}}
}

func newPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// openDB opens a pool that ends with the test.
func openDB(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newFile(t *testing.T) string { return filepath.Join(t.TempDir(), "shop.db") }

const waiting = "?_pragma=busy_timeout(30000)&_pragma=journal_mode(WAL)&_txlock=immediate"

// both runs a test on both databases; shops covers all ways to open an outbox.
func both(t *testing.T, do func(t *testing.T, s shop)) {
	t.Helper()
	for _, name := range []string{"pgx", "SQLite"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, ways[name](t))
		})
	}
}

func shops(t *testing.T, do func(t *testing.T, s shop)) {
	t.Helper()
	for name, open := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, open(t))
		})
	}
}

var ways = map[string]func(t *testing.T) shop{
	"pgx": pgxShop,
	"PostgreSQL": func(t *testing.T) shop {
		db := openDB(t, "pgx", testdb.Postgres(t))
		return sqlShop(t, outbox.PostgresDB(db), db)
	},
	"SQLite": func(t *testing.T) shop {
		db := openDB(t, "sqlite", newFile(t)+waiting)
		return sqlShop(t, outbox.SQLite(db), db)
	},
	"SQLite, one connection": func(t *testing.T) shop {
		db := openDB(t, "sqlite", newFile(t))
		db.SetMaxOpenConns(1)
		return sqlShop(t, outbox.SQLite(db), db)
	},
	"SQLite in memory": func(t *testing.T) shop {
		db := openDB(t, "sqlite", ":memory:")
		db.SetMaxOpenConns(1)
		return sqlShop(t, outbox.SQLite(db), db)
	},
}

func open(t *testing.T, database outbox.Database, o outbox.Options) *outbox.Outbox {
	t.Helper()
	if o.Types == nil {
		o.Types = orders
	}
	hooks, err := outbox.Open(t.Context(), database, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hooks.Close(); err != nil {
			t.Error(err)
		}
	})
	return hooks
}

// run runs an outbox until the test ends.
func run(t *testing.T, hooks *outbox.Outbox) {
	t.Helper()
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { ended <- hooks.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func ids(events []tidings.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, e.ResourceID)
	}
	return strings.Join(all, " ")
}

func TestWhatCommitsIsDelivered(t *testing.T) {
	shops(t, func(t *testing.T, s shop) {
		receiver := outboxtest.NewReceiver(t)
		hooks := open(t, s.database, outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
		if err := s.order(t.Context(), hooks, "before", true); err != nil { // before anybody runs
			t.Fatal(err)
		}
		run(t, hooks)
		receiver.Wait(1)
		if err := s.order(t.Context(), hooks, "rolled back", false); err != nil {
			t.Fatal(err)
		}
		if err := s.order(t.Context(), hooks, "committed", true); err != nil {
			t.Fatal(err)
		}
		got := receiver.Wait(2)
		if ids(got) != "before committed" {
			t.Errorf("got %v", got)
		}
		e := got[1]
		if e.ID == "" || time.Since(e.Time) > time.Minute || e.ResourceVersion != e.Time.UnixMicro() ||
			e.ResourceURL != "/orders/committed" {
			t.Errorf("not filled in: %+v", e)
		}
		told := outboxtest.Told(t, s.database, ordered("before"), outbox.Event{ID: "committed"})
		if told[1].ID != e.ID {
			t.Errorf("told %v, got %v", told, e)
		}
	})
}

func TestStopAndStartLosesNothing(t *testing.T) {
	both(t, func(t *testing.T, s shop) {
		receiver := outboxtest.NewReceiver(t)
		for life := range 3 {
			hooks := open(t, s.database, outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
			ended := make(chan error, 1)
			go func() { ended <- hooks.Run(t.Context()) }()
			for i := range 5 {
				if err := s.order(t.Context(), hooks, fmt.Sprint(life, "-", i), true); err != nil {
					t.Fatal(err)
				}
			}
			if err := hooks.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil && !errors.Is(err, outbox.ErrClosed) { // before it began
				t.Fatal(err)
			}
		}
		hooks := open(t, s.database, outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
		run(t, hooks)
		if got := receiver.Wait(15); len(got) != 15 {
			t.Errorf("got %d", len(got))
		}
	})
}

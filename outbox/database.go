package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/postgres/listen"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
)

// Database is where a program keeps its own tables, and its events with them. Make
// one with [Postgres], [PostgresDB], [SQLite], [SQLiteFile] or [FromLog].
type Database struct {
	schema string
	make   func(ctx context.Context, schema string, retention time.Duration) (*home, error)
}

// Log is an event log that can be written to, such as those of eventlog/postgres and
// eventlog/sqlite.
type Log interface {
	eventlog.Home
	eventlog.Publisher
	// Append writes events in a transaction.
	Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error
	// Migrate creates or updates its tables; Pending reports whether it has to.
	Migrate(ctx context.Context, more ...sqldb.Migrations) error
	Pending(ctx context.Context, more ...sqldb.Migrations) (bool, error)
}

// home is an open database.
type home struct {
	log    Log
	listen func(ctx context.Context) // hears of events from other processes; may be nil
	db     *sql.DB                   // that the program may use; may be nil
	close  func() error
}

// Schema returns the database with the outbox's tables in a schema of another name
// than "tidings". It is for PostgreSQL only.
func (d Database) Schema(name string) Database {
	d.schema = name
	return d
}

func (d Database) open(ctx context.Context, retention time.Duration) (*home, error) {
	if d.make == nil {
		return nil, errors.New("the database is missing: use outbox.Postgres or outbox.SQLite")
	}
	return d.make(ctx, d.schema, retention)
}

// FromLog is a database whose log and connections the program looks after by itself.
func FromLog(log Log) Database {
	return Database{make: func(context.Context, string, time.Duration) (*home, error) {
		return &home{log: log, close: func() error { return nil }}, nil
	}}
}

// connections is how many connections to PostgreSQL a process has for its deliveries,
// and one more listens.
const connections = 5

// Postgres is the PostgreSQL database that a pool leads to. The outbox keeps its
// tables in a schema of its own, "tidings" unless [Database.Schema] says otherwise.
// Deliveries have up to six connections of their own, made with the pool's settings,
// so that neither they nor the program can use up the connections of the other.
func Postgres(pool *pgxpool.Pool) Database {
	return Database{make: func(ctx context.Context, schema string, retention time.Duration) (*home, error) {
		if pool == nil {
			return nil, errors.New("the pool is nil")
		}
		cfg := pool.Config()
		cfg.MaxConns, cfg.MinConns, cfg.MinIdleConns = connections, 0, 0
		// These are about the program's statements.
		cfg.PrepareConn, cfg.AfterRelease = nil, nil
		cfg.BeforeAcquire = nil //nolint:staticcheck // as long as programs can set it
		cfg.ConnConfig.Tracer, cfg.ConnConfig.OnNotification = nil, nil
		own, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
		if err != nil {
			return nil, fmt.Errorf("open a pool like the program's: %w", err)
		}
		db := stdlib.OpenDBFromPool(own)
		db.SetMaxOpenConns(connections)
		log := newPostgresLog(db, schema, retention)
		hear := func(ctx context.Context) (*pgx.Conn, error) {
			conn, err := own.Acquire(ctx)
			if err != nil {
				return nil, err
			}
			return conn.Hijack(), nil
		}
		return &home{
			log: log, listen: func(ctx context.Context) { listen.Run(ctx, log, cfg.MaxConnLifetime, hear) },
			close: func() error { return errors.Join(db.Close(), closePool(own)) },
		}, nil
	}}
}

// closePool waits a while for the connections in use.
func closePool(pool *pgxpool.Pool) error {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
		return nil
	case <-time.After(closeTime):
		return errors.New("connections to the database are still in use")
	}
}

// PostgresDB is the PostgreSQL database that a pool of database/sql leads to, whose
// driver is github.com/jackc/pgx/v5/stdlib. Deliveries share the pool with the
// program; one more connection listens.
func PostgresDB(db *sql.DB) Database {
	return Database{make: func(_ context.Context, schema string, retention time.Duration) (*home, error) {
		if limit := db.Stats().MaxOpenConnections; limit > 0 && limit < connections {
			return nil,
				fmt.Errorf("the pool is limited to %d connections, which the outbox shares: allow at least %d", limit,
					connections)
		}
		log := newPostgresLog(db, schema, retention)
		return &home{
			log: log, listen: func(ctx context.Context) { listen.Run(ctx, log, 0, likeThose(db)) },
			close: func() error { return nil },
		}, nil
	}}
}

// likeThose returns a function that makes a connection like those of a pool.
func likeThose(db *sql.DB) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close() //nolint:errcheck // it only goes back to the pool
		var cfg *pgx.ConnConfig
		err = conn.Raw(func(raw any) error {
			c, ok := raw.(*stdlib.Conn)
			if !ok {
				return errors.New("the driver is not pgx's")
			}
			cfg = c.Conn().Config()
			return nil
		})
		if err != nil {
			return nil, err
		}
		// These are about the program's connection.
		cfg.Tracer, cfg.OnNotification = nil, nil
		return pgx.ConnectConfig(ctx, cfg)
	}
}

func newPostgresLog(db *sql.DB, schema string, retention time.Duration) *postgres.Log {
	// Events stay a seventh longer than their retention, or a day.
	width := min(max(retention/7, time.Second), 24*time.Hour)
	return postgres.New(db, postgres.Options{Schema: schema, PartitionWidth: width})
}

// SQLite is the SQLite database that a pool leads to. The pool must be one in which
// connections wait for each other: with a busy timeout, or with a single connection.
// Otherwise [Open] returns an error that says how to set one. Begin transactions that
// read before they write with BEGIN IMMEDIATE; [SQLiteFile] does.
func SQLite(db *sql.DB) Database {
	return Database{make: func(ctx context.Context, schema string, _ time.Duration) (*home, error) {
		if schema != "" {
			return nil, errNoSchemas
		}
		if err := checkBusyTimeout(ctx, db); err != nil {
			return nil, err
		}
		return &home{log: sqlite.New(db, db), close: func() error { return nil }}, nil
	}}
}

var errNoSchemas = errors.New("SQLite has no schemas: leave out Schema")

func checkBusyTimeout(ctx context.Context, db *sql.DB) error {
	if db.Stats().MaxOpenConnections == 1 {
		return nil
	}
	var ms int64
	if err := db.QueryRowContext(ctx, "PRAGMA busy_timeout").Scan(&ms); err != nil {
		return fmt.Errorf("read the busy timeout of SQLite: %w", err)
	}
	if ms == 0 {
		return errors.New("a connection of this pool fails with SQLITE_BUSY while another one writes: " +
			`open it with "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate" ` +
			`("?_busy_timeout=10000&_journal_mode=WAL&_txlock=immediate" for mattn/go-sqlite3), ` +
			"call db.SetMaxOpenConns(1), or have outbox.SQLiteFile open it")
	}
	return nil
}

// SQLiteFile is a SQLite database in a file, which is made where it is missing. Its
// pool, for the program's own statements, is [Outbox.DB]: connections wait for each
// other, transactions begin with BEGIN IMMEDIATE, what was committed survives a power
// cut, and foreign keys are enforced.
//
// The program imports the driver: modernc.org/sqlite, or another one that is
// registered as "sqlite" or "sqlite3".
func SQLiteFile(path string) Database {
	return Database{make: func(_ context.Context, schema string, _ time.Duration) (*home, error) {
		if schema != "" {
			return nil, errNoSchemas
		}
		db, err := openFile(path)
		if err != nil {
			return nil, err
		}
		return &home{log: sqlite.New(db, db), db: db, close: db.Close}, nil
	}}
}

func openFile(path string) (*sql.DB, error) {
	if path == "" || path == ":memory:" {
		return nil, errors.New("SQLiteFile needs the path of a file")
	}
	known := sql.Drivers()
	at := slices.IndexFunc(known, func(name string) bool { return name == "sqlite" || name == "sqlite3" })
	if at < 0 {
		return nil, errors.New(`no driver for SQLite: import _ "modernc.org/sqlite"`)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if path = filepath.ToSlash(path); !strings.HasPrefix(path, "/") { // a drive of Windows
		path = "/" + path
	}
	// Each driver ignores the parameters of the other.
	settings := url.Values{
		"_pragma":       {"busy_timeout(30000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_busy_timeout": {"30000"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_foreign_keys": {"1"},
		"_txlock": {"immediate"},
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: settings.Encode()}
	db, err := sql.Open(known[at], dsn.String())
	return db, err
}

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

// Database is the database in which a program keeps its own tables and its events.
// Create one with [Postgres], [PostgresDB], [SQLite], [SQLiteFile] or [FromLog].
type Database struct {
	schema string
	make   func(ctx context.Context, schema string, retention time.Duration) (*home, error)
}

// Log is an event log that can be written to, like those of eventlog/postgres and
// eventlog/sqlite.
type Log interface {
	eventlog.Home
	eventlog.Publisher
	// Append writes events in a transaction.
	Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error
	// Migrate creates or updates the log's tables. Pending reports whether that is
	// necessary.
	Migrate(ctx context.Context, more ...sqldb.Migrations) error
	Pending(ctx context.Context, more ...sqldb.Migrations) (bool, error)
}

// home is an open database.
type home struct {
	log    Log
	listen func(ctx context.Context) // listens for events from other processes; may be nil
	db     *sql.DB                   // for the program's use; may be nil
	close  func() error
}

// Schema returns the database with the outbox's tables in a schema with a name
// other than "tidings". It is only for PostgreSQL.
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

// FromLog returns a database whose log and connections are managed by the program.
func FromLog(log Log) Database {
	return Database{make: func(context.Context, string, time.Duration) (*home, error) {
		return &home{log: log, close: func() error { return nil }}, nil
	}}
}

// connections is the number of PostgreSQL connections that a process uses for
// deliveries. It uses one more to listen.
const connections = 5

// Postgres returns the PostgreSQL database of a pool. The outbox keeps its tables
// in their own schema, "tidings" unless [Database.Schema] changes it. Deliveries
// use up to six separate connections with the pool's settings, so that deliveries
// and the program cannot exhaust each other's connections.
func Postgres(pool *pgxpool.Pool) Database {
	return Database{make: func(ctx context.Context, schema string, retention time.Duration) (*home, error) {
		if pool == nil {
			return nil, errors.New("the pool is nil")
		}
		cfg := pool.Config()
		cfg.MaxConns, cfg.MinConns, cfg.MinIdleConns = connections, 0, 0
		// These belong to the program's statements.
		cfg.PrepareConn, cfg.AfterRelease = nil, nil
		cfg.BeforeAcquire = nil //nolint:staticcheck // programs may set the deprecated field
		cfg.ConnConfig.Tracer, cfg.ConnConfig.OnNotification = nil, nil
		own, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
		if err != nil {
			return nil, fmt.Errorf("open a pool like the program's: %w", err)
		}
		db := stdlib.OpenDBFromPool(own)
		db.SetMaxOpenConns(connections)
		log := newPostgresLog(db, schema, retention)
		connect := func(ctx context.Context) (*pgx.Conn, error) {
			conn, err := own.Acquire(ctx)
			if err != nil {
				return nil, err
			}
			return conn.Hijack(), nil
		}
		return &home{
			log: log, listen: func(ctx context.Context) { listen.Run(ctx, log, cfg.MaxConnLifetime, connect) },
			close: func() error { return errors.Join(db.Close(), closePool(own)) },
		}, nil
	}}
}

// closePool closes the pool, and waits a while for connections in use to be returned.
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

// PostgresDB returns the PostgreSQL database of a database/sql pool with the driver
// github.com/jackc/pgx/v5/stdlib. Deliveries share the pool with the program; one
// additional connection listens.
func PostgresDB(db *sql.DB) Database {
	return Database{make: func(_ context.Context, schema string, retention time.Duration) (*home, error) {
		if limit := db.Stats().MaxOpenConnections; limit > 0 && limit < connections {
			return nil,
				fmt.Errorf("the pool is limited to %d connections, which the outbox shares: allow at least %d", limit,
					connections)
		}
		log := newPostgresLog(db, schema, retention)
		return &home{
			log: log, listen: func(ctx context.Context) { listen.Run(ctx, log, 0, connectLike(db)) },
			close: func() error { return nil },
		}, nil
	}}
}

// connectLike returns a function that opens a connection with the settings of a
// pool's connections.
func connectLike(db *sql.DB) func(context.Context) (*pgx.Conn, error) {
	return func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close() //nolint:errcheck // only returns it to the pool
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
		// These belong to the program's connection.
		cfg.Tracer, cfg.OnNotification = nil, nil
		return pgx.ConnectConfig(ctx, cfg)
	}
}

func newPostgresLog(db *sql.DB, schema string, retention time.Duration) *postgres.Log {
	// Events may be kept beyond their retention by a seventh of it, at most a
	// day.
	width := min(max(retention/7, time.Second), 24*time.Hour)
	return postgres.New(db, postgres.Options{Schema: schema, PartitionWidth: width})
}

// SQLite returns the SQLite database of a pool. Its connections must wait for each
// other: set a busy timeout or use a single connection. Otherwise [Open] returns an
// error that says how. Begin transactions that read before they write with BEGIN
// IMMEDIATE, as [SQLiteFile] does.
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

var errNoSchemas = errors.New("SQLite has no schemas: omit Schema")

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

// Connections to a database that [SQLiteFile] opens. Those that wait to write ask again and
// again, in no order, so some of very many would wait too long; a pool lets its callers
// wait in order.
const (
	programConns = 32
	logReaders   = 8
)

// SQLiteFile returns a SQLite database in a file, which is created if it does not
// exist. The pool for the program's own statements is [Outbox.DB], of 32 connections:
// they wait for each other, transactions begin with BEGIN IMMEDIATE, commits survive a
// power failure, and foreign keys are enforced.
//
// The program must import a driver: modernc.org/sqlite, or another one registered
// as "sqlite" or "sqlite3".
func SQLiteFile(path string) Database {
	return Database{make: func(_ context.Context, schema string, _ time.Duration) (*home, error) {
		if schema != "" {
			return nil, errNoSchemas
		}
		var pools [3]*sql.DB
		for i, conns := range []int{programConns, logReaders, 1} {
			db, err := openFile(path)
			if err != nil {
				return nil, err // nothing is connected yet
			}
			db.SetMaxOpenConns(conns)
			pools[i] = db
		}
		program, reader, writer := pools[0], pools[1], pools[2]
		return &home{log: sqlite.New(reader, writer), db: program, close: func() error {
			return errors.Join(program.Close(), reader.Close(), writer.Close())
		}}, nil
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
	if path = filepath.ToSlash(path); !strings.HasPrefix(path, "/") { // Windows drive
		path = "/" + path
	}
	// Each driver ignores the parameters of the other.
	settings := url.Values{
		"_pragma":       {"busy_timeout(30000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_busy_timeout": {"30000"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_foreign_keys": {"1"},
		"_txlock": {"immediate"},
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: settings.Encode()}
	return sql.Open(known[at], dsn.String())
}

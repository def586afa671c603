// Package store is the SQL of the server: SQLite or PostgreSQL through one code
// path. A change of a resource and the event that tells of it are one call, in
// one transaction; there is no other way to write a resource.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
	"github.com/tidings-dev/tidings/eventlog/sqllog"
	"github.com/tidings-dev/tidings/internal/datadir"
)

// Store is an open database. Make one with [OpenSQLite] or [OpenPostgres].
type Store struct {
	reader, writer *sql.DB
	dialect        *boundDialect
	log            appendLog
	begin          string // the first statement of a transaction; may be empty
	migrations     sqllog.Migrations
	listen         *listener // nil where nobody has to be listened to
	closers        []func() error
}

// appendLog is an event log that can be written to.
type appendLog interface {
	eventlog.Log
	Append(ctx context.Context, tx sqllog.Execer, events ...tidings.Event) error
	Migrate(ctx context.Context, more ...sqllog.Migrations) error
	Pending(ctx context.Context, more ...sqllog.Migrations) (bool, error)
}

// Connections to PostgreSQL, for requests and for the delivery of events, which
// can't take them from each other. SQLite has as many readers and one writer.
const (
	maxConnections    = 16
	maxLogConnections = 8
)

// OpenSQLite opens the database in a folder, which it creates if need be. An
// acknowledged write survives a power cut. Until it is closed no other process
// can open the folder: the error names the one that has it.
func OpenSQLite(folder string) (_ *Store, err error) {
	if err := datadir.Create(folder); err != nil {
		return nil, err
	}
	datadir.Tighten(folder)
	lock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.close())
		}
	}()
	file := filepath.Join(folder, datadir.Database)
	if err := datadir.Touch(file); err != nil { // SQLite gives -wal and -shm the same mode
		return nil, fmt.Errorf("create database: %w", err)
	}
	pragmas := url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "busy_timeout(10000)"},
		"_txlock": {"immediate"},
	}
	dsn := (&url.URL{Scheme: "file", Path: file, RawQuery: pragmas.Encode()}).String()
	if !filepath.IsAbs(folder) {
		dsn = "file:" + file + "?" + pragmas.Encode()
	}
	writer, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	writer.SetMaxOpenConns(1) // SQLite has one writer; waiting for it is ours to bound
	reader, err := sql.Open("sqlite", dsn+"&"+url.Values{"_pragma": {"query_only(1)"}}.Encode())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), writer.Close())
	}
	reader.SetMaxOpenConns(maxConnections)
	return &Store{
		reader: reader, writer: writer, dialect: newDialect(sqlitedialect.New(), ""),
		log:        sqlite.New(reader, writer),
		migrations: resourceMigrations("sqlite"),
		closers:    []func() error{reader.Close, writer.Close, lock.close},
	}, nil
}

// The database ends a transaction in which nothing happened for this long, so
// that a process that stands still, or is cut off, does not keep what it has
// locked from the others. It is longer than what a transaction may wait for: the
// store of file contents.
const (
	idleSetting = "idle_in_transaction_session_timeout"
	idleTime    = "90s"
)

// PostgresOptions are what a PostgreSQL database may need.
type PostgresOptions struct {
	// Schema is the schema of all tables; [postgres.DefaultSchema] unless set.
	Schema string
	// PollOnly asks for nothing that lasts longer than a transaction, for poolers
	// that have no sessions: no LISTEN, no prepared statements.
	PollOnly bool
	// PartitionWidth is how much time a partition of the log covers; 0 means a day.
	PartitionWidth time.Duration
}

// OpenPostgres opens the database behind a URL. It does not connect yet.
func OpenPostgres(databaseURL string, o PostgresOptions) (*Store, error) {
	cfg, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		// The text of the error may hold the URL with its password.
		return nil, errors.New(`database_url is no PostgreSQL URL, such as "postgres://user:password@host:5432/tidings"`)
	}
	// A server that is gone without a word is noticed in time to give way to others.
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	delivery := cfg.Copy()
	begin := ""
	switch {
	case cfg.RuntimeParams[idleSetting] != "": // the URL decides
	case o.PollOnly: // poolers take no such settings when they connect
		begin = "SET LOCAL " + idleSetting + " = '" + idleTime + "'"
	default:
		cfg.RuntimeParams[idleSetting] = idleTime
	}
	if o.PollOnly { // the types of a statement are remembered, but no statement is prepared
		cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		delivery.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	db, deliveryDB := openPool(cfg, maxConnections), openPool(delivery, maxLogConnections)
	if o.Schema == "" {
		o.Schema = postgres.DefaultSchema
	}
	log := postgres.New(deliveryDB, postgres.Options{Schema: o.Schema, PartitionWidth: o.PartitionWidth})
	s := &Store{
		reader: db, writer: db, dialect: newDialect(pgdialect.New(), pgx.Identifier{o.Schema}.Sanitize()+"."), log: log, begin: begin,
		migrations: resourceMigrations("postgres"),
		closers:    []func() error{db.Close, deliveryDB.Close},
	}
	if !o.PollOnly {
		s.listen = &listener{config: delivery, log: log}
	}
	return s, nil
}

func openPool(cfg *pgx.ConnConfig, connections int) *sql.DB {
	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		return nil
	}))
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// Log returns the event log in this database.
func (s *Store) Log() eventlog.Log { return s.log }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.reader.PingContext(ctx) }

// Close closes the connections.
func (s *Store) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Package store is the server's SQL layer for SQLite and PostgreSQL, with a
// single code path for both. A resource and the event for its change are
// written in one call and one transaction; there is no other way to write a
// resource.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite" // registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
	sqlitelog "github.com/tidings-dev/tidings/eventlog/sqlite"
	"github.com/tidings-dev/tidings/internal/datadir"
)

// Store is an open database. Make one with [OpenSQLite] or [OpenPostgres].
type Store struct {
	reader, writer *sql.DB
	transact       transactor
	transactAlone  transactor // never shares a transaction
	dialect        *boundDialect
	log            Log
	session        session
	ready          readyQuery
	migrations     []sqldb.Migrations
	listen         *listener // nil if there are no other replicas to listen to
	closers        []func() error
	file           *openedFile // SQLite only; nil on PostgreSQL
}

// Log is an event log that can be written to.
type Log interface {
	eventlog.Home
	eventlog.Publisher
	Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error
	Migrate(ctx context.Context, more ...sqldb.Migrations) error
	Pending(ctx context.Context, more ...sqldb.Migrations) (bool, error)
	Row(ctx context.Context, targets []any, query string, args ...any) error
	Outage() error
}

// SQLite connections that read concurrently, for requests and for deliveries.
// Requests that use all of theirs block neither deliveries nor [Store.Ready].
const (
	readers    = 16
	logReaders = 8
)

// OpenSQLite opens the database in a folder, which it creates if necessary.
// Acknowledged writes survive a power failure. Until the store is closed, no
// other process can open the folder; the error names the one that has it open.
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
		return nil, datadir.Explain(folder, fmt.Errorf("create database: %w", err))
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, datadir.Explain(folder, fmt.Errorf("open database: %w", err))
	}
	opened := &openedFile{file, info}
	pragmas := url.Values{
		"_pragma": {
			"journal_mode(WAL)", "journal_size_limit(67108864)", "synchronous(FULL)",
			"foreign_keys(1)", "busy_timeout(10000)",
		},
		"_txlock": {"immediate"},
	}
	dsn := (&url.URL{Scheme: "file", Path: file, RawQuery: pragmas.Encode()}).String()
	if !filepath.IsAbs(folder) {
		dsn = "file:" + file + "?" + pragmas.Encode()
	}
	writerDSN := dsn
	if info.Size() == 0 { // must precede journal_mode, which writes the first page
		writerDSN = strings.Replace(dsn, "_pragma=", "_pragma=auto_vacuum(INCREMENTAL)&_pragma=", 1)
	}
	connector, err := guard(writerDSN, opened, true)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	writer := sql.OpenDB(connector)
	writer.SetMaxOpenConns(1) // SQLite has one writer; the pool bounds the wait for it
	reader, err := openReader(dsn, opened, readers)
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	logReader, err := openReader(dsn, opened, logReaders)
	if err != nil {
		return nil, errors.Join(err, reader.Close(), writer.Close())
	}
	log := sqlitelog.New(logReader, writer)
	events := &deferred{log: log}
	group := sqldb.NewGroup(writer, txTime, events.write)
	return &Store{
		reader: reader, writer: writer, dialect: newDialect(sqlitedialect.New(), ""),
		transact: events.in(group.Transact), transactAlone: events.in(group.TransactAlone), log: log,
		migrations: []sqldb.Migrations{resourceMigrations("sqlite")}, ready: readyQuery{text: "SELECT ''"},
		closers: []func() error{logReader.Close, reader.Close, writer.Close, lock.close}, file: opened,
	}, nil
}

func openReader(dsn string, file *openedFile, connections int) (*sql.DB, error) {
	connector, err := guard(dsn+"&"+url.Values{"_pragma": {"query_only(1)"}}.Encode(), file, false)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	return db, nil
}

// DB is the pool of requests.
func (s *Store) DB() *sql.DB { return s.writer }

// LogOnly leaves out the tables of resources: only those of the event log are created and
// needed.
func (s *Store) LogOnly() *Store {
	s.migrations = nil
	if len(s.ready.args) == 2 {
		s.ready.args[1] = logTables()
	}
	return s
}

// Log returns the event log in the database.
func (s *Store) Log() Log { return s.log }

// Check returns why the database cannot be used: it does not respond, it is
// read-only, or the settings do not match it.
func (s *Store) Check(ctx context.Context) error {
	if s.listen != nil {
		ctx, cancel := context.WithTimeout(ctx, sessionsTime)
		defer cancel()
		if err := checkSessions(ctx, s.listen.config); err != nil {
			return s.session.explainStart(asStoreError(err))
		}
	}
	return s.session.explainStart(s.explainFile(s.InTx(ctx, func(*Tx) error { return nil })))
}

// sessionsTime is how long startup waits for connections. It is longer than
// poolers let a client wait (PgBouncer's query_wait_timeout), so that their
// errors are seen.
const sessionsTime = 3 * time.Minute

// explainFile adds advice to errors about a file that SQLite cannot use.
func (s *Store) explainFile(err error) error {
	lite, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch lite.Code() & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("data_dir: %s is not a SQLite database: restore it from a backup, "+
			"or move it away to start with an empty one: %w", s.file.path, err)
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("data_dir: %s is corrupt: restore it from a backup: %w", s.file.path, err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("data_dir: %s must be a file that the user running Tidings can read and write: %w", s.file.path,
			err)
	}
	return err
}

// readyQuery is a query whose single result is the SQLSTATE that requests would
// currently get, or empty.
type readyQuery struct {
	text string
	args []any
}

// Ready returns why requests cannot be served at the moment: the database is
// unavailable, the event log's last write failed because the database is
// read-only, or the tables are unusable. It takes no connection from requests.
func (s *Store) Ready(ctx context.Context) error {
	if s.file != nil {
		if err := s.file.check(); err != nil {
			return err
		}
	}
	if err := s.log.Outage(); err != nil {
		return err
	}
	var answer string
	if err := s.log.Row(eventlog.Urgent(ctx), []any{&answer}, s.ready.text, s.ready.args...); err != nil {
		return err
	}
	if answer == "" {
		return nil
	}
	err, _ := eventlog.Unavailable(sqlState(answer))
	return err
}

// sqlState is an SQLSTATE as PostgreSQL would return it.
type sqlState string

func (s sqlState) Error() string    { return "SQLSTATE " + string(s) }
func (s sqlState) SQLState() string { return string(s) }

// Close closes the connections.
func (s *Store) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

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
	dialect        *boundDialect
	log            Log
	txOptions      *sql.TxOptions
	session        session
	ready          readyQuery
	migrations     sqldb.Migrations
	listen         *listener // nil where nobody has to be listened to
	closers        []func() error
	file           *openedFile // of SQLite; nil on PostgreSQL
}

// Log is an event log that can be written to.
type Log interface {
	eventlog.Home
	Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error
	Migrate(ctx context.Context, more ...sqldb.Migrations) error
	Pending(ctx context.Context, more ...sqldb.Migrations) (bool, error)
	Row(ctx context.Context, targets []any, query string, args ...any) error
	Outage() error
}

// Connections that read SQLite at once, for requests and for deliveries: requests
// that take all of theirs hold up neither deliveries nor [Store.Ready].
const (
	readers    = 16
	logReaders = 8
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
	if info.Size() == 0 { // before the journal mode, which writes the first page
		writerDSN = strings.Replace(dsn, "_pragma=", "_pragma=auto_vacuum(INCREMENTAL)&_pragma=", 1)
	}
	connector, err := guard(writerDSN, opened, true)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	writer := sql.OpenDB(connector)
	writer.SetMaxOpenConns(1) // SQLite has one writer; waiting for it is ours to bound
	reader, err := openReader(dsn, opened, readers)
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	logReader, err := openReader(dsn, opened, logReaders)
	if err != nil {
		return nil, errors.Join(err, reader.Close(), writer.Close())
	}
	return &Store{
		reader: reader, writer: writer, dialect: newDialect(sqlitedialect.New(), ""),
		log:        sqlitelog.New(logReader, writer),
		migrations: resourceMigrations("sqlite"), ready: readyQuery{text: "SELECT ''"},
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

// Log returns the event log in this database.
func (s *Store) Log() Log { return s.log }

// Check returns why the database can't be used: it does not answer, it takes no
// writes, or the settings do not fit it.
func (s *Store) Check(ctx context.Context) error {
	if s.listen != nil {
		ctx, cancel := context.WithTimeout(ctx, sessionsTime)
		defer cancel()
		if err := checkSessions(ctx, s.listen.config); err != nil {
			return s.session.explainStart(known(err))
		}
	}
	return s.session.explainStart(s.explainFile(s.InTx(ctx, func(*Tx) error { return nil })))
}

// sessionsTime is how long a start waits for connections of its own: longer than
// poolers let a client wait (PgBouncer's query_wait_timeout), so that they say why.
const sessionsTime = 3 * time.Minute

// explainFile says what to do about a file that SQLite can't use.
func (s *Store) explainFile(err error) error {
	lite, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch lite.Code() & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("data_dir: %s is not a SQLite database: put back a backup of it, "+
			"or move it away to begin with an empty one: %w", s.file.path, err)
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("data_dir: %s is damaged: put back a backup of it: %w", s.file.path, err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("data_dir: %s must be a file that the user who runs Tidings can read and write: %w", s.file.path,
			err)
	}
	return err
}

// readyQuery is a statement with its values, whose one result is the SQLSTATE of what
// requests would meet, or empty.
type readyQuery struct {
	text string
	args []any
}

// Ready returns why requests can't be served now: the database is away, the last write
// of the event log failed because it takes none, or the tables can't be used. It takes
// no connection from requests.
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

// sqlState is an SQLSTATE that PostgreSQL would answer.
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

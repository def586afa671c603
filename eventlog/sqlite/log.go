// Package sqlite keeps the event log in a SQLite database, the one that holds
// the program's own tables. SQLite has one writer, so appending inside a
// transaction gives commit order directly.
//
// The driver is the program's choice; Tidings uses modernc.org/sqlite. The
// database should be in WAL mode with synchronous=FULL, so that an acknowledged
// change survives a power cut.
package sqlite

import (
	"context"
	"database/sql"
	"embed"

	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqllog"
)

//go:embed migrations/*.sql
var files embed.FS

var _ eventlog.Log = (*Log)(nil)

// Log is an event log in SQLite.
type Log struct{ sqllog.Tables }

// New returns the log in a database that [Migrate] has prepared. The pools may
// be the same; a pool of one connection for the writer keeps SQLite from
// refusing a second one with "database is locked".
func New(reader, writer *sql.DB) *Log { return &Log{sqllog.New(reader, writer)} }

// Append writes events in the transaction that makes the changes they tell of.
// Call it last in the transaction, and [Log.Wake] after the commit.
func (l *Log) Append(ctx context.Context, tx sqllog.Execer, events ...tidings.Event) error {
	return sqllog.InsertEvents(ctx, tx, "tidings_events", events)
}

// Advance implements [eventlog.Reader]: what is committed has its number.
func (l *Log) Advance(ctx context.Context) (int64, error) {
	return l.Head(ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'tidings_events'")
}

// Migrate creates or updates the log's tables. It may be called at every start.
func Migrate(ctx context.Context, db *sql.DB) error { return migrations().Run(ctx, db) }

// Pending reports whether [Migrate] has something to do.
func Pending(ctx context.Context, db *sql.DB) (bool, error) { return migrations().Pending(ctx, db) }

func migrations() sqllog.Migrations {
	return sqllog.Migrations{Dialect: goose.DialectSQLite3, Files: sqllog.Folder(files, "migrations"), Table: "tidings_log_version"}
}

// Package postgres keeps the event log in a PostgreSQL database, the one that
// holds the program's own tables.
//
// PostgreSQL hands out sequence numbers before commit, so a reader that follows
// them would miss a transaction that commits late. Events are therefore written
// to an outbox, and [Log.Advance] moves what is committed into the log and
// numbers it, in a short transaction of its own. Any replica may do that, one at
// a time; a crash at any point loses nothing.
package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqllog"
)

//go:embed migrations/*.sql
var files embed.FS

var _ eventlog.Log = (*Log)(nil)

// Log is an event log in PostgreSQL.
type Log struct {
	sqllog.Tables
	db *sql.DB
}

// New returns the log in a database that [Migrate] has prepared, reached
// through github.com/jackc/pgx/v5/stdlib.
func New(db *sql.DB) *Log { return &Log{Tables: sqllog.New(db, db), db: db} }

// Append writes events in the transaction that makes the changes they tell of.
// Call it after the changes: whoever changes a row holds it until commit, so the
// events of one resource get their numbers in commit order. Call [Log.Wake]
// after the commit.
func (l *Log) Append(ctx context.Context, tx sqllog.Execer, events ...tidings.Event) error {
	return sqllog.InsertEvents(ctx, tx, "tidings_outbox", events)
}

// moveBatch limits how many events one transaction moves.
const moveBatch = 2000

// Advance implements [eventlog.Reader]: it moves committed events from the
// outbox into the log until none is left.
func (l *Log) Advance(ctx context.Context) (int64, error) {
	for {
		head, moved, err := l.move(ctx)
		if err != nil {
			return 0, fmt.Errorf("number committed events: %w", err)
		}
		if moved < moveBatch {
			return head, nil
		}
	}
}

func (l *Log) move(ctx context.Context) (head, moved int64, err error) {
	// Nothing to move is the usual answer of a poll; it should not write.
	err = l.db.QueryRowContext(ctx, `SELECT (SELECT seq FROM tidings_head), CASE WHEN EXISTS (SELECT 1 FROM tidings_outbox) THEN 1 ELSE 0 END`).
		Scan(&head, &moved)
	if err != nil || moved == 0 {
		return head, 0, err
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	// The lock comes in a statement of its own: the next one must see all that
	// the previous holder moved.
	if err := tx.QueryRowContext(ctx, "SELECT seq FROM tidings_head FOR UPDATE").Scan(&head); err != nil {
		return 0, 0, err
	}
	err = tx.QueryRowContext(ctx, `
		WITH moved AS (
			DELETE FROM tidings_outbox
			WHERE position IN (SELECT position FROM tidings_outbox ORDER BY position LIMIT $1)
			RETURNING *
		), numbered AS (
			INSERT INTO tidings_events (seq, id, resource_type, action, resource_id, resource_url, user_id, at, resource_version)
			SELECT $2 + row_number() OVER (ORDER BY position), id, resource_type, action, resource_id, resource_url, user_id, at, resource_version
			FROM moved
			RETURNING 1
		), counted AS (
			SELECT count(*) AS n FROM numbered
		)
		UPDATE tidings_head SET seq = seq + n FROM counted RETURNING seq, n`, int64(moveBatch), head).Scan(&head, &moved)
	if err != nil {
		return 0, 0, err
	}
	return head, moved, tx.Commit()
}

// Migrate creates or updates the log's tables. It may be called at every start,
// by several replicas at once.
func Migrate(ctx context.Context, db *sql.DB) error { return migrations().Run(ctx, db) }

// Pending reports whether [Migrate] has something to do.
func Pending(ctx context.Context, db *sql.DB) (bool, error) { return migrations().Pending(ctx, db) }

func migrations() sqllog.Migrations {
	return sqllog.Migrations{Dialect: goose.DialectPostgres, Files: sqllog.Folder(files, "migrations"), Table: "tidings_log_version"}
}

// Package postgres keeps the event log in a PostgreSQL database, the one that
// holds the program's own tables.
//
// PostgreSQL hands out sequence numbers before commit, so a reader that follows
// them would miss a transaction that commits late. Events are therefore written
// to an outbox, and [Log.Advance] moves what is committed into the log and
// numbers it, in a short transaction of its own. Any replica may do that, one at
// a time; a crash at any point loses nothing.
//
// The log and the history are partitioned by time: what is past its retention
// goes with its partition.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

var _ eventlog.Home = (*Log)(nil)

// The payloads of notifications.
const (
	notifyEvents  = "events"
	notifyChanges = "changes"
)

// A process that stands still, or is cut off, keeps what it has locked for
// idleTime: so short that the others don't lose their leases over it. The other
// bounds are ours and not those of a database or a role, with which nothing might
// ever be done.
const (
	idleTime = "3s"
	lockTime = "10s"
	runTime  = "30s"
	bound    = "SET LOCAL idle_in_transaction_session_timeout = '" + idleTime + "'; " +
		"SET LOCAL lock_timeout = '" + lockTime + "'; SET LOCAL statement_timeout = '" + runTime + "'"
)

const now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// Log is an event log in PostgreSQL.
type Log struct {
	sqllog.Tables
	db              *sql.DB
	name            string // of the schema
	schema          string // what goes before the names of tables
	events, history *partitioned
}

// Options of a log; the zero value works.
type Options struct {
	// Schema is the schema of the log's tables, "tidings" unless set. [Log.Migrate]
	// creates it. Statements name it, so the search_path is of no matter. Logs in
	// several schemas of one database have nothing to do with each other.
	Schema string
	// PartitionWidth is how much time one partition of the log and of the history
	// covers, and so how much longer than its retention an event may stay; 0 means
	// a day.
	PartitionWidth time.Duration
	// BoundedSessions says that every session of the pool begins with isolation "read
	// committed", a statement_timeout and a lock_timeout, whatever the database and
	// the role say. A statement that writes then needs no transaction of its own,
	// which saves three round trips.
	BoundedSessions bool
}

// DefaultSchema is the schema of a log for which none is chosen.
const DefaultSchema = "tidings"

// New returns the log in a database, reached through
// github.com/jackc/pgx/v5/stdlib. [Log.Migrate] makes its tables.
func New(db *sql.DB, o Options) *Log {
	if o.Schema == "" {
		o.Schema = DefaultSchema
	}
	if o.PartitionWidth <= 0 {
		o.PartitionWidth = 24 * time.Hour
	}
	schema := quote(o.Schema) + "."
	dialect := sqllog.Dialect{
		Schema: schema, Begin: bound, Options: &sql.TxOptions{Isolation: sql.LevelReadCommitted}, Autocommit: o.BoundedSessions, Now: now,
		LockReplicas: "LOCK TABLE " + schema + "tidings_replicas IN EXCLUSIVE MODE", HoldRows: " FOR UPDATE",
	}
	l := &Log{Tables: sqllog.New(db, db, dialect), db: db, name: o.Schema, schema: schema}
	l.events = &partitioned{log: l, schema: schema, table: "tidings_events", column: "logged_at", width: o.PartitionWidth}
	l.history = &partitioned{log: l, schema: schema, table: "tidings_history", column: "written_at", width: o.PartitionWidth}
	return l
}

// Channel is the channel of LISTEN and NOTIFY: the name of the schema. A program
// that listens calls [Log.Notified] with each payload; one that does not polls,
// and hears of other replicas' events within a second.
func (l *Log) Channel() string { return l.name }

// Append writes events in the transaction that makes the changes they tell of.
// Call it after the changes: whoever changes a row holds it until commit, so the
// events of one resource get their numbers in commit order. Call [Log.Wake]
// after the commit.
func (l *Log) Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error {
	return sqllog.InsertEvents(ctx, tx, l.schema+"tidings_outbox", events)
}

// moveBatch limits how many events one transaction moves.
const moveBatch = 2000

// Advance implements [eventlog.Reader]: it moves committed events from the
// outbox into the log until none is left.
func (l *Log) Advance(ctx context.Context) (int64, error) {
	late := 0
	for {
		head, moved, err := l.move(ctx)
		switch {
		case hasCode(err, checkViolation) && late < 3:
			late++ // the last partition ended meanwhile, or is gone; the next move adds one
			l.events.forget()
		case err != nil:
			return 0, fmt.Errorf("number committed events: %w", err)
		case moved < moveBatch:
			return head, nil
		}
	}
}

// checkViolation is what PostgreSQL says of a row that no partition takes.
const checkViolation = "23514"

func hasCode(err error, code string) bool {
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && state.SQLState() == code
}

func (l *Log) move(ctx context.Context) (head, moved int64, err error) {
	// Nothing to move is the usual answer of a poll; it should not write.
	var clock int64
	err = l.Row(ctx, []any{&head, &moved, &clock}, `SELECT (SELECT seq FROM `+l.schema+`tidings_head),
		CASE WHEN EXISTS (SELECT 1 FROM `+l.schema+`tidings_outbox) THEN 1 ELSE 0 END, `+now)
	if err != nil || moved == 0 {
		return head, 0, err
	}
	if err := l.events.ensure(ctx, clock); err != nil {
		return 0, 0, err
	}
	err = l.Transact(ctx, "", func(ctx context.Context, tx *sql.Tx) error {
		// The lock comes in a statement of its own: the next one must see all that
		// the previous holder moved.
		var set string
		err := tx.QueryRowContext(ctx, `SELECT seq, set_config('idle_in_transaction_session_timeout', '`+idleTime+`', true) ||
			set_config('lock_timeout', '`+lockTime+`', true) || set_config('statement_timeout', '`+runTime+`', true)
			FROM `+l.schema+`tidings_head FOR UPDATE`).Scan(&head, &set)
		if err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `
			WITH moved AS (
				DELETE FROM `+l.schema+`tidings_outbox
				WHERE position IN (SELECT position FROM `+l.schema+`tidings_outbox ORDER BY position LIMIT $1)
				RETURNING *
			), numbered AS (
				INSERT INTO `+l.schema+`tidings_events (seq, `+sqllog.EventColumns+`, logged_at)
				SELECT $2 + row_number() OVER (ORDER BY position), `+sqllog.EventColumns+`, `+now+`
				FROM moved
				RETURNING 1
			), counted AS (
				SELECT count(*) AS n FROM numbered
			)
			UPDATE `+l.schema+`tidings_head SET seq = seq + n FROM counted RETURNING seq, n`, int64(moveBatch), head).Scan(&head, &moved)
		if err != nil || moved == 0 {
			return err
		}
		return l.notify(ctx, tx, notifyEvents)
	})
	return head, moved, err
}

// Unnumbered implements [eventlog.Archive]; it counts no more than 100,000.
func (l *Log) Unnumbered(ctx context.Context) (int64, error) {
	return l.Number(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+l.schema+"tidings_outbox LIMIT 100000) o")
}

// Oldest implements [eventlog.Reader].
func (l *Log) Oldest(ctx context.Context) (int64, error) {
	head, err := l.Number(ctx, "SELECT seq FROM "+l.schema+"tidings_head")
	if err != nil {
		return 0, err
	}
	return l.OldestOr(ctx, head)
}

func (l *Log) notify(ctx context.Context, db sqldb.Execer, payload string) error {
	_, err := db.ExecContext(ctx, "SELECT pg_notify($1, $2)", l.Channel(), payload)
	return err
}

// Nudge implements [eventlog.Waker].
func (l *Log) Nudge(ctx context.Context) error {
	err := l.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return l.notify(ctx, tx, notifyChanges) })
	if err != nil {
		return fmt.Errorf("tell other replicas: %w", err)
	}
	return l.Tables.Nudge(ctx)
}

// Notified wakes this process' readers as a notification on [Channel] says; with
// an empty payload, as after a connection that broke, all of them.
func (l *Log) Notified(payload string) {
	if payload != notifyChanges {
		l.Wake()
	}
	if payload != notifyEvents {
		_ = l.Tables.Nudge(context.Background()) // within this process it can't fail
	}
}

// AppendHistory implements [eventlog.Recorder].
func (l *Log) AppendHistory(ctx context.Context, blocks []*eventlog.HistoryBlock) error {
	for late := 0; ; late++ {
		if err := l.history.ensure(ctx, time.Now().UnixMicro()); err != nil {
			return err
		}
		err := l.Tables.AppendHistory(ctx, blocks)
		if !hasCode(err, checkViolation) || late == 3 {
			return err
		}
		l.history.forget()
	}
}

// ExpireEvents implements [eventlog.Expirer]: it drops the partitions that end
// before a time.
func (l *Log) ExpireEvents(ctx context.Context, before time.Time) error {
	return l.events.dropBefore(ctx, before)
}

// ExpireHistory implements [eventlog.Expirer] in the same way.
func (l *Log) ExpireHistory(ctx context.Context, before time.Time) error {
	return l.history.dropBefore(ctx, before)
}

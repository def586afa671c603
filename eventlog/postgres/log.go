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
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

var _ eventlog.Home = (*Log)(nil)

// The payloads of notifications. That of events is followed by who numbered them: its own
// reader has them.
const (
	notifyEvents  = "events "
	notifyChanges = "changes"
)

// A process that is suspended or cut off holds its locks for at most idleTime, so
// short that others don't lose their leases over it. The other limits override
// those of the database or the role, which might be too low to get anything done.
const (
	idleTime = "3s"
	lockTime = "5s"
	runTime  = "10s"
	bound    = "SET LOCAL idle_in_transaction_session_timeout = '" + idleTime + "'; " +
		"SET LOCAL lock_timeout = '" + lockTime + "'; SET LOCAL statement_timeout = '" + runTime + "'"
)

const now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// Log is an event log in PostgreSQL.
type Log struct {
	sqllog.Tables
	db              *sql.DB
	name            string // the schema's name
	schema          string // prefix of table names
	events, history *partitioned
	outbox          outbox
	self            string // identifies this process in notifications
}

// Options configures a log. The zero value is usable.
type Options struct {
	// Schema is the schema of the log's tables, "tidings" by default. [Log.Migrate]
	// creates it. Statements name it explicitly, so the search_path does not
	// matter. Logs in different schemas of one database are independent.
	Schema string
	// PartitionWidth is the time span of one partition of the log and of the
	// history, and thereby how much longer than its retention an event may stay; 0
	// means a day.
	PartitionWidth time.Duration
	// BoundedSessions means that every session of the pool starts with isolation
	// level "read committed", a statement_timeout and a lock_timeout, whatever the
	// database and the role set. Single writing statements then need no
	// transaction, which saves three round trips.
	BoundedSessions bool
}

// DefaultSchema is the default schema of a log.
const DefaultSchema = "tidings"

// New returns the log in a database that is accessed through
// github.com/jackc/pgx/v5/stdlib. [Log.Migrate] creates its tables.
func New(db *sql.DB, o Options) *Log {
	if o.Schema == "" {
		o.Schema = DefaultSchema
	}
	if o.PartitionWidth <= 0 {
		o.PartitionWidth = 24 * time.Hour
	}
	schema := quote(o.Schema) + "."
	dialect := sqllog.Dialect{
		Schema: schema, Begin: bound, Options: &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		Autocommit: o.BoundedSessions, Now: now, Index: "strpos", Written: "written_at",
		Among:        "= ANY (string_to_array($1, ',')::bigint[])",
		Head:         "(SELECT seq FROM " + schema + "tidings_head)",
		LockReplicas: "LOCK TABLE " + schema + "tidings_replicas IN EXCLUSIVE MODE", HoldRows: " FOR UPDATE",
		BeginHolding: bound + "; LOCK TABLE " + schema + "tidings_replicas IN ROW SHARE MODE",
	}
	dialect.Lasts = "start = " + start(schema) + " AND written = xmin"
	l := &Log{Tables: sqllog.New(db, db, dialect), db: db, name: o.Schema, schema: schema, self: rand.Text()}
	l.outbox.head.Store(anyHead)
	l.events = &partitioned{
		log: l, schema: schema, table: "tidings_events", column: "logged_at",
		width: o.PartitionWidth,
	}
	l.history = &partitioned{
		log: l, schema: schema, table: "tidings_history", column: "written_at",
		width: o.PartitionWidth,
	}
	return l
}

// Channel returns the channel for LISTEN and NOTIFY: the name of the schema. A
// program that listens calls [Log.Notified] with each payload. One that does not
// polls, and sees other replicas' events within a second.
func (l *Log) Channel() string { return l.name }

func hasCode(err error, code string) bool {
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && state.SQLState() == code
}

// Append writes events in the transaction of the changes that they report. Call it
// after the changes: a changed row stays locked until commit, so the events of one
// resource are numbered in commit order. Call [Log.Wake] after the commit.
func (l *Log) Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error {
	_, err := sqllog.InsertEvents(ctx, tx, l.schema+"tidings_outbox", "", "", events)
	return err
}

// Publish implements [eventlog.Publisher].
func (l *Log) Publish(ctx context.Context, events []eventlog.Publication) ([]string, error) {
	return l.PublishWith(ctx, events, l.Append)
}

// Oldest implements [eventlog.Reader].
func (l *Log) Oldest(ctx context.Context) (int64, error) {
	var head int64
	if err := l.headRow(ctx, []any{&head}, "SELECT seq FROM "+l.schema+"tidings_head WHERE seq >= $1"); err != nil {
		return 0, fmt.Errorf("read the head of the log: %w", err)
	}
	return l.OldestOr(ctx, head)
}

// Describe implements [eventlog.Describer].
func (l *Log) Describe(ctx context.Context) (eventlog.Database, error) {
	pool := l.db.Stats()
	d := eventlog.Database{Kind: "postgresql", Schema: l.name, InUse: pool.InUse, Most: pool.MaxOpenConnections}
	err := l.Row(ctx, []any{&d.Version, &d.Primary, &d.Size},
		"SELECT current_setting('server_version'), NOT pg_is_in_recovery(), pg_database_size(current_database())")
	if err != nil {
		return d, fmt.Errorf("describe the database: %w", err)
	}
	return d, nil
}

func (l *Log) notify(ctx context.Context, db sqldb.Execer, payload string) error {
	_, err := db.ExecContext(ctx, "SELECT pg_notify($1, $2)", l.Channel(), payload)
	return err
}

// Nudge implements [eventlog.Waker].
func (l *Log) Nudge(ctx context.Context) error {
	err := l.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return l.notify(ctx, tx, notifyChanges) })
	if err != nil {
		return fmt.Errorf("notify other replicas: %w", err)
	}
	return l.Tables.Nudge(ctx)
}

// Notified wakes this process's readers for a notification on [Channel]. An empty
// payload, as after a broken connection, wakes all of them.
func (l *Log) Notified(payload string) {
	numberedBy, events := strings.CutPrefix(payload, notifyEvents)
	if payload != notifyChanges && numberedBy != l.self {
		l.Wake()
	}
	if !events {
		_ = l.Tables.Nudge(context.Background()) // can't fail within the process
	}
}

// AppendHistory implements [eventlog.Recorder].
func (l *Log) AppendHistory(ctx context.Context, blocks []*eventlog.HistoryBlock) error {
	return l.writeHistory(ctx, func() error { return l.Tables.AppendHistory(ctx, blocks) })
}

// Discard implements [eventlog.ParkedKeeper].
func (l *Log) Discard(
	ctx context.Context, endpoint string, sequences []int64, d eventlog.Discard,
) (discarded int64, err error) {
	err = l.writeHistory(ctx, func() error {
		n, err := l.Tables.Discard(ctx, endpoint, sequences, d) // of the remaining ones
		discarded += n
		return err
	})
	return discarded, err
}

// Rename implements [eventlog.Cursors]. A replica with an older configuration may still
// write about an endpoint of the new name, which makes the names clash.
func (l *Log) Rename(ctx context.Context, from, to string) (renamed bool, err error) {
	for clashes := 0; ; clashes++ {
		renamed, err = l.Tables.Rename(ctx, from, to) // first forgets what was written
		if !hasCode(err, uniqueViolation) || clashes == 3 {
			return renamed, err
		}
	}
}

// writeHistory calls write once there is a partition for what it writes.
func (l *Log) writeHistory(ctx context.Context, write func() error) error {
	for late := 0; ; late++ {
		clock, err := l.Number(ctx, "SELECT "+now)
		if err != nil {
			return err
		}
		if err := l.history.ensure(ctx, clock); err != nil {
			return err
		}
		err = write()
		if !hasCode(err, checkViolation) || late == 3 {
			return err
		}
		l.history.forget()
	}
}

// ExpireEvents implements [eventlog.Expirer] by dropping partitions that have
// ended.
func (l *Log) ExpireEvents(ctx context.Context, keep time.Duration) (x eventlog.Expiry, err error) {
	clock, err := l.ExpiryClock(ctx, keep)
	if err != nil {
		return x, err
	}
	x.At = time.UnixMicro(clock).UTC()
	for _, p := range []*partitioned{l.events, l.history} {
		done, err := p.cut(ctx, clock)
		x.Notices = append(x.Notices, done...)
		if err != nil {
			return x, err
		}
	}
	dropped := l.events.dropBefore(ctx, clock, keep)
	oldest, err := l.Oldest(ctx)
	if err == nil {
		x.Gaps, err = l.PassExpired(ctx, oldest, x.At)
	}
	return x, errors.Join(dropped, err)
}

// ExpireHistory implements [eventlog.Expirer] by dropping partitions.
func (l *Log) ExpireHistory(ctx context.Context, keep time.Duration) error {
	clock, err := l.Number(ctx, "SELECT "+now)
	if err != nil {
		return err
	}
	return l.history.dropBefore(ctx, clock, keep)
}

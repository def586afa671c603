// Package sqlite stores the event log in the SQLite database that holds the
// program's own tables. SQLite has a single writer, so events appended inside a
// transaction are in commit order. Only one process at a time may deliver from the
// database: the one that started last.
//
// Any driver may be used; Tidings uses modernc.org/sqlite. The database should be
// in WAL mode with synchronous=FULL, so that an acknowledged change survives a
// power failure.
package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

//go:embed migrations/*.sql
var files embed.FS

var _ eventlog.Home = (*Log)(nil)

const now = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"

// Log is an event log in SQLite.
type Log struct {
	sqllog.Tables
	writer *sql.DB
	start  string       // identifies this process
	number atomic.Int64 // of the last known epoch; 0 before this process has begun one
}

// New returns the log in a database. [Log.Migrate] creates its tables. The pools
// may be the same. Limiting the writer pool to one connection avoids "database is
// locked" errors.
func New(reader, writer *sql.DB) *Log {
	return &Log{
		Tables: sqllog.New(reader, writer, sqllog.Dialect{
			Autocommit: true, Now: now, Index: "instr", Written: "+written_at", Head: head, Begin: immediate,
			BeginHolding: immediate, Among: "IN (SELECT value FROM json_each('[' || $1 || ']'))",
		}),
		writer: writer, start: rand.Text(),
	}
}

// immediate makes a transaction take the write lock when it begins, and wait for
// it, however the pool begins transactions. A transaction that has already read
// can't wait.
const immediate = "UPDATE tidings_cursors SET endpoint = endpoint WHERE false"

// head is a SQL expression: the position of the last event, expired or not.
const head = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'tidings_events'), 0)"

// newest is a SQL expression: the number of the current epoch, 0 before the first. It is
// lower than before if rows of a backup were loaded.
const newest = "coalesce((SELECT max(number) FROM tidings_epochs), 0)"

// Append writes events in the transaction of the changes that they report, and sets their
// positions, in place. Call it last in the transaction, and [sqllog.Tables.Committed] or
// [sqllog.Tables.Wake] after the commit.
func (l *Log) Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error {
	last, err := sqllog.InsertEvents(ctx, tx, "tidings_events", "logged_at", now, events)
	if err != nil || last == nil {
		return err
	}
	if end, err := last.LastInsertId(); err == nil { // a driver may not tell: readers look for them
		for i := range events { // nobody else writes until the commit, so they follow each other
			events[i].Sequence = end - int64(len(events)-1-i)
			events[i].Time = time.UnixMicro(events[i].Time.UnixMicro()).UTC() // as it is read
		}
	}
	return nil
}

// Publish implements [eventlog.Publisher].
func (l *Log) Publish(ctx context.Context, events []eventlog.Publication) ([]string, error) {
	return l.PublishWith(ctx, events, l.Append)
}

// Advance implements [eventlog.Reader]. Committed events are already numbered. The
// first call in a process begins an epoch, since the file may come from a backup.
func (l *Log) Advance(ctx context.Context) (int64, error) {
	for {
		var end, number int64
		var epoch string
		if err := l.Row(ctx, []any{&end, &number, &epoch}, "SELECT "+head+", "+newest+", "+l.Newest("id")); err != nil {
			return 0, fmt.Errorf("read log: %w", err)
		}
		if last := l.number.Load(); last > 0 && last <= number && !l.WentBack(epoch, end) {
			l.number.Store(number)
			l.Saw(epoch, end)
			return end, nil
		}
		if err := l.beginEpoch(ctx); err != nil {
			return 0, fmt.Errorf("begin another epoch: %w", err)
		}
	}
}

func (l *Log) beginEpoch(ctx context.Context) error {
	err := l.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var end, number int64
		var epoch, start string
		err := tx.QueryRowContext(ctx, "SELECT "+head+", "+newest+", "+l.Newest("id")+", "+l.Newest("start")).Scan(
			&end, &number, &epoch, &start)
		if err != nil || start == l.start && l.number.Load() <= number && !l.WentBack(epoch, end) {
			return err
		}
		return l.BeginEpoch(ctx, tx, end, l.start)
	})
	if err == nil {
		l.number.Store(1) // the next look says
	}
	return err
}

// Describe implements [eventlog.Describer].
func (l *Log) Describe(ctx context.Context) (eventlog.Database, error) {
	pool := l.writer.Stats()
	d := eventlog.Database{Kind: "sqlite", Primary: true, InUse: pool.InUse, Most: pool.MaxOpenConnections}
	err := l.Row(ctx, []any{&d.Version, &d.Size},
		"SELECT sqlite_version(), page_count * page_size FROM pragma_page_count(), pragma_page_size()")
	if err != nil {
		return d, fmt.Errorf("describe the database: %w", err)
	}
	return d, nil
}

// Unnumbered implements [eventlog.Archive].
func (l *Log) Unnumbered(context.Context) (int64, error) { return 0, nil }

// Oldest implements [eventlog.Reader].
func (l *Log) Oldest(ctx context.Context) (int64, error) {
	head, err := l.Advance(ctx)
	if err != nil {
		return 0, err
	}
	return l.OldestOr(ctx, head)
}

// Join implements [eventlog.Leases]. It removes all other replicas: a process that
// delivered from the database before has ended, or must end.
func (l *Log) Join(ctx context.Context, r eventlog.Replica, ttl time.Duration) error {
	return l.JoinAfter(ctx, "DELETE FROM tidings_replicas", r, ttl)
}

// expireBatch is how many rows are deleted at once, so that writers need not wait
// long.
const expireBatch = 1000

// ExpireEvents implements [eventlog.Expirer]. Events are removed in log order. One
// that was logged while the clock was ahead is removed together with the next one
// that was not.
func (l *Log) ExpireEvents(ctx context.Context, keep time.Duration) (x eventlog.Expiry, err error) {
	clock, err := l.ExpiryClock(ctx, keep)
	if err != nil {
		return x, err
	}
	x.At = time.UnixMicro(clock).UTC()
	before := clock - keep.Microseconds()
	// Without an event in that range, end is one past the last event before it.
	end, err := l.Number(ctx, `SELECT coalesce(
			(SELECT seq FROM tidings_events WHERE logged_at >= $1 AND logged_at <= $2 ORDER BY seq LIMIT 1),
			(SELECT max(seq) + 1 FROM tidings_events WHERE logged_at < $1))`, before,
		clock+eventlog.TimeSlack.Microseconds())
	if err != nil {
		return x, err
	}
	err = l.expire(ctx, "DELETE FROM tidings_events WHERE seq IN (SELECT seq FROM tidings_events WHERE seq < $1 "+
		"ORDER BY seq LIMIT $2)", end)
	if err != nil {
		return x, err
	}
	oldest, err := l.Oldest(ctx)
	if err == nil {
		x.Gaps, err = l.PassExpired(ctx, oldest, x.At)
	}
	return x, err
}

// ExpireHistory implements [eventlog.Expirer].
func (l *Log) ExpireHistory(ctx context.Context, keep time.Duration) error {
	return l.expire(ctx, "DELETE FROM tidings_history WHERE id IN (SELECT id FROM tidings_history WHERE written_at < "+
		now+" - $1 LIMIT $2)",
		keep.Microseconds())
}

func (l *Log) expire(ctx context.Context, statement string, end int64) error {
	for {
		n, err := l.Exec(ctx, statement, end, expireBatch)
		if err != nil {
			return fmt.Errorf("remove what has expired: %w", err)
		}
		if n < expireBatch {
			return nil
		}
	}
}

// Migrate creates or updates the log's tables and those of further lists of
// migrations. It may be called at every start.
func (l *Log) Migrate(ctx context.Context, more ...sqldb.Migrations) error {
	for _, m := range migrations(more) {
		if err := m.Run(ctx, l.writer); err != nil {
			return err
		}
	}
	return nil
}

// Pending reports whether [Log.Migrate] has anything to do.
func (l *Log) Pending(ctx context.Context, more ...sqldb.Migrations) (bool, error) {
	for _, m := range migrations(more) {
		if pending, err := m.Pending(ctx, l.writer); pending || err != nil {
			return pending, err
		}
	}
	return false, nil
}

func migrations(more []sqldb.Migrations) []sqldb.Migrations {
	lists := append([]sqldb.Migrations{{
		Files: sqldb.Folder(files, "migrations"), Go: sqllog.Migrations,
		Table: "tidings_log_version",
	}}, more...)
	for i := range lists {
		lists[i].Dialect = goose.DialectSQLite3
	}
	return lists
}

// MigrationFiles returns the migrations as numbered SQL files for other tools.
func MigrationFiles() (fs.FS, error) { return migrations(nil)[0].Export() }

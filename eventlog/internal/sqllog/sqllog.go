// Package sqllog is the common part of the SQL event logs: reading events, cursors,
// leases, parked events, replays and history through database/sql. Its statements
// work on both SQLite and PostgreSQL, apart from a [Dialect]. Times are stored in
// microseconds since 1970, UTC.
package sqllog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// Dialect holds the differences between the two databases.
type Dialect struct {
	// Schema is the prefix of table names, including a dot, such as "tidings."; may
	// be empty.
	Schema string
	// Options are the options of every transaction; may be nil.
	Options *sql.TxOptions
	// Begin is the first statement of every transaction; may be empty.
	Begin string
	// Autocommit means that a single statement needs neither Options nor Begin.
	Autocommit bool
	// Now is an expression: the database's clock, in microseconds since 1970.
	Now string
	// LockReplicas is a statement that blocks joining, leaving and acquiring until
	// the end of the transaction; empty if no other process can write during it.
	LockReplicas string
	// Index is the function that returns the position of one string in another; 0 for none.
	Index string
	// Among is a condition on the column before it: it is one of the numbers in parameter
	// $1, which are separated by commas.
	Among string
	// Written is an expression: when a block of the history was written. It must not make
	// the database prefer an index on it to the order of ids.
	Written string
	// Head is an expression: the position of the last numbered event.
	Head string
	// Lasts is a condition on a row of tidings_epochs: since that epoch began, the
	// database was not restarted, and the tables were not loaded from a backup. Empty if
	// only the process that began the epoch can write.
	Lasts string
	// BeginHolding is Begin with a statement that keeps leases with their owners
	// until the end of the transaction. It does not block other such transactions,
	// nor saving cursors.
	BeginHolding string
	// HoldRows is the locking clause (FOR UPDATE) appended to a SELECT.
	HoldRows string
}

// Tables reads and writes the tables of a log. Reads and writes may go to
// different pools of the same database.
type Tables struct {
	dialect        Dialect
	schema         string // the dialect's Schema
	reader, writer *sql.DB
	places         map[*sql.DB]places
	events         eventlog.Signal
	changes        eventlog.Signal
	take           *atomic.Pointer[func([]tidings.Event) bool]
	outage         *atomic.Pointer[eventlog.UnavailableError]
	seen           *seen
}

// New returns the tables accessed through two pools, which may be the same.
func New(reader, writer *sql.DB, d Dialect) Tables {
	return Tables{
		dialect: d, schema: d.Schema, reader: reader, writer: writer,
		places: map[*sql.DB]places{reader: newPlaces(reader), writer: newPlaces(writer)},
		events: eventlog.NewSignal(), changes: eventlog.NewSignal(),
		take:   new(atomic.Pointer[func([]tidings.Event) bool]),
		outage: new(atomic.Pointer[eventlog.UnavailableError]),
		seen:   new(seen),
	}
}

// Wake implements [eventlog.Waker].
func (t *Tables) Wake() { t.events.Give() }

// Woken implements [eventlog.Waker].
func (t *Tables) Woken() <-chan struct{} { return t.events.Given() }

// Committed implements [eventlog.Waker].
func (t *Tables) Committed(events ...tidings.Event) {
	if len(events) == 0 {
		return
	}
	if take := t.take.Load(); take == nil || events[0].Sequence == 0 || !(*take)(events) {
		t.Wake()
	}
}

// OnCommitted implements [eventlog.Waker].
func (t *Tables) OnCommitted(take func([]tidings.Event) bool) { t.take.Store(&take) }

// Nudge implements [eventlog.Waker] for the readers in this process.
func (t *Tables) Nudge(context.Context) error {
	t.changes.Give()
	return nil
}

// Nudged implements [eventlog.Waker].
func (t *Tables) Nudged() <-chan struct{} { return t.changes.Given() }

// Placeholders returns "($1,$2),($3,$4)" for 2 rows of 2 columns.
func Placeholders(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%columns == 0:
			b.WriteString("),(")
		default:
			b.WriteByte(',')
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(i + 1))
	}
	b.WriteByte(')')
	return b.String()
}

// typed returns a common table expression "v" of rows whose columns have the given
// names and types. A database can't infer the types from parameters.
func typed(rows int, columns ...string) string {
	names := make([]string, len(columns))
	types := make([]string, len(columns))
	for i, c := range columns {
		names[i], types[i], _ = strings.Cut(c, " ")
	}
	var b strings.Builder
	b.WriteString("WITH v(" + strings.Join(names, ", ") + ") AS (VALUES ")
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, typ := range types {
			b.WriteString([]string{"(", ","}[min(j, 1)])
			fmt.Fprintf(&b, "CAST($%d AS %s)", i*len(types)+j+1, typ)
		}
		b.WriteByte(')')
	}
	return b.String() + ") "
}

// on calls do with a connection of a pool. Its errors tell whether the database is
// unavailable.
func (t *Tables) on(ctx context.Context, db *sql.DB, do func(context.Context, *sql.Conn) error) error {
	return t.places[db].use(ctx, func() error {
		return sqldb.Do(ctx, db, limit(ctx), func(ctx context.Context, conn *sql.Conn) error {
			err, _ := eventlog.Unavailable(do(ctx, conn))
			return err
		})
	})
}

// InTx calls do in a transaction of the writer pool. do must use the context passed
// to it, which has a deadline.
func (t *Tables) InTx(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	return t.Transact(ctx, t.dialect.Begin, do)
}

// Transact is like InTx with a different first statement, which may be empty if do
// begins with it.
func (t *Tables) Transact(ctx context.Context, begin string, do func(context.Context, *sql.Tx) error) error {
	err := t.places[t.writer].use(ctx, func() error {
		return sqldb.Transact(ctx, t.writer, limit(ctx), t.dialect.Options,
			func(ctx context.Context, tx *sql.Tx) error {
				if begin == "" {
					return nil
				}
				_, err := tx.ExecContext(ctx, begin)
				return err
			}, func(ctx context.Context, tx *sql.Tx) error {
				err, _ := eventlog.Unavailable(do(ctx, tx))
				return err
			})
	})
	return t.noting(ctx, err)
}

// noting records whether a write succeeded.
func (t *Tables) noting(ctx context.Context, err error) error {
	err, _ = eventlog.Unavailable(err)
	if away, ok := errors.AsType[*eventlog.UnavailableError](err); err == nil ||
		(ok && !errors.Is(ctx.Err(), context.Canceled)) {
		t.outage.Store(away)
	}
	return err
}

// Outage returns the reason why the last write failed because the database was
// unavailable; nil if it did not. A process that takes part as a replica writes
// every few seconds.
func (t *Tables) Outage() error {
	if away := t.outage.Load(); away != nil {
		return away
	}
	return nil
}

// Exec runs a writing statement and returns the number of rows that it changed.
func (t *Tables) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	write := func(ctx context.Context, e sqldb.Execer) error {
		result, err := e.ExecContext(ctx, query, args...)
		if err == nil {
			n, err = result.RowsAffected()
		}
		return err
	}
	if t.dialect.Autocommit {
		err = t.noting(ctx,
			t.on(ctx, t.writer, func(ctx context.Context, conn *sql.Conn) error { return write(ctx, conn) }))
	} else {
		err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return write(ctx, tx) })
	}
	return n, err
}

// batchRows is how many rows one statement writes. For more, SQLite takes
// disproportionately long to prepare it.
const batchRows = 64

// inBatches calls do for slices of n rows small enough for one statement.
func inBatches(n int, do func(from, to int) error) error {
	for from := 0; from < n; from += batchRows {
		if err := do(from, min(from+batchRows, n)); err != nil {
			return err
		}
	}
	return nil
}

// query calls scan for each row. what describes the rows for errors.
func (t *Tables) query(
	ctx context.Context, db *sql.DB, what string, scan func(*sql.Rows) error, text string, args ...any,
) error {
	err := t.on(ctx, db, func(ctx context.Context, conn *sql.Conn) error {
		rows, err := conn.QueryContext(ctx, text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

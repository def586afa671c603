// Package sqllog is what the SQL homes of the event log share: reading events,
// cursors, leases, parked events, replays and history through database/sql. Its
// statements are the common part of SQLite's and PostgreSQL's SQL, but for a
// [Dialect]. Times are stored as microseconds since 1970 in UTC.
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

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// Dialect is where the statements of the two databases differ.
type Dialect struct {
	// Schema goes before the names of tables, with its dot, such as "tidings."; may
	// be empty.
	Schema string
	// Options are those of every transaction; may be nil.
	Options *sql.TxOptions
	// Begin is the first statement of every transaction; may be empty.
	Begin string
	// Autocommit says that a single statement needs neither Options nor Begin.
	Autocommit bool
	// Now is an expression: the database's clock, in microseconds since 1970.
	Now string
	// LockReplicas is a statement that keeps others from joining, leaving and
	// acquiring until the end of the transaction; empty if nobody else writes
	// then.
	LockReplicas string
	// Head is an expression: the position of the last event that has one.
	Head string
	// Start is an expression: a text that differs for each start of the database. Empty
	// where a process that did not begin the epoch writes nothing.
	Start string
	// BeginHolding is Begin with a statement that keeps leases with their owners until the
	// end of the transaction; others that want the same, and those who save cursors, don't
	// wait for it.
	BeginHolding string
	// HoldRows goes behind a query whose rows must stay as they are until the end
	// of the transaction.
	HoldRows string
}

// Tables reads and writes the tables of a log. Reads and writes may go to
// different pools of the same database.
type Tables struct {
	dialect        Dialect
	schema         string // that of the dialect
	reader, writer *sql.DB
	places         map[*sql.DB]places
	events         eventlog.Signal
	changes        eventlog.Signal
	outage         *atomic.Pointer[eventlog.UnavailableError]
	seen           *seen
}

// New returns the tables behind two pools, which may be the same.
func New(reader, writer *sql.DB, d Dialect) Tables {
	return Tables{
		dialect: d, schema: d.Schema, reader: reader, writer: writer,
		places: map[*sql.DB]places{reader: newPlaces(reader), writer: newPlaces(writer)},
		events: eventlog.NewSignal(), changes: eventlog.NewSignal(),
		outage: new(atomic.Pointer[eventlog.UnavailableError]),
		seen:   new(seen),
	}
}

// Wake implements [eventlog.Waker].
func (t *Tables) Wake() { t.events.Give() }

// Woken implements [eventlog.Waker].
func (t *Tables) Woken() <-chan struct{} { return t.events.Given() }

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

// typed returns a common table expression "v" of rows whose columns have the
// given names and types, which a database can't tell from parameters alone.
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

// on runs do on a connection of a pool. Errors say whether the database is away.
func (t *Tables) on(ctx context.Context, db *sql.DB, do func(context.Context, *sql.Conn) error) error {
	return t.places[db].use(ctx, func() error {
		return sqldb.Do(ctx, db, limit(ctx), func(ctx context.Context, conn *sql.Conn) error {
			err, _ := eventlog.Unavailable(do(ctx, conn))
			return err
		})
	})
}

// InTx runs do in a transaction of the writing pool. do uses the context that it
// gets, which is bounded.
func (t *Tables) InTx(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	return t.Transact(ctx, t.dialect.Begin, do)
}

// Transact is InTx with another first statement, which may be empty if do begins
// with it.
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

// noting notes whether something could be written.
func (t *Tables) noting(ctx context.Context, err error) error {
	err, _ = eventlog.Unavailable(err)
	if away, ok := errors.AsType[*eventlog.UnavailableError](err); err == nil ||
		(ok && !errors.Is(ctx.Err(), context.Canceled)) {
		t.outage.Store(away)
	}
	return err
}

// Outage returns why nothing could be written the last time, nil if something
// could be. Whoever takes part as a replica writes every few seconds.
func (t *Tables) Outage() error {
	if away := t.outage.Load(); away != nil {
		return away
	}
	return nil
}

// Exec runs a statement that writes and returns how many rows it changed.
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

// batchRows is how many rows one statement writes: SQLite takes ever longer to
// prepare more.
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

// query calls scan for each row. what says what is read.
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

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

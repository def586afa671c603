package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Errors that a write may return.
var (
	// ErrNotFound means that a row does not exist.
	ErrNotFound = errors.New("no such row")
	// ErrDuplicate means that a unique constraint was violated.
	ErrDuplicate = errors.New("duplicate")
	// ErrReference means that a referenced row does not exist.
	ErrReference = errors.New("referenced row does not exist")
	// ErrText means that the database cannot store a string, for example
	// because of a NUL byte.
	ErrText = errors.New("string that the database cannot store")
)

// Tx is a transaction. Everything in it has the same time. Its events are
// appended last, so that changed rows stay locked until their events are
// numbered.
type Tx struct {
	// Now is the time of the transaction, to the microsecond.
	Now time.Time

	store  *Store
	tx     *boundTx
	trace  func(tidings.Event) string
	events []tidings.Event
	after  []func()
}

type traceKey struct{}

// WithTrace makes events carry the W3C traceparent that the function returns
// for each of them.
func WithTrace(ctx context.Context, trace func(context.Context, tidings.Event) string) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

func traceOf(ctx context.Context) func(tidings.Event) string {
	trace, ok := ctx.Value(traceKey{}).(func(context.Context, tidings.Event) string)
	return func(e tidings.Event) string {
		if !ok {
			return ""
		}
		return trace(ctx, e)
	}
}

// How often transactions are retried after a deadlock, and if they did not begin because
// their connection was broken.
const (
	deadlockRetries = 5
	beginRetries    = 2
)

// InTx runs do in a transaction, which commits all writes and events or none.
// After a deadlock, if the connection was broken, or if SQLite rolled it back because
// of another request, it runs do again in a new transaction. On SQLite, it may share the transaction of
// other requests, so do must read through the Tx only.
func (s *Store) InTx(ctx context.Context, do func(*Tx) error) error {
	return s.inTx(ctx, s.transact, do)
}

// InTxAlone is like InTx for a do that waits for something other than the
// database. It does not hold up the commits of other requests.
func (s *Store) InTxAlone(ctx context.Context, do func(*Tx) error) error {
	return s.inTx(ctx, s.transactAlone, do)
}

// transactor calls do in a transaction, appends the events that it returns, and commits.
type transactor func(ctx context.Context, do func(context.Context, *sql.Tx) ([]tidings.Event, error)) error

// Transact is [Store.InTx] without its statements, for measurements.
func (s *Store) Transact(
	ctx context.Context, do func(context.Context, *sql.Tx) ([]tidings.Event, error),
) error {
	return s.transact(ctx, do)
}

// deferred holds the events of transactions that share a commit, so that few statements
// append them.
type deferred struct {
	log    Log
	tx     *sql.Tx
	events []tidings.Event
}

// in returns a transactor that holds the events of those that run.
func (d *deferred) in(run func(context.Context, func(context.Context, *sql.Tx) error) error) transactor {
	return func(ctx context.Context, do func(context.Context, *sql.Tx) ([]tidings.Event, error)) error {
		return run(ctx, func(ctx context.Context, tx *sql.Tx) error {
			events, err := do(ctx, tx)
			if err != nil {
				return err
			}
			if d.tx != tx { // the one before may have been rolled back
				d.tx, d.events = tx, nil
			}
			d.events = append(d.events, events...)
			return nil
		})
	}
}

// write appends the events that were held in a transaction.
func (d *deferred) write(ctx context.Context, tx *sql.Tx) (committed func(), err error) {
	if d.tx != tx {
		d.events = nil
	}
	ctx, end := context.WithTimeout(ctx, statementTime)
	defer end()
	events := d.events
	return func() { d.log.Committed(events...) }, d.log.Append(ctx, tx, events...)
}

func (s *Store) inTx(ctx context.Context, transact transactor, do func(*Tx) error) error {
	for try := 0; ; try++ {
		err := s.once(ctx, transact, do)
		again := isDeadlock(err) && try < deadlockRetries || errors.Is(err, errNotBegun) && try < beginRetries
		if !again {
			return err
		}
	}
}

// txTime limits a transaction; it is longer than one may wait for the file
// store. statementTime limits each statement.
const (
	txTime        = 3 * time.Minute
	statementTime = 30 * time.Second
)

// boundTx limits the time of each statement in a transaction. The context of a
// statement lasts until the next one starts, by which time its rows have been
// read.
type boundTx struct {
	tx     *sql.Tx
	shared bool // may be shared with other requests
	end    context.CancelFunc
}

func (b *boundTx) begin(ctx context.Context) context.Context {
	b.end()
	if b.shared && ctx.Err() == nil {
		ctx = context.WithoutCancel(ctx) // an interrupted statement may roll back the others
	}
	ctx, b.end = context.WithTimeout(ctx, statementTime)
	return ctx
}

// ExecContext implements [bun.IConn].
func (b *boundTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return b.tx.ExecContext(b.begin(ctx), query, args...)
}

// QueryContext implements [bun.IConn].
func (b *boundTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return b.tx.QueryContext(b.begin(ctx), query, args...)
}

// QueryRowContext implements [bun.IConn].
func (b *boundTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return b.tx.QueryRowContext(b.begin(ctx), query, args...)
}

func (s *Store) once(ctx context.Context, transact transactor, do func(*Tx) error) error {
	var tx *Tx
	committing := false
	err := transact(ctx, func(_ context.Context, begun *sql.Tx) ([]tidings.Event, error) {
		bound := &boundTx{tx: begun, shared: s.file != nil, end: func() {}}
		defer func() { bound.end() }()
		tx = &Tx{Now: time.Now().UTC().Truncate(time.Microsecond), store: s, tx: bound, trace: traceOf(ctx)}
		committing = false
		if err := do(tx); err != nil {
			return nil, err
		}
		committing = true
		return tx.events, nil
	})
	if err != nil && committing {
		return asStoreError(err)
	}
	if err != nil {
		return err
	}
	for _, do := range tx.after {
		do()
	}
	return nil
}

// statement returns a DB for a single statement in the transaction.
func (tx *Tx) statement() *bun.DB { return tx.store.statement(tx.tx) }

// After runs do after the transaction commits, but not if it is rolled back.
func (tx *Tx) After(do func()) { tx.after = append(tx.after, do) }

// Insert inserts a row and its event. The error may be [ErrDuplicate] or
// [ErrReference].
func (tx *Tx) Insert(ctx context.Context, row any, e tidings.Event) error {
	if _, err := tx.statement().NewInsert().Model(row).Exec(ctx); err != nil {
		return fmt.Errorf("insert %s: %w", e.Type, asStoreError(err))
	}
	tx.tell(e)
	return nil
}

// Update updates a row, identified by its primary key, and writes its event.
func (tx *Tx) Update(ctx context.Context, row any, e tidings.Event) error {
	result, err := tx.statement().NewUpdate().Model(row).WherePK().Exec(ctx)
	return tx.changed(result, err, "update", e)
}

// Delete deletes a row, identified by its primary key, and writes its event.
func (tx *Tx) Delete(ctx context.Context, row any, e tidings.Event) error {
	result, err := tx.statement().NewDelete().Model(row).WherePK().Exec(ctx)
	return tx.changed(result, err, "delete", e)
}

func (tx *Tx) changed(result sql.Result, err error, verb string, e tidings.Event) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, e.Type, asStoreError(err))
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("%s %s %s: %w", verb, e.Type, e.ResourceID, errors.Join(ErrNotFound, err))
	}
	tx.tell(e)
	return nil
}

func (tx *Tx) tell(e tidings.Event) {
	e.Time, e.Trace = tx.Now, tx.trace(e)
	tx.events = append(tx.events, e)
}

// Touch sets the column last_active_at of a row, without an event.
func (tx *Tx) Touch(ctx context.Context, row any) error {
	_, err := tx.statement().NewUpdate().Model(row).Set("last_active_at = ?", tx.Now).WherePK().Exec(ctx)
	if err != nil {
		return fmt.Errorf("touch: %w", asStoreError(err))
	}
	return nil
}

// detailRows limits the rows per INSERT, because databases limit the parameters
// of a statement.
const detailRows = 64

// InsertDetails inserts rows (a pointer to a row or to a slice) that are part
// of a resource. They have no events of their own; the resource's event covers
// them.
func (tx *Tx) InsertDetails(ctx context.Context, rows any) error {
	if err := tx.refuseResource(rows); err != nil {
		return err
	}
	for batch := range batches(rows) {
		if _, err := tx.statement().NewInsert().Model(batch).Exec(ctx); err != nil {
			return fmt.Errorf("insert details: %w", asStoreError(err))
		}
	}
	return nil
}

// batches yields the row itself, or pointers to slices of at most detailRows
// rows.
func batches(rows any) iter.Seq[any] {
	return func(yield func(any) bool) {
		slice := reflect.Indirect(reflect.ValueOf(rows))
		if slice.Kind() != reflect.Slice {
			yield(rows)
			return
		}
		for from := 0; from < slice.Len(); from += detailRows {
			batch := reflect.New(slice.Type())
			batch.Elem().Set(slice.Slice(from, min(from+detailRows, slice.Len())))
			if !yield(batch.Interface()) {
				return
			}
		}
	}
}

// DeleteDetails deletes rows that are part of a resource and returns their
// number.
func (tx *Tx) DeleteDetails(ctx context.Context, row any, filters ...Filter) (int64, error) {
	q := tx.statement().NewDelete().Model(row)
	if err := tx.refuseResource(row); err != nil {
		return 0, err
	}
	for _, f := range filters {
		q = q.Where(f.expression(), f.arguments()...)
	}
	result, err := q.Exec(ctx)
	if err != nil {
		return 0, fmt.Errorf("delete details: %w", asStoreError(err))
	}
	return result.RowsAffected()
}

// refuseResource returns an error for a row with a version: resources cannot
// change without an event.
func (tx *Tx) refuseResource(row any) error {
	t := reflect.TypeOf(row)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if tx.store.dialect.Tables().Get(t).HasField("version") {
		return fmt.Errorf("%s is a resource and cannot be written without an event", t)
	}
	return nil
}

// asStoreError converts the databases' errors to those of this package.
func asStoreError(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "23505":
			return ErrDuplicate
		case "23503":
			return ErrReference
		case "22021", "22P05":
			return ErrText
		case "40001", "40P01", "55P03", "57014":
			return &eventlog.UnavailableError{Reason: "rows stayed locked by others, or a statement timed out", Err: err}
		}
	}
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		switch lite.Code() {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			return ErrDuplicate
		case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			return ErrReference
		}
	}
	err, _ = eventlog.Unavailable(err)
	return err
}

func isDeadlock(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001")
}

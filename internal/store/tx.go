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
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// What a write can meet.
var (
	// ErrNotFound says that a row is not there.
	ErrNotFound = errors.New("no such row")
	// ErrDuplicate says that another row has what must be unique.
	ErrDuplicate = errors.New("duplicate")
	// ErrReference says that a row that another refers to is not there.
	ErrReference = errors.New("no such row to refer to")
	// ErrText says that the database can't hold a text, such as one with a zero byte.
	ErrText = errors.New("text that the database can't hold")
)

// Tx is a transaction. It fixes one time for everything in it, and appends its
// events last, so that whoever changes a row holds it until they are numbered.
type Tx struct {
	// Now is the time of all changes in the transaction, to the microsecond.
	Now time.Time

	store  *Store
	tx     *boundTx
	trace  func(tidings.Event) string
	events []tidings.Event
	after  []func()
}

type traceKey struct{}

// WithTrace has the events of changes carry the W3C traceparent that a function
// returns for each.
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

// Transactions that deadlocked are run again, so many times.
const deadlockRetries = 5

// InTx runs do in a transaction: all of it is committed, events included, or
// none. After a deadlock it runs do again, on a new transaction.
func (s *Store) InTx(ctx context.Context, do func(*Tx) error) error {
	for try := 0; ; try++ {
		err := s.once(ctx, do)
		if try == deadlockRetries || !isDeadlock(err) {
			return err
		}
	}
}

// txTime bounds a transaction; it is longer than what one may wait for, the store
// of file contents. statementTime bounds each of its statements.
const (
	txTime        = 3 * time.Minute
	statementTime = 30 * time.Second
)

// boundTx bounds each statement of a transaction. The context of one lasts until
// the next begins: by then its rows are read.
type boundTx struct {
	tx  *sql.Tx
	end context.CancelFunc
}

func (b *boundTx) begin(ctx context.Context) context.Context {
	b.end()
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

func (s *Store) once(ctx context.Context, do func(*Tx) error) error {
	tx := &Tx{Now: time.Now().UTC().Truncate(time.Microsecond), store: s, trace: traceOf(ctx)}
	committing := false
	err := sqldb.Transact(ctx, s.writer, txTime, s.txOptions, s.session.transaction,
		func(ctx context.Context, begun *sql.Tx) error {
			tx.tx = &boundTx{tx: begun, end: func() {}}
			defer func() { tx.tx.end() }()
			if err := do(tx); err != nil {
				return err
			}
			if len(tx.events) > 0 {
				if err := s.log.Append(ctx, tx.tx, tx.events...); err != nil {
					return known(err)
				}
			}
			committing = true
			return nil
		})
	if err != nil && committing {
		return known(err)
	}
	if err != nil {
		return err
	}
	if len(tx.events) > 0 {
		s.log.Wake()
	}
	for _, do := range tx.after {
		do()
	}
	return nil
}

// statement returns a DB for one statement in the transaction.
func (tx *Tx) statement() *bun.DB { return tx.store.statement(tx.tx) }

// After runs do once the transaction is committed, and not if it is rolled back.
func (tx *Tx) After(do func()) { tx.after = append(tx.after, do) }

// Insert writes a new row and the event that tells of it. The error may be
// [ErrDuplicate] or [ErrReference].
func (tx *Tx) Insert(ctx context.Context, row any, e tidings.Event) error {
	if _, err := tx.statement().NewInsert().Model(row).Exec(ctx); err != nil {
		return fmt.Errorf("insert %s: %w", e.Type, known(err))
	}
	tx.tell(e)
	return nil
}

// Update writes a changed row, found by its primary key, and the event that
// tells of it.
func (tx *Tx) Update(ctx context.Context, row any, e tidings.Event) error {
	result, err := tx.statement().NewUpdate().Model(row).WherePK().Exec(ctx)
	return tx.changed(result, err, "update", e)
}

// Delete removes a row, found by its primary key, and writes the event that
// tells of it.
func (tx *Tx) Delete(ctx context.Context, row any, e tidings.Event) error {
	result, err := tx.statement().NewDelete().Model(row).WherePK().Exec(ctx)
	return tx.changed(result, err, "delete", e)
}

func (tx *Tx) changed(result sql.Result, err error, verb string, e tidings.Event) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, e.Type, known(err))
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

// Touch sets the column last_active_at of a row, of which no event tells.
func (tx *Tx) Touch(ctx context.Context, row any) error {
	_, err := tx.statement().NewUpdate().Model(row).Set("last_active_at = ?", tx.Now).WherePK().Exec(ctx)
	if err != nil {
		return fmt.Errorf("touch: %w", known(err))
	}
	return nil
}

// detailRows is how many rows one statement writes: databases bound how many
// values a statement may have.
const detailRows = 64

// InsertDetails writes rows (a pointer to a row or to a slice) that are part of a
// resource, and no resources of their own; the resource's event tells of them.
func (tx *Tx) InsertDetails(ctx context.Context, rows any) error {
	if err := tx.refuseResource(rows); err != nil {
		return err
	}
	for batch := range batches(rows) {
		if _, err := tx.statement().NewInsert().Model(batch).Exec(ctx); err != nil {
			return fmt.Errorf("insert details: %w", known(err))
		}
	}
	return nil
}

// batches yields a row, or pointers to slices of no more than detailRows rows.
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

// DeleteDetails removes rows that are part of a resource, and says how many.
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
		return 0, fmt.Errorf("delete details: %w", known(err))
	}
	return result.RowsAffected()
}

// refuseResource returns an error for a row with a version: a resource, which
// can't change without an event.
func (tx *Tx) refuseResource(row any) error {
	t := reflect.TypeOf(row)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if tx.store.dialect.Tables().Get(t).HasField("version") {
		return fmt.Errorf("%s is a resource: it can't be written without an event", t)
	}
	return nil
}

// known turns the errors of the two databases into those of this package.
func known(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "23505":
			return ErrDuplicate
		case "23503":
			return ErrReference
		case "22021", "22P05":
			return ErrText
		case "40001", "40P01", "55P03", "57014":
			return &eventlog.UnavailableError{Reason: "others kept rows locked, or a statement took too long", Err: err}
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

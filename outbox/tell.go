package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// Event describes a change of one resource. Type, Action, ID and URL are required.
type Event struct {
	// Type and Action must be in [Options.Types].
	Type   tidings.ResourceType
	Action tidings.Action
	// ID identifies the resource; at most 512 bytes. Events of one resource are
	// delivered in the order in which their transactions committed.
	ID string
	// URL is where receivers read the resource, absolute or relative to an address
	// that they know.
	URL string
	// UserID is the user who caused the change; may be empty.
	UserID string
	// OwnerID is the owner of the resource. It is never sent; it is for
	// [tidings.Endpoint.Filter] and readers of the log.
	OwnerID string
	// Time is when the change was made; zero means now.
	Time time.Time
	// Version increases with each change of the resource, so that a receiver can
	// tell which of two webhooks is newer; 0 means Time in microseconds since 1970.
	Version int64
	// EventID is the webhook-id, which receivers use to detect duplicates; empty
	// means a UUIDv7.
	EventID string
	// Trace is the W3C traceparent that deliveries continue; empty for none.
	Trace string
}

// event returns the event for the log, with defaults filled in.
func (e Event) event(now time.Time) tidings.Event {
	if e.Time.IsZero() {
		e.Time = now
	}
	if e.Version == 0 {
		e.Version = max(e.Time.UnixMicro(), 1)
	}
	return tidings.Event{
		ID: e.EventID, Type: e.Type, Action: e.Action, ResourceID: e.ID, ResourceURL: e.URL,
		UserID: e.UserID, OwnerID: e.OwnerID,
		Time: e.Time.UTC().Truncate(time.Microsecond), ResourceVersion: e.Version, Trace: e.Trace,
	}
}

// Tell writes events in the transaction of the changes that they report: they are
// delivered if and only if it commits. Call it after the changes, last in the
// transaction: a changed row stays locked until the commit, so the events of one
// resource are in the order of its changes.
//
// tx is a [*sql.Tx], a pgx.Tx, or a wrapper of one: bun.Tx, *sqlx.Tx, an *ent.Tx
// with the feature sql/execquery, or the Statement.ConnPool of a *gorm.DB in a
// transaction. It must be a transaction of the database that the outbox was opened
// with.
//
// If receivers could not read an event, Tell returns an error that names the field
// and writes nothing.
func (o *Outbox) Tell(ctx context.Context, tx any, events ...Event) error {
	if o.isClosed() {
		return fmt.Errorf("tell: %w", ErrClosed)
	}
	to, err := execer(tx)
	if err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	rows, now := make([]tidings.Event, len(events)), time.Now()
	for i, e := range events {
		rows[i] = e.event(now)
		if err := o.check(rows[i]); err != nil {
			return fmt.Errorf("tell %q %q: %w", shorten(string(e.Type)), shorten(e.ID), err)
		}
	}
	if err := o.home.log.Append(ctx, to, rows...); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	o.told.Give()
	return nil
}

func shorten(text string) string { return text[:min(len(text), 64)] }

func (o *Outbox) check(e tidings.Event) error {
	if err := e.Check(); err != nil {
		return err
	}
	if !o.options.Types.Has(e.Type, e.Action) {
		return fmt.Errorf("type %q with action %q is not in Options.Types", shorten(string(e.Type)),
			shorten(string(e.Action)))
	}
	if e.ResourceVersion < 0 {
		return fmt.Errorf("version: is negative")
	}
	if strings.ContainsFunc(e.Trace, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || len(e.Trace) > 256 {
		return fmt.Errorf("trace: expected a W3C traceparent")
	}
	return nil
}

func (o *Outbox) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// sqlTx and pgxTx are the method sets of transactions in database/sql and pgx. They
// include Commit to exclude pools, whose writes would be in no transaction.
type (
	sqlTx interface {
		sqldb.Execer
		Commit() error
	}
	pgxTx interface {
		Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
		Commit(ctx context.Context) error
	}
)

func execer(tx any) (sqldb.Execer, error) {
	if v := reflect.ValueOf(tx); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, fmt.Errorf("the transaction is a nil %T", tx)
	}
	if within := wrapped(tx); within != nil {
		return within, nil
	}
	switch tx := tx.(type) {
	case sqlTx:
		return tx, nil
	case pgxTx:
		return pgxExecer{tx}, nil
	}
	return nil, fmt.Errorf("%T is not a transaction: expected a *sql.Tx, a pgx.Tx, or a wrapper of one", tx)
}

// wrapped returns the *sql.Tx embedded in a struct. bun.Tx needs this because its
// own ExecContext reformats statements.
func wrapped(tx any) sqldb.Execer {
	v := reflect.Indirect(reflect.ValueOf(tx))
	if v.Kind() != reflect.Struct {
		return nil
	}
	field := v.FieldByName("Tx")
	if !field.IsValid() || !field.CanInterface() {
		return nil
	}
	within, ok := reflect.TypeAssert[*sql.Tx](field)
	if !ok || within == nil {
		return nil
	}
	return within
}

// pgxExecer adapts a pgx transaction to [sqldb.Execer].
type pgxExecer struct{ tx pgxTx }

// ExecContext implements [sqldb.Execer].
func (e pgxExecer) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	tag, err := e.tx.Exec(ctx, query, args...)
	return rowsAffected(tag.RowsAffected()), err
}

type rowsAffected int64

// LastInsertId implements [sql.Result].
func (rowsAffected) LastInsertId() (int64, error) {
	return 0, fmt.Errorf("PostgreSQL has no last insert id")
}

// RowsAffected implements [sql.Result].
func (n rowsAffected) RowsAffected() (int64, error) { return int64(n), nil }

// Package sqllog is what the SQL homes of the event log share: reading events,
// cursors and parked events through database/sql. Its statements are the common
// part of SQLite's and PostgreSQL's SQL. Times are stored as microseconds since
// 1970 in UTC.
package sqllog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Execer runs a statement: *sql.Tx, *sql.Conn, or a wrapper of one.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Tables reads and writes the tables of a log. Reads and writes may go to
// different pools of the same database.
type Tables struct {
	eventlog.Signal
	reader, writer *sql.DB
}

// New returns the tables behind two pools, which may be the same.
func New(reader, writer *sql.DB) Tables {
	return Tables{Signal: eventlog.NewSignal(), reader: reader, writer: writer}
}

const eventColumns = `id, resource_type, action, resource_id, resource_url, user_id, at, resource_version`

const eventColumnCount = 8

// InsertEvents writes events into a table that has the event columns, in
// statements of no more than 64: SQLite takes ever longer to prepare more. An
// event without an id gets a UUIDv7, in place.
func InsertEvents(ctx context.Context, tx Execer, table string, events []tidings.Event) error {
	const batch = 64
	for len(events) > 0 {
		n := min(batch, len(events))
		args := make([]any, 0, n*eventColumnCount)
		for i := range events[:n] {
			e := &events[i]
			if e.ID == "" {
				id, err := uuid.NewV7()
				if err != nil {
					return fmt.Errorf("make event id: %w", err)
				}
				e.ID = id.String()
			}
			args = append(args, eventArgs(e)...)
		}
		query := "INSERT INTO " + table + " (" + eventColumns + ") VALUES " + Placeholders(n, eventColumnCount)
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("append %s: %w", events[0].Name(), err)
		}
		events = events[n:]
	}
	return nil
}

func eventArgs(e *tidings.Event) []any {
	return []any{
		e.ID, string(e.Type), string(e.Action), e.ResourceID, e.ResourceURL,
		e.UserID, e.Time.UnixMicro(), e.ResourceVersion,
	}
}

// eventTargets returns scan targets for the event columns and a function that
// puts into e what is not scanned directly.
func eventTargets(e *tidings.Event) (targets []any, finish func()) {
	at := new(int64)
	return []any{
		&e.ID, (*string)(&e.Type), (*string)(&e.Action), &e.ResourceID, &e.ResourceURL,
		&e.UserID, at, &e.ResourceVersion,
	}, func() { e.Time = time.UnixMicro(*at).UTC() }
}

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

// Read implements [eventlog.Reader].
func (t *Tables) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	rows, err := t.reader.QueryContext(ctx,
		"SELECT seq, "+eventColumns+" FROM tidings_events WHERE seq > $1 ORDER BY seq LIMIT $2", after, limit)
	if err != nil {
		return nil, fmt.Errorf("read log after %d: %w", after, err)
	}
	defer rows.Close()
	events := make([]tidings.Event, 0, min(limit, 64))
	for rows.Next() {
		var e tidings.Event
		targets, finish := eventTargets(&e)
		if err := rows.Scan(append([]any{&e.Sequence}, targets...)...); err != nil {
			return nil, fmt.Errorf("read log after %d: %w", after, err)
		}
		finish()
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read log after %d: %w", after, err)
	}
	return events, nil
}

// Cursors implements [eventlog.Cursors].
func (t *Tables) Cursors(ctx context.Context) (map[string]eventlog.Cursor, error) {
	rows, err := t.reader.QueryContext(ctx, "SELECT endpoint, seq, disabled, fingerprint FROM tidings_cursors")
	if err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	defer rows.Close()
	cursors := make(map[string]eventlog.Cursor)
	for rows.Next() {
		var c eventlog.Cursor
		if err := rows.Scan(&c.Endpoint, &c.Sequence, &c.Disabled, &c.Fingerprint); err != nil {
			return nil, fmt.Errorf("read cursors: %w", err)
		}
		cursors[c.Endpoint] = c
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	return cursors, nil
}

// SaveCursors implements [eventlog.Cursors].
func (t *Tables) SaveCursors(ctx context.Context, cursors []eventlog.Cursor) error {
	const columns = 5
	return t.inBatches(ctx, len(cursors), func(tx *sql.Tx, from, to int) error {
		args := make([]any, 0, (to-from)*columns)
		for _, c := range cursors[from:to] {
			args = append(args, c.Endpoint, c.Sequence, c.Disabled, c.Fingerprint, time.Now().UnixMicro())
		}
		_, err := tx.ExecContext(ctx, `
			INSERT INTO tidings_cursors (endpoint, seq, disabled, fingerprint, saved_at)
			VALUES `+Placeholders(to-from, columns)+`
			ON CONFLICT (endpoint) DO UPDATE SET
				seq = CASE WHEN excluded.seq > tidings_cursors.seq THEN excluded.seq ELSE tidings_cursors.seq END,
				disabled = excluded.disabled, fingerprint = excluded.fingerprint, saved_at = excluded.saved_at`,
			args...)
		if err != nil {
			return fmt.Errorf("save cursors: %w", err)
		}
		return nil
	})
}

const retryColumns = "endpoint, seq, " + eventColumns + ", attempts, first_at, next_at, dead_at, reason"

const retryColumnCount = 2 + eventColumnCount + 5

// Park implements [eventlog.Retries].
func (t *Tables) Park(ctx context.Context, retries []eventlog.Retry) error {
	return t.inBatches(ctx, len(retries), func(tx *sql.Tx, from, to int) error {
		args := make([]any, 0, (to-from)*retryColumnCount)
		for i := range retries[from:to] {
			r := &retries[from+i]
			args = append(args, r.Endpoint, r.Event.Sequence)
			args = append(args, eventArgs(&r.Event)...)
			args = append(args, r.Attempts, micros(r.First), micros(r.Next), micros(r.Dead), r.Reason)
		}
		_, err := tx.ExecContext(ctx, `
			INSERT INTO tidings_retries (`+retryColumns+`)
			VALUES `+Placeholders(to-from, retryColumnCount)+`
			ON CONFLICT (endpoint, seq) DO UPDATE SET
				attempts = excluded.attempts, first_at = excluded.first_at, next_at = excluded.next_at,
				dead_at = excluded.dead_at, reason = excluded.reason
			WHERE excluded.attempts > 0`, args...)
		if err != nil {
			return fmt.Errorf("park %d events of endpoint %s: %w", len(retries), retries[0].Endpoint, err)
		}
		return nil
	})
}

// inBatches calls do for slices of n rows small enough for one statement, all
// in one transaction.
func (t *Tables) inBatches(ctx context.Context, n int, do func(tx *sql.Tx, from, to int) error) error {
	const batch = 64
	if n == 0 {
		return nil
	}
	tx, err := t.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	for from := 0; from < n; from += batch {
		if err := do(tx, from, min(from+batch, n)); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Unpark implements [eventlog.Retries].
func (t *Tables) Unpark(ctx context.Context, endpoint string, sequence int64) error {
	_, err := t.writer.ExecContext(ctx, "DELETE FROM tidings_retries WHERE endpoint = $1 AND seq = $2", endpoint, sequence)
	if err != nil {
		return fmt.Errorf("unpark event %d of endpoint %s: %w", sequence, endpoint, err)
	}
	return nil
}

// ParkedLanes implements [eventlog.Retries].
func (t *Tables) ParkedLanes(ctx context.Context, endpoint string, limit int) ([]eventlog.Retry, error) {
	return t.retries(ctx, `
		SELECT `+retryColumns+` FROM tidings_retries r
		WHERE endpoint = $1 AND dead_at = 0 AND NOT EXISTS (
			SELECT 1 FROM tidings_retries o
			WHERE o.endpoint = r.endpoint AND o.resource_type = r.resource_type AND o.resource_id = r.resource_id
				AND o.dead_at = 0 AND o.seq < r.seq)
		ORDER BY seq LIMIT $2`, endpoint, limit)
}

// NextParked implements [eventlog.Retries].
func (t *Tables) NextParked(ctx context.Context, endpoint string, e tidings.Event) (eventlog.Retry, bool, error) {
	found, err := t.retries(ctx, `
		SELECT `+retryColumns+` FROM tidings_retries
		WHERE endpoint = $1 AND resource_type = $2 AND resource_id = $3 AND dead_at = 0
		ORDER BY seq LIMIT 1`, endpoint, string(e.Type), e.ResourceID)
	if err != nil || len(found) == 0 {
		return eventlog.Retry{}, false, err
	}
	return found[0], true, nil
}

// DeadLetters implements [eventlog.Retries].
func (t *Tables) DeadLetters(ctx context.Context, endpoint string, after int64, limit int) ([]eventlog.Retry, error) {
	return t.retries(ctx, `
		SELECT `+retryColumns+` FROM tidings_retries
		WHERE endpoint = $1 AND seq > $2 AND dead_at > 0
		ORDER BY seq LIMIT $3`, endpoint, after, limit)
}

func (t *Tables) retries(ctx context.Context, query string, args ...any) ([]eventlog.Retry, error) {
	// The writing pool: a retry must see the row that was parked just before it.
	rows, err := t.writer.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read parked events: %w", err)
	}
	defer rows.Close()
	var found []eventlog.Retry
	for rows.Next() {
		var r eventlog.Retry
		var first, next, dead int64
		event, finish := eventTargets(&r.Event)
		targets := append([]any{&r.Endpoint, &r.Event.Sequence}, event...)
		if err := rows.Scan(append(targets, &r.Attempts, &first, &next, &dead, &r.Reason)...); err != nil {
			return nil, fmt.Errorf("read parked events: %w", err)
		}
		finish()
		r.First, r.Next, r.Dead = fromMicros(first), fromMicros(next), fromMicros(dead)
		found = append(found, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read parked events: %w", err)
	}
	return found, nil
}

// Head returns the position that a statement selects, 0 where there is none.
func (t *Tables) Head(ctx context.Context, query string) (int64, error) {
	var head sql.NullInt64
	err := t.reader.QueryRowContext(ctx, query).Scan(&head)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read head of log: %w", err)
	}
	return head.Int64, nil
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

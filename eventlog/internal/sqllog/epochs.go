package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// seen is the highest position that this process has seen, and its epoch.
type seen struct {
	mu    sync.Mutex
	epoch string
	head  int64
}

// Saw records that the log ended at a position in an epoch.
func (t *Tables) Saw(epoch string, head int64) {
	t.seen.mu.Lock()
	defer t.seen.mu.Unlock()
	if t.seen.epoch != epoch {
		t.seen.epoch, t.seen.head = epoch, head
	}
	t.seen.head = max(t.seen.head, head)
}

// WentBack reports whether this process has seen a higher position in the same
// epoch.
func (t *Tables) WentBack(epoch string, head int64) bool {
	t.seen.mu.Lock()
	defer t.seen.mu.Unlock()
	return t.seen.epoch == epoch && head < t.seen.head
}

// Epoch implements [eventlog.Reader].
func (t *Tables) Epoch() string {
	t.seen.mu.Lock()
	defer t.seen.mu.Unlock()
	return t.seen.epoch
}

// Newest returns an expression: a text of the current epoch, empty before the first.
func (t *Tables) Newest(column string) string {
	return "coalesce((SELECT " + column + " FROM " + t.schema + "tidings_epochs ORDER BY number DESC LIMIT 1), '')"
}

// currentEpoch is an expression: the id of the current epoch.
func (t *Tables) currentEpoch() string { return t.Newest("id") }

// Lasts is a condition: there is an epoch, and [Dialect.Lasts] holds for the current one.
func (t *Tables) Lasts() string { return t.lasts() + " = 'yes'" }

// sameStart is a condition: the current epoch lasts, or none has begun. Until one
// begins, nobody knows what was lost.
func (t *Tables) sameStart() string { return t.lasts() + " <> 'no'" }

func (t *Tables) lasts() string {
	if t.dialect.Lasts == "" {
		return t.Newest("'yes'")
	}
	return t.Newest("CASE WHEN " + t.dialect.Lasts + " THEN 'yes' ELSE 'no' END")
}

// Epochs implements [eventlog.Reader].
func (t *Tables) Epochs(ctx context.Context) (epochs eventlog.Epochs, err error) {
	err = t.on(ctx, t.writer, func(ctx context.Context, conn *sql.Conn) error {
		epochs, err = epochsOf(conn.QueryContext(ctx, t.epochsQuery(), eventlog.MaxEpochs))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read epochs of the log: %w", err)
	}
	return epochs, nil
}

// epochsQuery selects the latest epochs, at most $1, newest first.
func (t *Tables) epochsQuery() string {
	return "SELECT id, base, began_at, beyond FROM " + t.schema + "tidings_epochs ORDER BY number DESC LIMIT $1"
}

// epochsOf reads the rows of [Tables.epochsQuery].
func epochsOf(rows *sql.Rows, err error) (epochs eventlog.Epochs, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e eventlog.Epoch
		var began int64
		if err := rows.Scan(&e.ID, &e.Base, &began, &e.Beyond); err != nil {
			return nil, err
		}
		e.Began = fromMicros(began)
		epochs = append(epochs, e)
	}
	slices.Reverse(epochs)
	return epochs, rows.Err()
}

// BeginEpoch begins an epoch at the end of the log, in a transaction during which
// no other process numbers events. It removes or moves back everything stored for later
// positions, which belong to lost events. start is a string that differs for each
// start of the database.
func (t *Tables) BeginEpoch(ctx context.Context, tx *sql.Tx, base int64, start string) error {
	if t.dialect.LockReplicas != "" { // so that no cursors are created in the meantime
		if _, err := tx.ExecContext(ctx, t.dialect.LockReplicas); err != nil {
			return fmt.Errorf("begin epoch: %w", err)
		}
	}
	earlier, err := epochsOf(tx.QueryContext(ctx, t.epochsQuery(), eventlog.MaxEpochs))
	if err != nil {
		return fmt.Errorf("begin epoch: %w", err)
	}
	id := earlier.NewID(base)
	beyond, err := t.clampCursors(ctx, tx, base)
	if err != nil {
		return fmt.Errorf("begin epoch: %w", err)
	}
	now := time.Now().UnixMicro()
	for _, s := range []struct {
		text string
		args []any
	}{
		{
			"INSERT INTO " + t.schema + "tidings_epochs (id, base, began_at, beyond, start) VALUES " + Placeholders(1, 5),
			[]any{id, base, now, beyond, start},
		},
		{"DELETE FROM " + t.schema + "tidings_epochs WHERE number <= (SELECT max(number) FROM " + t.schema +
			"tidings_epochs) - $1", []any{eventlog.MaxEpochs}},
		{"UPDATE " + t.schema + "tidings_cursors SET epoch = $1", []any{id}},
		{"DELETE FROM " + t.schema + "tidings_retries WHERE seq > $1", []any{base}},
		{"UPDATE " + t.schema + "tidings_replays SET to_seq = $1, position = CASE WHEN position > $1 THEN $1 ELSE " +
			"position END WHERE state = 'running' AND to_seq > $1", []any{base}},
		{
			"UPDATE " + t.schema + "tidings_parked_changes SET to_seq = $1 WHERE state = 'running' AND to_seq > $1",
			[]any{base},
		},
	} {
		if _, err := tx.ExecContext(ctx, s.text, s.args...); err != nil {
			return fmt.Errorf("begin epoch: %w", err)
		}
	}
	if beyond > base {
		text, args := t.loss(base+1, beyond, now)
		if _, err := tx.ExecContext(ctx, text, args...); err != nil {
			return fmt.Errorf("begin epoch: %w", err)
		}
	}
	return nil
}

// clampCursors moves cursors and marks that are beyond the end of the log back to
// it, and returns the position of the highest such cursor.
func (t *Tables) clampCursors(ctx context.Context, tx *sql.Tx, base int64) (beyond int64, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+cursorColumns+" FROM "+t.schema+
		"tidings_cursors ORDER BY endpoint, part"+t.dialect.HoldRows)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var clamped []eventlog.Cursor
	for rows.Next() {
		c, err := scanCursor(rows)
		if err != nil {
			return 0, err
		}
		marks := c.Marks.Until(base).After(min(c.Sequence, base))
		if c.Sequence <= base && marks.String() == c.Marks.String() {
			continue
		}
		if c.Sequence > base {
			beyond = max(beyond, c.Sequence)
		}
		c.Sequence, c.Marks = min(c.Sequence, base), marks
		clamped = append(clamped, c)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, c := range clamped {
		_, err := tx.ExecContext(ctx,
			"UPDATE "+t.schema+"tidings_cursors SET seq = $1, marks = $2 WHERE endpoint = $3 AND part = $4",
			c.Sequence, c.Marks.String(), c.Endpoint, c.Index)
		if err != nil {
			return 0, err
		}
	}
	return beyond, nil
}

// SaveLoss implements [eventlog.Cursors].
func (t *Tables) SaveLoss(ctx context.Context, from, to int64, at time.Time) error {
	text, args := t.loss(from, to, micros(at))
	if _, err := t.Exec(ctx, text, args...); err != nil {
		return fmt.Errorf("record that the database lost events: %w", err)
	}
	return nil
}

func (t *Tables) loss(from, to, at int64) (text string, args []any) {
	return `INSERT INTO ` + t.schema + `tidings_gaps (endpoint, part, from_seq, to_seq, at, reason)
		SELECT endpoint, part, CAST($1 AS bigint), CAST($2 AS bigint), CAST($3 AS bigint), '` +
			string(eventlog.GapLost) + `' FROM ` + t.schema + `tidings_cursors WHERE true
		ON CONFLICT (endpoint, part, from_seq, reason) DO UPDATE SET at = excluded.at,
			to_seq = CASE WHEN excluded.to_seq > tidings_gaps.to_seq THEN excluded.to_seq ELSE tidings_gaps.to_seq END`,
		[]any{from, to, at}
}

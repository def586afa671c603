package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// ExpiryClock returns the time used for expiry, in microseconds. The error is an
// [eventlog.ClockError] if the clock was set forward by more than the retention; it
// lasts for the length of the retention, or until the clock is set back.
func (t *Tables) ExpiryClock(ctx context.Context, keep time.Duration) (clock int64, err error) {
	var refused error
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var ran, jumped, jump int64
		err := tx.QueryRowContext(ctx, "SELECT run_at, jumped_at, jump, "+t.dialect.Now+" FROM "+t.schema+
			"tidings_expiry"+t.dialect.HoldRows).
			Scan(&ran, &jumped, &jump, &clock)
		if err != nil {
			return err
		}
		var next eventlog.ExpiryClock
		next, refused = eventlog.ExpiryClock{
			Ran: fromMicros(ran), Jumped: fromMicros(jumped), Jump: time.Duration(jump) * time.Microsecond,
		}.At(fromMicros(clock), keep)
		_, err = tx.ExecContext(ctx, "UPDATE "+t.schema+"tidings_expiry SET run_at = $1, jumped_at = $2, jump = $3",
			clock, micros(next.Jumped), next.Jump.Microseconds())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("note the time of the expiry: %w", err)
	}
	return clock, refused
}

// PassExpired moves cursors before the oldest event to it, and records and returns
// the gaps.
func (t *Tables) PassExpired(ctx context.Context, oldest int64, at time.Time) (gaps []eventlog.Gap, err error) {
	behind, err := t.Number(ctx, "SELECT count(*) FROM "+t.schema+"tidings_cursors WHERE seq < $1", oldest-1)
	if err != nil || behind == 0 {
		return nil, err
	}
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		gaps = nil
		missed, err := t.behind(ctx, tx, oldest)
		if err != nil {
			return err
		}
		for _, g := range missed {
			g.At = at
			if g, err = t.saveGap(ctx, tx, g); err != nil {
				return err
			}
			if g.From <= g.To {
				gaps = append(gaps, g)
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE "+t.schema+"tidings_cursors SET seq = $1 WHERE seq < $1", oldest-1)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("note what cursors missed: %w", err)
	}
	return gaps, nil
}

// behind returns the gap of each cursor if the log begins at a position. It locks
// these cursors until the end of the transaction.
func (t *Tables) behind(ctx context.Context, tx *sql.Tx, oldest int64) (missed []eventlog.Gap, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT endpoint, part, seq FROM "+t.schema+
		"tidings_cursors WHERE seq < $1 ORDER BY endpoint, part"+
		t.dialect.HoldRows, oldest-1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		g := eventlog.Gap{To: oldest - 1, Reason: eventlog.GapExpired}
		if err := rows.Scan(&g.Endpoint, &g.Index, &g.From); err != nil {
			return nil, err
		}
		g.From++
		missed = append(missed, g)
	}
	return missed, rows.Err()
}

package sqllog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const retryColumns = "endpoint, seq, " + EventColumns + ", attempts, first_at, next_at, dead_at, reason"

const retryColumnCount = 2 + eventColumnCount + 5

// Park implements [eventlog.Retries].
func (t *Tables) Park(ctx context.Context, l eventlog.Lease, retries []eventlog.Retry) error {
	if len(retries) == 0 {
		return nil
	}
	const columns = retryColumnCount + 1
	return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := t.held(ctx, tx, l); err != nil {
			return err
		}
		return inBatches(len(retries), func(from, to int) error {
			args := make([]any, 0, (to-from)*columns)
			for i := range retries[from:to] {
				r := &retries[from+i]
				args = append(args, r.Endpoint, r.Event.Sequence)
				args = append(args, eventArgs(&r.Event)...)
				args = append(args, r.Attempts, micros(r.First), micros(r.Next), micros(r.Dead), r.Reason, eventlog.Lane(r.Event))
			}
			_, err := tx.ExecContext(ctx, `
				INSERT INTO `+t.schema+`tidings_retries (`+retryColumns+`, lane)
				VALUES `+Placeholders(to-from, columns)+`
				ON CONFLICT (endpoint, seq) DO UPDATE SET
					attempts = excluded.attempts, first_at = excluded.first_at, next_at = excluded.next_at,
					dead_at = excluded.dead_at, reason = excluded.reason
				WHERE excluded.next_at > 0 OR excluded.dead_at > 0`, args...)
			if err != nil {
				return fmt.Errorf("park %d events of endpoint %s: %w", len(retries), l.Endpoint, err)
			}
			return nil
		})
	})
}

// Unpark implements [eventlog.Retries].
func (t *Tables) Unpark(ctx context.Context, l eventlog.Lease, sequences ...int64) error {
	return inBatches(len(sequences), func(from, to int) error {
		args := []any{l.Endpoint, l.Index, l.Of, l.Generation, l.Owner, l.Epoch}
		var list []string
		for _, s := range sequences[from:to] {
			args = append(args, s)
			list = append(list, fmt.Sprintf("$%d", len(args)))
		}
		n, err := t.Exec(ctx, `DELETE FROM `+t.schema+`tidings_retries WHERE endpoint = $1 AND seq IN (`+strings.Join(list, ",")+`) AND EXISTS (
			SELECT 1 FROM `+t.schema+`tidings_cursors WHERE endpoint = $1 AND part = $2 AND parts = $3 AND generation = $4 AND owner = $5 AND epoch = $6 AND `+t.sameStart()+`)`, args...)
		if err != nil {
			return fmt.Errorf("unpark events of endpoint %s: %w", l.Endpoint, err)
		}
		if n == int64(to-from) {
			return nil
		}
		return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { // why less than all?
			if err := t.held(ctx, tx, l); !errors.Is(err, eventlog.ErrLeaseLost) {
				return err
			}
			return nil
		})
	})
}

// ParkedLanes implements [eventlog.Retries].
func (t *Tables) ParkedLanes(ctx context.Context, p eventlog.Partition, after int64, limit int) ([]eventlog.Retry, error) {
	return t.retries(ctx, `
		SELECT `+retryColumns+` FROM `+t.schema+`tidings_retries r
		WHERE endpoint = $1 AND dead_at = 0 AND lane % $2 = $3 AND NOT EXISTS (
			SELECT 1 FROM `+t.schema+`tidings_retries o
			WHERE o.endpoint = r.endpoint AND o.resource_type = r.resource_type AND o.resource_id = r.resource_id
				AND o.dead_at = 0 AND o.seq < r.seq)
			AND seq > $4
		ORDER BY seq LIMIT $5`, p.Endpoint, int64(max(p.Of, 1)), int64(p.Index), after, limit)
}

// Due implements [eventlog.Retries].
func (t *Tables) Due(ctx context.Context, p eventlog.Partition, now time.Time, limit int) (due []eventlog.Retry, next time.Time, err error) {
	due, err = t.retries(ctx, `
		SELECT `+retryColumns+` FROM `+t.schema+`tidings_retries
		WHERE endpoint = $1 AND dead_at = 0 AND next_at > 0 AND next_at <= $2 AND lane % $3 = $4
		ORDER BY next_at LIMIT $5`, p.Endpoint, micros(now), int64(max(p.Of, 1)), int64(p.Index), limit)
	if err != nil {
		return nil, time.Time{}, err
	}
	err = t.query(ctx, t.writer, "parked events", func(rows *sql.Rows) error {
		var at int64
		err := rows.Scan(&at)
		next = fromMicros(at)
		return err
	}, `SELECT next_at FROM `+t.schema+`tidings_retries
		WHERE endpoint = $1 AND dead_at = 0 AND next_at > $2 AND lane % $3 = $4
		ORDER BY next_at LIMIT 1`, p.Endpoint, max(micros(now), 0), int64(max(p.Of, 1)), int64(p.Index))
	return due, next, err
}

// Requeue implements [eventlog.Retries].
func (t *Tables) Requeue(ctx context.Context, l eventlog.Lease, reason string, since, now time.Time) (n int64, err error) {
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := t.held(ctx, tx, l); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `
			UPDATE `+t.schema+`tidings_retries SET next_at = $1
			WHERE endpoint = $2 AND dead_at = 0 AND next_at > $1 AND reason = $3 AND first_at >= $4 AND lane % $5 = $6`,
			micros(now), l.Endpoint, reason, micros(since), int64(max(l.Of, 1)), int64(l.Index))
		if err == nil {
			n, err = result.RowsAffected()
		}
		if err != nil {
			return fmt.Errorf("requeue events of endpoint %s: %w", l.Endpoint, err)
		}
		return nil
	})
	return n, err
}

// NextParked implements [eventlog.Retries].
func (t *Tables) NextParked(ctx context.Context, endpoint string, e tidings.Event, limit int) ([]eventlog.Retry, error) {
	return t.retries(ctx, `
		SELECT `+retryColumns+` FROM `+t.schema+`tidings_retries
		WHERE endpoint = $1 AND resource_type = $2 AND resource_id = $3 AND dead_at = 0
		ORDER BY seq LIMIT $4`, endpoint, string(e.Type), e.ResourceID, limit)
}

// Parked implements [eventlog.Retries].
func (t *Tables) Parked(ctx context.Context, f eventlog.ParkedFilter) ([]eventlog.Retry, error) {
	var c conditions
	c.add(f.Endpoint != "", "endpoint = $%d", f.Endpoint)
	c.add(f.Sequence != 0, "seq = $%d", f.Sequence)
	c.add(f.ID != "", "id = $%d", f.ID)
	c.add(f.Dead, "dead_at > $%d", int64(0))
	c.add(true, "seq > $%d", f.After)
	return t.retries(ctx, "SELECT "+retryColumns+" FROM "+t.schema+"tidings_retries"+c.where()+
		fmt.Sprintf(" ORDER BY seq, endpoint LIMIT $%d", len(c.args)+1), append(c.args, f.Limit)...)
}

// ParkedCounts implements [eventlog.Archive].
func (t *Tables) ParkedCounts(ctx context.Context) (map[string]eventlog.ParkedCount, error) {
	counts := make(map[string]eventlog.ParkedCount)
	err := t.query(Slow(ctx), t.reader, "numbers of parked events", func(rows *sql.Rows) error {
		var endpoint string
		var c eventlog.ParkedCount
		err := rows.Scan(&endpoint, &c.Live, &c.Dead)
		counts[endpoint] = c
		return err
	}, "SELECT endpoint, live, dead FROM "+t.schema+"tidings_parked WHERE live > 0 OR dead > 0")
	return counts, err
}

func (t *Tables) retries(ctx context.Context, text string, args ...any) ([]eventlog.Retry, error) {
	var found []eventlog.Retry
	// The writing pool: a retry must see the row that was parked just before it.
	err := t.query(ctx, t.writer, "parked events", func(rows *sql.Rows) error {
		var r eventlog.Retry
		var first, next, dead int64
		event, finish := eventTargets(&r.Event)
		targets := append([]any{&r.Endpoint, &r.Event.Sequence}, event...)
		if err := rows.Scan(append(targets, &r.Attempts, &first, &next, &dead, &r.Reason)...); err != nil {
			return err
		}
		finish()
		r.First, r.Next, r.Dead = fromMicros(first), fromMicros(next), fromMicros(dead)
		found = append(found, r)
		return nil
	}, text, args...)
	return found, err
}

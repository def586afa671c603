package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const retryColumns = "endpoint, seq, " + EventColumns + ", attempts, first_at, next_at, dead_at, reason, " +
	"detail, response, last_at"

const retryColumnCount = 2 + eventColumnCount + 8

// Park implements [eventlog.Retries].
func (t *Tables) Park(ctx context.Context, all ...eventlog.Parking) (refused map[eventlog.Lease]error, err error) {
	err = t.Transact(ctx, t.dialect.BeginHolding, func(ctx context.Context, tx *sql.Tx) error {
		refused, err = t.refused(ctx, tx, all)
		if err != nil {
			return err
		}
		var retries []*eventlog.Retry
		var done []any
		for i := range all {
			p := &all[i]
			if refused[p.Lease] != nil {
				continue
			}
			for i := range p.Retries {
				retries = append(retries, &p.Retries[i])
			}
			for _, sequence := range p.Done {
				done = append(done, p.Lease.Endpoint, sequence)
			}
		}
		if err := t.removeRetries(ctx, tx, done); err != nil {
			return err
		}
		return t.writeRetries(ctx, tx, retries)
	})
	return refused, err
}

// refused returns the leases under which writes are refused, and why. The others
// are held until the end of the transaction.
func (t *Tables) refused(ctx context.Context, tx *sql.Tx, all []eventlog.Parking) (map[eventlog.Lease]error, error) {
	refused := make(map[eventlog.Lease]error)
	err := inBatches(len(all), func(from, to int) error {
		args := make([]any, 0, 3*(to-from))
		found := make(map[eventlog.Partition]eventlog.Lease)
		for _, p := range all[from:to] {
			args = append(args, p.Lease.Endpoint, p.Lease.Index, p.Lease.Of)
		}
		rows, err := tx.QueryContext(ctx, typed(to-from, "endpoint text", "part bigint", "parts bigint")+
			`SELECT c.endpoint, c.part, c.parts, c.owner, c.generation, CASE WHEN `+t.sameStart()+
			` THEN c.epoch ELSE 'not begun' END FROM v JOIN `+t.schema+`tidings_cursors c
			ON c.endpoint = v.endpoint AND c.part = v.part AND c.parts = v.parts`, args...)
		if err != nil {
			return fmt.Errorf("check leases: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var l eventlog.Lease
			if err := rows.Scan(&l.Endpoint, &l.Index, &l.Of, &l.Owner, &l.Generation, &l.Epoch); err != nil {
				return fmt.Errorf("check leases: %w", err)
			}
			found[l.Partition] = l
		}
		for _, p := range all[from:to] {
			if err := p.Lease.Refused(found[p.Lease.Partition]); err != nil {
				refused[p.Lease] = err
			}
		}
		return rows.Err()
	})
	return refused, err
}

func (t *Tables) writeRetries(ctx context.Context, tx *sql.Tx, retries []*eventlog.Retry) error {
	const columns = retryColumnCount + 1
	return inBatches(len(retries), func(from, to int) error {
		args := make([]any, 0, (to-from)*columns)
		for _, r := range retries[from:to] {
			args = append(args, r.Endpoint, r.Event.Sequence)
			args = append(args, eventArgs(&r.Event)...)
			args = append(args, r.Attempts, micros(r.First), micros(r.Next), micros(r.Dead),
				r.Reason, r.Detail, r.Response, micros(r.Last), eventlog.PartitionKey(r.Event))
		}
		_, err := tx.ExecContext(ctx, `
			INSERT INTO `+t.schema+`tidings_retries AS r (`+retryColumns+`, lane)
			VALUES `+Placeholders(to-from, columns)+`
			ON CONFLICT (endpoint, seq) DO UPDATE SET
				attempts = excluded.attempts, first_at = excluded.first_at, next_at = excluded.next_at,
				dead_at = excluded.dead_at, reason = excluded.reason, detail = excluded.detail,
				response = excluded.response, last_at = excluded.last_at
			WHERE r.dead_at >= 0 AND (excluded.next_at > 0 OR excluded.dead_at > 0)`, args...)
		if err != nil {
			return fmt.Errorf("park %d events: %w", to-from, err)
		}
		return nil
	})
}

// removeRetries removes rows. keys alternates endpoints and positions.
func (t *Tables) removeRetries(ctx context.Context, tx *sql.Tx, keys []any) error {
	return inBatches(len(keys)/2, func(from, to int) error {
		_, err := tx.ExecContext(ctx, typed(to-from, "endpoint text", "seq bigint")+
			`DELETE FROM `+t.schema+`tidings_retries WHERE (endpoint, seq) IN (SELECT endpoint, seq FROM v)`,
			keys[2*from:2*to]...)
		if err != nil {
			return fmt.Errorf("unpark %d events: %w", to-from, err)
		}
		return nil
	})
}

// ParkedLanes implements [eventlog.Retries].
func (t *Tables) ParkedLanes(
	ctx context.Context, p eventlog.Partition, after int64, limit int,
) ([]eventlog.Retry, error) {
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
func (t *Tables) Due(
	ctx context.Context, p eventlog.Partition, now time.Time, limit int,
) (due []eventlog.Retry, next time.Time, err error) {
	due, err = t.retries(ctx, `
		SELECT `+retryColumns+` FROM `+t.schema+`tidings_retries
		WHERE endpoint = $1 AND dead_at = 0 AND next_at > 0 AND next_at <= $2 AND lane % $3 = $4
		ORDER BY next_at LIMIT $5`, p.Endpoint, micros(now), int64(max(p.Of, 1)), int64(p.Index), limit)
	if err != nil {
		return nil, time.Time{}, err
	}
	// The index has only rows with next_at > 0, which a parameter does not imply.
	err = t.query(ctx, t.reader, "parked events", func(rows *sql.Rows) error {
		var at int64
		err := rows.Scan(&at)
		next = fromMicros(at)
		return err
	}, `SELECT next_at FROM `+t.schema+`tidings_retries
		WHERE endpoint = $1 AND dead_at = 0 AND next_at > 0 AND next_at > $2 AND lane % $3 = $4
		ORDER BY next_at LIMIT 1`, p.Endpoint, max(micros(now), 0), int64(max(p.Of, 1)), int64(p.Index))
	return due, next, err
}

// requeueRows is how many parked events one transaction of Requeue examines, so
// that writers need not wait long.
const requeueRows = 1000

// Requeue implements [eventlog.Retries].
func (t *Tables) Requeue(
	ctx context.Context, l eventlog.Lease, reason string, since, now time.Time,
) (n int64, err error) {
	for after := int64(0); ; {
		to, err := t.Number(ctx, `SELECT max(seq) FROM (SELECT seq FROM `+t.schema+`tidings_retries
			WHERE endpoint = $1 AND seq > $2 ORDER BY seq LIMIT $3) page`, l.Endpoint, after, requeueRows)
		if err != nil || (to == 0 && after > 0) {
			return n, err
		}
		err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := t.held(ctx, tx, l); err != nil {
				return err
			}
			result, err := tx.ExecContext(ctx, `
				UPDATE `+t.schema+`tidings_retries SET next_at = $1
				WHERE endpoint = $2 AND dead_at = 0 AND next_at > $1 AND reason = $3 AND first_at >= $4 AND lane % $5 = $6
					AND seq > $7 AND seq <= $8`,
				micros(now), l.Endpoint, reason, micros(since), int64(max(l.Of, 1)), int64(l.Index), after, to)
			if err != nil {
				return fmt.Errorf("requeue events of endpoint %s: %w", l.Endpoint, err)
			}
			changed, err := result.RowsAffected()
			n += changed
			return err
		})
		if err != nil || to == 0 {
			return n, err
		}
		after = to
	}
}

// NextParked implements [eventlog.Retries].
func (t *Tables) NextParked(
	ctx context.Context, endpoint string, e tidings.Event, limit int,
) ([]eventlog.Retry, error) {
	return t.retries(ctx, `
		SELECT `+retryColumns+` FROM `+t.schema+`tidings_retries
		WHERE endpoint = $1 AND resource_type = $2 AND resource_id = $3 AND dead_at = 0
		ORDER BY seq LIMIT $4`, endpoint, string(e.Type), e.ResourceID, limit)
}

// Parked implements [eventlog.Retries].
func (t *Tables) Parked(ctx context.Context, f eventlog.ParkedFilter) ([]eventlog.Retry, error) {
	c := parkedConditions(f)
	if f.AfterEndpoint == "" {
		c.add(true, "seq > $%d", f.After)
	} else {
		c.add(true, "seq >= $%d", f.After)
		c.add(true, fmt.Sprintf("(seq > $%d OR endpoint > $%%d)", len(c.args)), f.AfterEndpoint)
	}
	found, err := t.retries(ctx, "SELECT "+retryColumns+" FROM "+t.schema+"tidings_retries"+c.where()+
		fmt.Sprintf(" ORDER BY seq, endpoint LIMIT $%d", len(c.args)+1), append(c.args, f.Limit)...)
	if err != nil {
		return nil, err
	}
	return found, t.findBehind(ctx, found)
}

// parkedConditions returns the conditions of a filter, except for where it starts.
func parkedConditions(f eventlog.ParkedFilter) (c conditions) {
	c.add(f.Endpoint != "", "endpoint = $%d", f.Endpoint)
	c.add(f.Sequence != 0, "seq = $%d", f.Sequence)
	c.add(f.ID != "", "id = $%d", f.ID)
	if f.Dead {
		c.texts = append(c.texts, "dead_at > 0") // no parameter: as in its index
	} else {
		c.texts = append(c.texts, "dead_at >= 0")
	}
	c.add(f.Reason != "", "reason = $%d", f.Reason)
	c.addResource(f.Resource)
	c.addPatterns(f.Patterns)
	return c
}

func (t *Tables) retries(ctx context.Context, text string, args ...any) ([]eventlog.Retry, error) {
	var found []eventlog.Retry
	err := t.query(ctx, t.reader, "parked events", func(rows *sql.Rows) error {
		r, err := scanRetry(rows)
		found = append(found, r)
		return err
	}, text, args...)
	return found, err
}

// scanRetry scans the retry columns.
func scanRetry(rows *sql.Rows) (r eventlog.Retry, err error) {
	var first, next, dead, last int64
	event, finish := eventTargets(&r.Event)
	targets := append([]any{&r.Endpoint, &r.Event.Sequence}, event...)
	err = rows.Scan(append(targets, &r.Attempts, &first, &next, &dead, &r.Reason, &r.Detail, &r.Response, &last)...)
	finish()
	r.First, r.Next, r.Last = fromMicros(first), fromMicros(next), fromMicros(last)
	r.Dead = fromMicros(max(dead, 0))
	return r, err
}

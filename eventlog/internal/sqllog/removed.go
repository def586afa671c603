package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// removeBatch is how many parked events are deleted at once, so that writers need
// not wait long.
const removeBatch = 1000

// ExpireEndpoints implements [eventlog.Expirer]. It removes the cursor first, and
// then in steps whatever belongs to no cursor.
func (t *Tables) ExpireEndpoints(ctx context.Context, age time.Duration) ([]eventlog.Removed, error) {
	if _, err := t.ExpiryClock(ctx, max(age, 0)); err != nil {
		return nil, err
	}
	var gone []eventlog.Removed
	err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		gone = nil
		rows, err := tx.QueryContext(ctx, `SELECT endpoint, min(seq) FROM `+t.schema+`tidings_cursors GROUP BY endpoint
			HAVING min(removed_at) > 0 AND max(removed_at) < `+t.dialect.Now+` - CAST($1 AS bigint)
				AND count(CASE WHEN owner IN (SELECT id FROM `+t.schema+`tidings_replicas) THEN 1 END) = 0`,
			age.Microseconds())
		if err == nil {
			gone, err = collect(rows, func(rows *sql.Rows) (r eventlog.Removed, err error) {
				return r, rows.Scan(&r.Endpoint, &r.Cursor)
			})
		}
		if err != nil {
			return fmt.Errorf("find removed endpoints: %w", err)
		}
		for _, r := range gone {
			for _, table := range []string{"tidings_cursors", "tidings_gaps", "tidings_states", "tidings_series"} {
				if _, err := tx.ExecContext(ctx, "DELETE FROM "+t.schema+table+" WHERE endpoint = $1",
					r.Endpoint); err != nil {
					return fmt.Errorf("remove endpoint %s from %s: %w", r.Endpoint, table, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	parked, err := t.forgetOrphans(ctx)
	for i, r := range gone {
		gone[i].Parked = parked[r.Endpoint]
		delete(parked, r.Endpoint)
	}
	for endpoint, n := range parked {
		gone = append(gone, eventlog.Removed{Endpoint: endpoint, Parked: n})
	}
	return gone, err
}

// forgetOrphans removes the data of endpoints without a cursor, and returns the
// number of parked events removed by endpoint.
func (t *Tables) forgetOrphans(ctx context.Context) (map[string]int64, error) {
	removed := make(map[string]int64)
	cursors := t.schema + "tidings_cursors"
	orphaned := " NOT IN (SELECT endpoint FROM " + cursors + " UNION SELECT former FROM " + cursors + ")"
	if _, err := t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_controls WHERE endpoint"+orphaned); err != nil {
		return removed, fmt.Errorf("remove controls of removed endpoints: %w", err)
	}
	var names []string
	err := t.query(ctx, t.reader, "parked events of removed endpoints", func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		names = append(names, name)
		return err
	}, "SELECT endpoint FROM "+t.schema+"tidings_parked WHERE endpoint"+orphaned)
	if err != nil {
		return removed, err
	}
	for _, name := range names {
		n, err := t.removeParked(ctx, name, "endpoint"+orphaned)
		if n > 0 {
			removed[name] = n
		}
		if err == nil {
			_, err = t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_parked WHERE endpoint = $1 AND live = 0 AND dead = 0",
				name)
		}
		if err != nil {
			return removed, fmt.Errorf("remove parked events of endpoint %s: %w", name, err)
		}
	}
	return removed, nil
}

// removeParked removes the parked events of an endpoint that meet a condition, in
// steps, and returns how many. Each step starts where the last one ended; starting
// from the beginning, it would scan all the dead rows again.
func (t *Tables) removeParked(ctx context.Context, endpoint, condition string) (removed int64, err error) {
	table := t.schema + "tidings_retries"
	for after := int64(0); ; {
		end, err := t.Number(ctx, "SELECT max(seq) FROM (SELECT seq FROM "+table+
			" WHERE endpoint = $1 AND seq > $2 ORDER BY seq LIMIT $3) step", endpoint, after, removeBatch)
		if err != nil || end == 0 {
			return removed, err
		}
		n, err := t.Exec(ctx, "DELETE FROM "+table+" WHERE endpoint = $1 AND seq > $2 AND seq <= $3 AND "+
			condition, endpoint, after, end)
		removed += n
		if err != nil {
			return removed, err
		}
		after = end
	}
}

// ExpireDead implements [eventlog.Expirer].
func (t *Tables) ExpireDead(ctx context.Context, before time.Time) (map[string]int64, error) {
	removed := make(map[string]int64)
	for {
		n := 0
		err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			rows, err := tx.QueryContext(ctx, `DELETE FROM `+t.schema+`tidings_retries WHERE (endpoint, seq) IN (
				SELECT endpoint, seq FROM `+t.schema+`tidings_retries WHERE dead_at > 0 AND dead_at < $1 LIMIT $2)
				RETURNING endpoint`,
				before.UnixMicro(), removeBatch)
			if err != nil {
				return err
			}
			names, err := collect(rows, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) })
			for _, name := range names {
				removed[name]++
			}
			n = len(names)
			return err
		})
		if err != nil {
			return removed, fmt.Errorf("remove old dead letters: %w", err)
		}
		if n < removeBatch {
			return removed, nil
		}
	}
}

// collect scans all rows and closes them.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (all []T, err error) {
	defer rows.Close()
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

package sqllog

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Migrations are the migrations of both databases that need Go, by number.
var Migrations = map[int64]func(ctx context.Context, tx *sql.Tx, schema string) error{
	7: fillLanes,
}

// laneBatch is how many rows fillLanes reads and writes at a time.
const laneBatch = 500

// fillLanes computes the partition key (column "lane") of events that were parked
// before the column existed. With its default of 0 they would all be in the first
// partition, regardless of their resource.
func fillLanes(ctx context.Context, tx *sql.Tx, schema string) error {
	type row struct {
		endpoint string
		seq      int64
		lane     int64
	}
	for last := (row{}); ; {
		rows, err := tx.QueryContext(ctx, `SELECT endpoint, seq, resource_type, resource_id FROM `+schema+
			`tidings_retries
			WHERE lane = 0 AND (endpoint, seq) > ($1, $2) ORDER BY endpoint, seq LIMIT $3`,
			last.endpoint, last.seq, laneBatch)
		if err != nil {
			return fmt.Errorf("read parked events without a lane: %w", err)
		}
		var batch []row
		for rows.Next() {
			var r row
			var e tidings.Event
			if err := rows.Scan(&r.endpoint, &r.seq, (*string)(&e.Type), &e.ResourceID); err != nil {
				return fmt.Errorf("read parked events without a lane: %w", err)
			}
			r.lane = eventlog.PartitionKey(e)
			batch = append(batch, r)
		}
		if err := rows.Close(); err != nil || len(batch) == 0 {
			return err
		}
		last = batch[len(batch)-1]
		err = inBatches(len(batch), func(from, to int) error {
			var args []any
			for _, r := range batch[from:to] {
				args = append(args, r.endpoint, r.seq, r.lane)
			}
			_, err := tx.ExecContext(ctx, typed(to-from, "endpoint text", "seq bigint", "lane bigint")+
				`UPDATE `+schema+`tidings_retries SET lane = v.lane FROM v
				WHERE tidings_retries.endpoint = v.endpoint AND tidings_retries.seq = v.seq`, args...)
			return err
		})
		if err != nil {
			return fmt.Errorf("set the lanes of parked events: %w", err)
		}
	}
}

package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
)

// partitioned is a table that is partitioned by time, in microseconds. The names
// of its partitions hold their bounds, and each begins where the last one ends.
type partitioned struct {
	log    *Log
	schema string // what goes before the names of tables
	table  string
	column string
	width  time.Duration

	mu    sync.Mutex
	until int64 // up to where there are partitions
}

// partitionLockTime bounds how long a change of partitions may keep others waiting;
// removing the files of one may take a while.
const partitionLockTime = "SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '30s'"

// lockName waits for an advisory lock and holds it until the end of the
// transaction. The name has the schema in it: other logs in the database are not
// kept waiting.
const lockName = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"

// ensure makes sure that there is a partition for what is written at a time and
// some while after it.
func (p *partitioned) ensure(ctx context.Context, clock int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ahead := clock + p.width.Microseconds()/2
	if ahead < p.until {
		return nil
	}
	until := int64(0)
	err := p.change(ctx, func(ctx context.Context, tx *sql.Tx, partitions []partition) error {
		until = 0
		for _, existing := range partitions {
			until = max(until, existing.to)
		}
		if ahead < until {
			return nil // another replica was faster
		}
		next := partition{from: until, to: max(until, clock) + p.width.Microseconds()}
		name := next.name(p.table)
		// Attached, not created in its place: that keeps no reader waiting.
		_, err := tx.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE %[1]s (LIKE %[2]s INCLUDING ALL, CHECK (%[5]s >= %[3]d AND %[5]s < %[4]d));
			ALTER TABLE %[2]s ATTACH PARTITION %[1]s FOR VALUES FROM (%[3]d) TO (%[4]d)`,
			p.schema+name, p.schema+p.table, next.from, next.to, p.column))
		if err != nil {
			return fmt.Errorf("add partition %s: %w", name, err)
		}
		until = next.to
		return nil
	})
	if err == nil { // only what was committed is there
		p.until = until
	}
	return err
}

// forget has ensure look again at which partitions there are: after a failover the
// last one may be gone.
func (p *partitioned) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = 0
}

// dropBefore drops partitions that end before a time, except for the last one.
func (p *partitioned) dropBefore(ctx context.Context, before time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change(sqllog.Slow(ctx), func(ctx context.Context, tx *sql.Tx, partitions []partition) error {
		for _, existing := range partitions {
			if existing.to > before.UnixMicro() || len(partitions) == 1 {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DROP TABLE "+p.schema+existing.name(p.table)); err != nil {
				return fmt.Errorf("drop partition %s: %w", existing.name(p.table), err)
			}
		}
		return nil
	})
}

type partition struct{ from, to int64 }

func (p partition) name(table string) string { return fmt.Sprintf("%s_%d_%d", table, p.from, p.to) }

// change runs do with the partitions that there are; nobody else changes them
// meanwhile.
func (p *partitioned) change(ctx context.Context, do func(context.Context, *sql.Tx, []partition) error) error {
	err := p.log.Transact(ctx, bound+"; "+partitionLockTime, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, lockName, p.schema+p.table); err != nil {
			return err
		}
		partitions, err := p.list(ctx, tx)
		if err != nil {
			return err
		}
		return do(ctx, tx, partitions)
	})
	if err != nil {
		return fmt.Errorf("partitions of %s: %w", p.table, err)
	}
	return nil
}

func (p *partitioned) list(ctx context.Context, tx *sql.Tx) ([]partition, error) {
	rows, err := tx.QueryContext(ctx, "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = to_regclass($1)",
		p.schema+p.table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var partitions []partition
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		bounds := strings.Split(strings.TrimPrefix(name, p.table+"_"), "_")
		if len(bounds) != 2 {
			continue // somebody else's
		}
		from, err1 := strconv.ParseInt(bounds[0], 10, 64)
		to, err2 := strconv.ParseInt(bounds[1], 10, 64)
		if err1 == nil && err2 == nil {
			partitions = append(partitions, partition{from, to})
		}
	}
	return partitions, rows.Err()
}

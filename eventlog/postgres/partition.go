package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
)

// partitioned is a table partitioned by time, in microseconds. The names of its
// partitions contain their bounds, and each begins where the previous one ends.
type partitioned struct {
	log    *Log
	schema string // prefix of table names
	table  string
	column string
	width  time.Duration

	mu           sync.Mutex
	since, until int64     // partitions cover everything in between
	retry        time.Time // when to retry adding one after a failure
}

// Changing partitions waits for other operations on the table, such as VACUUM,
// ANALYZE or CREATE INDEX. If it is not urgent, it gives up soon and is retried
// later.
const (
	patientLockTime = "SET LOCAL lock_timeout = '3s'"
	hastyLockTime   = "SET LOCAL lock_timeout = '50ms'"
)

// lockName takes an advisory lock until the end of the transaction. The name
// includes the schema, so that other logs in the database are not blocked.
const lockName = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"

// ensure makes sure that there is a partition for rows written at a time. It adds
// the next one a whole width ahead. As long as the current one suffices, failing to
// add the next is not an error.
func (p *partitioned) ensure(ctx context.Context, clock int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ahead := clock + p.width.Microseconds()
	if !p.room(clock) {
		partitions, _, err := p.list(ctx, p.log.db)
		if err != nil {
			return fmt.Errorf("partitions of %s: %w", p.table, err)
		}
		p.since, p.until = around(partitions, clock)
	}
	room := p.room(clock)
	if room && (ahead < p.until || time.Now().Before(p.retry)) {
		return nil
	}
	lockTime := patientLockTime
	if room {
		lockTime = hastyLockTime
	}
	var since, until int64
	err := p.change(ctx, lockTime, func(ctx context.Context, tx *sql.Tx, partitions []partition) (err error) {
		for _, at := range []int64{clock, ahead} {
			if partitions, err = p.cover(ctx, tx, partitions, at); err != nil {
				return err
			}
		}
		since, until = around(partitions, clock)
		return nil
	})
	if err == nil { // only committed partitions count
		p.since, p.until = since, until
		return nil
	}
	p.retry = time.Now().Add(min(max(p.width/20, 50*time.Millisecond), time.Minute))
	if room && ctx.Err() == nil {
		return nil
	}
	return err
}

func (p *partitioned) room(clock int64) bool { return p.since <= clock && clock < p.until }

// cover adds a partition that contains a time unless there is one. It spans from
// the end of the previous partition to one width after the time, or to the next
// partition. It returns all partitions, sorted.
func (p *partitioned) cover(ctx context.Context, tx *sql.Tx, partitions []partition, at int64) ([]partition, error) {
	width := p.width.Microseconds()
	next := partition{from: at - width, to: at + width}
	for _, existing := range partitions { // sorted
		switch {
		case existing.to <= at:
			next.from = existing.to
		case existing.from > at:
			next.to = min(next.to, existing.from)
		default:
			return partitions, nil
		}
	}
	name := next.name(p.table)
	// Attach a table rather than create a partition, which would block readers.
	_, err := tx.ExecContext(ctx,
		fmt.Sprintf(`CREATE TABLE %[1]s (LIKE %[2]s INCLUDING ALL, CHECK (%[5]s >= %[3]d AND %[5]s < %[4]d));
		ALTER TABLE %[2]s ATTACH PARTITION %[1]s FOR VALUES FROM (%[3]d) TO (%[4]d)`,
			p.schema+name, p.schema+p.table, next.from, next.to, p.column))
	if err != nil {
		return nil, fmt.Errorf("add partition %s: %w", name, err)
	}
	return sorted(append(partitions, next)), nil
}

// around returns the bounds of the contiguous partitions around a time.
func around(partitions []partition, at int64) (since, until int64) {
	for _, existing := range partitions { // sorted
		if existing.from != until {
			if until > at {
				break
			}
			since = existing.from
		}
		until = existing.to
	}
	return since, until
}

func sorted(partitions []partition) []partition {
	slices.SortFunc(partitions, func(a, b partition) int { return cmp.Compare(a.from, b.from) })
	return partitions
}

// forget makes ensure read the partitions again: after a failover the last one may
// be gone.
func (p *partitioned) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.until = 0, 0
}

// detachTime bounds waiting for transactions that read the table. That blocks
// nobody else and is resumed the next time. Dropping a table's files may take
// longer, up to dropTime.
const (
	detachTime = 3 * time.Second
	dropTime   = 30 * time.Second
)

// dropBefore drops partitions that ended longer ago than keep. It blocks neither
// readers nor writers of the table. The last one stays, so a table that nobody
// wrote to since gets a new one.
func (p *partitioned) dropBefore(ctx context.Context, clock int64, keep time.Duration) error {
	before := clock - keep.Microseconds()
	partitions, _, err := p.list(ctx, p.log.db)
	if n := len(partitions); err == nil && n > 0 && partitions[n-1].to <= before {
		err = p.ensure(ctx, clock)
	}
	if err == nil {
		err = p.drop(ctx, before)
	}
	p.forget() // what was dropped covers nothing, should the clock go back
	if err != nil {
		return fmt.Errorf("drop partitions of %s: %w", p.table, err)
	}
	return nil
}

func (p *partitioned) drop(ctx context.Context, before int64) error {
	partitions, detached, err := p.list(ctx, p.log.db)
	if err != nil {
		return err
	}
	for _, existing := range partitions[:max(len(partitions)-1, 0)] {
		if existing.to > before {
			break
		}
		how := "CONCURRENTLY"
		if existing.pending { // an earlier detach was interrupted
			how = "FINALIZE"
		}
		// Not in a transaction: PostgreSQL uses two of its own.
		statement := "ALTER TABLE " + p.schema + p.table + " DETACH PARTITION " + p.schema +
			existing.name(p.table) + " " + how
		if err := p.step(ctx, detachTime, statement); err != nil {
			return err
		}
		detached = append(detached, existing)
	}
	for _, old := range detached {
		if old.to > before {
			continue
		}
		if err := p.step(ctx, dropTime, "DROP TABLE IF EXISTS "+p.schema+old.name(p.table)); err != nil {
			return err
		}
	}
	return nil
}

// step runs a statement outside of a transaction.
func (p *partitioned) step(ctx context.Context, limit time.Duration, statement string) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := p.log.db.ExecContext(limited, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// farAhead returns a time that partitions reach only if they were added while the
// clock was wrong.
func (p *partitioned) farAhead(clock int64) int64 {
	return clock + 3*max(p.width, 24*time.Hour).Microseconds()
}

// cut shortens or removes partitions that were added while the clock was far ahead,
// and gives the rows written then the current time; otherwise they would stay for
// as long as it was ahead. It returns a notice for each.
func (p *partitioned) cut(ctx context.Context, clock int64) (done []string, err error) {
	partitions, _, err := p.list(ctx, p.log.db)
	if err != nil || len(partitions) == 0 || partitions[len(partitions)-1].to <= p.farAhead(clock) {
		return nil, err
	}
	if err := p.ensure(ctx, clock); err != nil {
		return nil, err
	}
	defer p.forget()
	err = p.log.InTx(sqllog.Slow(ctx), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, fmt.Sprintf("UPDATE %s SET %s = $1 WHERE %[2]s > $2", p.schema+p.table, p.column),
			clock, clock+p.width.Microseconds())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("correct times of %s: %w", p.table, err)
	}
	if partitions, _, err = p.list(ctx, p.log.db); err != nil {
		return nil, err
	}
	for _, existing := range slices.Backward(partitions) {
		switch {
		case existing.to <= p.farAhead(clock):
			continue
		case existing.from > clock+p.width.Microseconds():
			err = p.remove(ctx, existing)
		default:
			err = p.shorten(ctx, existing, max(clock, existing.from)+2*p.width.Microseconds())
		}
		if err != nil {
			return done, fmt.Errorf("cut partition %s: %w", existing.name(p.table), err)
		}
		done = append(done,
			fmt.Sprintf("partition %s was added while the database's clock was far ahead; events of that time "+
				"now have the current time",
				existing.name(p.table)))
	}
	return done, nil
}

// remove drops a partition if it is empty.
func (p *partitioned) remove(ctx context.Context, old partition) error {
	return p.change(ctx, patientLockTime, func(ctx context.Context, tx *sql.Tx, _ []partition) error {
		name := p.schema + old.name(p.table)
		var used bool
		_, err := tx.ExecContext(ctx, "LOCK TABLE "+name+" IN ACCESS EXCLUSIVE MODE")
		if err == nil {
			err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM "+name+")").Scan(&used)
		}
		if err != nil || used {
			return err
		}
		_, err = tx.ExecContext(ctx, "DROP TABLE "+name)
		return err
	})
}

// shorten moves the end of a partition to a time after all its rows.
func (p *partitioned) shorten(ctx context.Context, old partition, to int64) error {
	name, next := p.schema+old.name(p.table), partition{from: old.from, to: to}.name(p.table)
	// Validate the constraint first, so that readers do not wait for a scan.
	for _, statement := range []string{
		fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT IF EXISTS shortened, ADD CONSTRAINT shortened CHECK (%s >= %d "+
			"AND %[2]s < %d) NOT VALID",
			name, p.column, old.from, to),
		"ALTER TABLE " + name + " VALIDATE CONSTRAINT shortened",
	} {
		if err := p.step(ctx, dropTime, statement); err != nil {
			return err
		}
	}
	return p.change(ctx, patientLockTime, func(ctx context.Context, tx *sql.Tx, _ []partition) error {
		_, err := tx.ExecContext(ctx,
			fmt.Sprintf(`ALTER TABLE %[1]s DETACH PARTITION %[2]s; ALTER TABLE %[2]s RENAME TO %[3]s;
			ALTER TABLE %[1]s ATTACH PARTITION %[4]s FOR VALUES FROM (%[5]d) TO (%[6]d)`,
				p.schema+p.table, name, next, p.schema+next, old.from, to))
		return err
	})
}

type partition struct {
	from, to int64
	pending  bool // is being detached
}

func (p partition) name(table string) string { return fmt.Sprintf("%s_%d_%d", table, p.from, p.to) }

// change calls do with the existing partitions, sorted, while holding a lock that
// keeps others from adding any.
func (p *partitioned) change(
	ctx context.Context, lockTime string, do func(context.Context, *sql.Tx, []partition) error,
) error {
	err := p.log.Transact(ctx, bound+"; "+lockTime, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, lockName, p.schema+p.table); err != nil {
			return err
		}
		partitions, _, err := p.list(ctx, tx)
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

// list returns the partitions, sorted, and those that were detached but not
// dropped.
func (p *partitioned) list(ctx context.Context, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
},
) (partitions, detached []partition, err error) {
	rows, err := db.QueryContext(ctx, `SELECT relname, inhrelid IS NOT NULL, coalesce(inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid AND inhparent = to_regclass($1)
		WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($1)) AND relkind = 'r'
			AND starts_with(relname, $2)`,
		p.schema+p.table, p.table+"_")
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var attached, pending bool
		if err := rows.Scan(&name, &attached, &pending); err != nil {
			return nil, nil, err
		}
		bounds := strings.Split(strings.TrimPrefix(name, p.table+"_"), "_")
		if len(bounds) != 2 {
			continue // not ours
		}
		from, err1 := strconv.ParseInt(bounds[0], 10, 64)
		to, err2 := strconv.ParseInt(bounds[1], 10, 64)
		switch {
		case err1 != nil || err2 != nil:
		case attached:
			partitions = append(partitions, partition{from, to, pending})
		default:
			detached = append(detached, partition{from: from, to: to})
		}
	}
	return sorted(partitions), detached, rows.Err()
}

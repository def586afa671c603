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

// partitioned is a table that is partitioned by time, in microseconds. The names
// of its partitions hold their bounds, and each begins where the last one ends.
type partitioned struct {
	log    *Log
	schema string // what goes before the names of tables
	table  string
	column string
	width  time.Duration

	mu           sync.Mutex
	since, until int64     // there are partitions for all that is between
	retry        time.Time // when to try again to add one, after it did not work
}

// A change of partitions waits for others that change the table, such as VACUUM,
// ANALYZE or CREATE INDEX. If there is no hurry it gives up soon, and tries again.
const (
	patientLockTime = "SET LOCAL lock_timeout = '3s'"
	hastyLockTime   = "SET LOCAL lock_timeout = '50ms'"
)

// lockName waits for an advisory lock and holds it until the end of the
// transaction. The name has the schema in it: other logs in the database are not
// kept waiting.
const lockName = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"

// ensure makes sure that there is a partition for what is written at a time. It adds
// the next one a whole width ahead; as long as there is room now, it is no error if
// that does not work yet.
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
	if err == nil { // only what was committed is there
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

// cover adds the partition that has a time, unless there is one: from the end of the one
// before it up to a width later, or to the one after it. It returns all, sorted.
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
	// Attached, not created in its place: that keeps no reader waiting.
	_, err := tx.ExecContext(ctx,
		fmt.Sprintf(`CREATE TABLE %[1]s (LIKE %[2]s INCLUDING ALL, CHECK (%[5]s >= %[3]d AND %[5]s < %[4]d));
		ALTER TABLE %[2]s ATTACH PARTITION %[1]s FOR VALUES FROM (%[3]d) TO (%[4]d)`,
			p.schema+name, p.schema+p.table, next.from, next.to, p.column))
	if err != nil {
		return nil, fmt.Errorf("add partition %s: %w", name, err)
	}
	return sorted(append(partitions, next)), nil
}

// around returns the bounds of the partitions that follow each other around a time.
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

// forget has ensure look again at which partitions there are: after a failover the
// last one may be gone.
func (p *partitioned) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.until = 0, 0
}

// detachTime bounds what waits for transactions that read the table. It keeps nobody
// else waiting, and goes on the next time. Removing the files of a table may take longer.
const (
	detachTime = 3 * time.Second
	dropTime   = 30 * time.Second
)

// dropBefore drops partitions that end before a time, except for the last one.
// Neither readers nor writers of the table wait for it.
func (p *partitioned) dropBefore(ctx context.Context, before int64) error {
	err := p.drop(ctx, before)
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
		if existing.pending { // it was interrupted
			how = "FINALIZE"
		}
		// Not within a transaction: PostgreSQL does this in two of its own.
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

// step runs a statement by itself.
func (p *partitioned) step(ctx context.Context, limit time.Duration, statement string) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := p.log.db.ExecContext(limited, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// farAhead is a time that no partition reaches unless it was added while the clock was
// wrong.
func (p *partitioned) farAhead(clock int64) int64 {
	return clock + 3*max(p.width, 24*time.Hour).Microseconds()
}

// cut ends partitions that were added while the clock was far ahead, and gives rows that
// were written then the time it is now: they would stay for as long as it was ahead. It
// says what it did.
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
			fmt.Sprintf("partition %s was added while the clock of the database was far ahead; events of that time "+
				"have the time of now",
				existing.name(p.table)))
	}
	return done, nil
}

// remove drops a partition that is empty.
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

// shorten has a partition end at a time after all that is in it.
func (p *partitioned) shorten(ctx context.Context, old partition, to int64) error {
	name, next := p.schema+old.name(p.table), partition{from: old.from, to: to}.name(p.table)
	// The constraint is checked beforehand, so that readers wait for no scan.
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
	pending  bool // it is being detached
}

func (p partition) name(table string) string { return fmt.Sprintf("%s_%d_%d", table, p.from, p.to) }

// change runs do with the partitions that there are, sorted; nobody else adds any
// meanwhile.
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

// list returns the partitions, sorted, and those that were detached and not dropped yet.
func (p *partitioned) list(ctx context.Context, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
},
) (partitions, detached []partition, err error) {
	rows, err := db.QueryContext(ctx, `SELECT relname, inhrelid IS NOT NULL, coalesce(inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid AND inhparent = to_regclass($1)
		WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($1)) AND relkind = 'r' AND starts_with(relname, $2)`,
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
			continue // somebody else's
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

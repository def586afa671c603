package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
)

// outbox caches what a process knows about the outbox. The database is
// authoritative.
type outbox struct {
	head    atomic.Int64 // last known head
	adopted atomic.Bool  // known to belong to this database system
}

const (
	// batchLimit is the maximum number of events that one transaction moves.
	batchLimit = 2000
	// advanceTime is how long a call that deliveries depend on numbers events.
	advanceTime = 2 * time.Second
	// anyHead is lower than every head.
	anyHead = -1
	// checkViolation is the SQLSTATE for a row that fits no partition.
	checkViolation = "23514"
	// uniqueViolation is the SQLSTATE for a row whose key exists.
	uniqueViolation = "23505"
)

// state returns the start of a statement: the head of the log, and the ids of the
// transactions that ended since the last move as open intervals. All visible events
// outside of these were moved already; neither their dead rows nor uncommitted ones
// are read. Only versions of the head from position $1 on are read.
func (l *Log) state() string {
	return `WITH state AS MATERIALIZED (
		SELECT seq, version, seen::pg_snapshot AS seen, pg_current_snapshot() AS now FROM ` + l.schema +
		`tidings_head WHERE seq >= $1
	), ended AS MATERIALIZED (
		SELECT low, lead(low, 1, pg_snapshot_xmax(now)::text::bigint) OVER (ORDER BY low) AS high
		FROM state, LATERAL (
			SELECT pg_snapshot_xmax(seen)::text::bigint - 1 AS low
			UNION ALL SELECT x::text::bigint FROM pg_snapshot_xip(now) x WHERE x >= pg_snapshot_xmax(seen)) lows
		UNION ALL SELECT x::text::bigint - 1, x::text::bigint + 1
		FROM state, pg_snapshot_xip(seen) x WHERE pg_visible_in_snapshot(x, now)
	) `
}

// unmoved returns a query for at most limit of the events to be moved.
func (l *Log) unmoved(columns string, limit int) string {
	return fmt.Sprintf(`SELECT found.* FROM ended, LATERAL (
			SELECT %s FROM %stidings_outbox o WHERE o.xid > low AND o.xid < high ORDER BY o.xid LIMIT %d
		) found LIMIT %[3]d`, columns, l.schema, limit)
}

// Advance implements [eventlog.Reader]. It moves events that were committed before
// the call from the outbox to the log. Those committed during the call may have to
// wait for the next one, so that it returns however fast they arrive. Where deliveries
// wait, it leaves what takes long to the next call; where operators do, to the relay.
func (l *Log) Advance(ctx context.Context) (int64, error) {
	late, enough := 0, func() bool { return eventlog.IsBrief(ctx) }
	if eventlog.IsUrgent(ctx) {
		end := time.Now().Add(advanceTime)
		enough = func() bool { return time.Now().After(end) }
	}
	for {
		head, more, err := l.move(ctx, enough)
		switch {
		case err == nil && more && enough():
			l.Wake()
			return head, nil
		case hasCode(err, checkViolation) && late < 3:
			late++ // the last partition has ended or is gone; the next move adds one
			l.events.forget()
		case errors.Is(err, errRestarted):
			if err := l.beginEpoch(ctx); err != nil {
				return 0, fmt.Errorf("begin another epoch: %w", err)
			}
		case err != nil:
			return 0, fmt.Errorf("number committed events: %w", err)
		case !more:
			return head, nil
		}
	}
}

// move moves the current events, or enough of them if there are many. more reports that
// there were so many that others have probably arrived in the meantime.
func (l *Log) move(ctx context.Context, enough func() bool) (head int64, more bool, err error) {
	if !l.outbox.adopted.Load() {
		if err := l.beginEpoch(ctx); err != nil {
			return 0, false, fmt.Errorf("begin another epoch: %w", err)
		}
		if err := l.adopt(ctx); err != nil {
			return 0, false, err
		}
	}
	// A poll usually finds nothing to move, and should not write then.
	head, found, clock, err := l.look(ctx)
	if err != nil || !found {
		return head, false, err
	}
	if eventlog.IsBrief(ctx) {
		n, err := l.waiting(ctx, batchLimit+1)
		if err != nil || n > batchLimit {
			return head, true, err
		}
	}
	if err := l.events.ensure(ctx, clock); err != nil {
		return 0, false, err
	}
	// Move everything visible at once, in the order of positions, unless there is
	// too much: a waiting event must not be overtaken by one of its resource.
	b, err := l.moveBatch(ctx, `pick AS MATERIALIZED (`+l.unmoved("o.ctid, o.position", batchLimit+1)+
		`), few AS MATERIALIZED (
			SELECT ctid FROM pick WHERE (SELECT count(*) FROM pick) <= $4
		)`, "CASE WHEN n > 0 THEN state.now::text END", batchLimit)
	if err == nil && b.picked > batchLimit {
		head, err = l.drain(ctx, enough)
		return head, true, err
	}
	return b.head, false, err
}

// look reads the head of the log, whether there are events to move, and the clock.
func (l *Log) look(ctx context.Context) (head int64, found bool, clock int64, err error) {
	var ahead, same bool
	var epoch string
	query := l.state() + `SELECT seq, EXISTS (` + l.unmoved("1", 1) + `), ` + now +
		`, pg_snapshot_xmax(seen) > pg_snapshot_xmax(now),
		` + l.Newest("id") + `, ` + l.Lasts() + ` FROM state`
	err = l.headRow(ctx, []any{&head, &found, &clock, &ahead, &epoch, &same}, query)
	if err == nil && (!same || l.WentBack(epoch, head)) {
		err = errRestarted
	}
	if err == nil && ahead {
		err = l.adopt(ctx)
	}
	if err == nil {
		l.outbox.head.Store(head)
		l.Saw(epoch, head)
	}
	return head, found, clock, err
}

// headRow scans the row of a query that uses [Log.state].
func (l *Log) headRow(ctx context.Context, targets []any, query string) error {
	err := l.Row(ctx, targets, query, l.outbox.head.Load())
	if errors.Is(err, sql.ErrNoRows) { // the head moved back
		err = l.Row(ctx, targets, query, int64(anyHead))
	}
	return err
}

type batch struct{ head, n, picked, last int64 }

// moveBatch moves the events of the common table expression few, selected from
// pick, whose parameters start at $4. seen is an expression: the snapshot all of whose events
// are moved afterwards, or NULL.
func (l *Log) moveBatch(ctx context.Context, pick, seen string, args ...any) (b batch, err error) {
	var epoch string
	var events []tidings.Event
	err = l.Transact(ctx, "", func(ctx context.Context, tx *sql.Tx) error {
		// Lock in a separate statement: the next one must see everything that the
		// previous holder moved. The server may have changed since the last query.
		var set string
		var same bool
		err := tx.QueryRowContext(ctx, `SELECT seq, set_config('idle_in_transaction_session_timeout', '`+idleTime+
			`', true) ||
			set_config('lock_timeout', '`+lockTime+`', true) || set_config('statement_timeout', '`+runTime+`', true) ||
			set_config('enable_seqscan', 'off', true) || set_config('jit', 'off', true),
			`+l.Newest("id")+`, `+l.Lasts()+`
			FROM `+l.schema+`tidings_head WHERE seq >= $1 FOR UPDATE`,
			l.outbox.head.Load()).Scan(&b.head, &set, &epoch, &same)
		if errors.Is(err, sql.ErrNoRows) || err == nil && (!same || l.WentBack(epoch, b.head)) {
			return errRestarted
		}
		if err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, l.state()+`, `+pick+`, moved AS (
				DELETE FROM `+l.schema+`tidings_outbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM few)) RETURNING *
			), `+l.completed()+`, numbered AS (
				INSERT INTO `+l.schema+`tidings_events (seq, `+sqllog.EventColumns+`, logged_at)
				SELECT $1 + nth, `+sqllog.EventColumns+`, `+now+` FROM completed
				RETURNING *
			), counted AS (
				SELECT (SELECT count(*) FROM numbered) AS n, (SELECT count(*) FROM pick) AS picked,
					(SELECT max(position) FROM moved) AS last
			), updated AS (
				UPDATE `+l.schema+`tidings_head h SET seq = h.seq + n, seen = coalesce(`+seen+`, h.seen),
					version = CASE WHEN n > 0 THEN `+nextVersion+` + n ELSE h.version END
				FROM counted, state WHERE h.seq = $1 AND (picked > 0 OR `+seen+` IS NOT NULL)
				RETURNING h.seq AS head, n, picked, coalesce(last, 0) AS last,
					CASE WHEN n > 0 THEN pg_notify($2, $3)::text END AS notified
			)
			SELECT head, n, picked, last, `+sqllog.EventColumnsOrEmpty+` FROM updated LEFT JOIN numbered e ON true ORDER BY seq`,
			append([]any{b.head, l.Channel(), notifyEvents + l.self}, args...)...)
		if err != nil {
			return err
		}
		events, err = b.scan(rows) // none if another replica moved them first
		return err
	})
	if err == nil {
		l.Saw(epoch, b.head)
		l.Committed(events...)
	}
	return b, err
}

// scan reads the rows of a move: the batch, and an event in each, or none.
func (b *batch) scan(rows *sql.Rows) (events []tidings.Event, err error) {
	defer rows.Close()
	for rows.Next() {
		e, err := sqllog.ScanEvent(rows, &b.head, &b.n, &b.picked, &b.last)
		if err != nil {
			return nil, err
		}
		if b.n > 0 {
			events = append(events, e)
		}
	}
	return events, rows.Err()
}

// nextVersion is a SQL expression: the value above which the versions of moved
// events start.
const nextVersion = "greatest(state.version, (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint)"

// completed returns a common table expression with the moved rows as events. Those
// written by triggers and emit() are completed. Of the events that triggers wrote
// for one resource in one transaction, an "updated" is dropped if there is another
// kind of event or a later "updated". Transaction ids from another database system
// are not usable; see adopt.
func (l *Log) completed() string {
	return `kept AS (
			SELECT m.*, s.url AS template, row_number() OVER (ORDER BY m.position) AS nth FROM (
				SELECT moved.*, coalesce(source, 0) > 0 AND action = 'updated' AND (
					position < max(position) FILTER (WHERE source > 0) OVER same OR
					count(*) FILTER (WHERE source > 0 AND action <> 'updated') OVER same > 0) AS merged
				FROM moved WINDOW same AS (PARTITION BY CASE WHEN xid > 3 THEN xid ELSE -position END,
					resource_type COLLATE "C", resource_id COLLATE "C")
			) m LEFT JOIN ` + l.schema + `tidings_sources s ON s.id = m.source WHERE NOT merged
		), clean AS (
			SELECT position, nth, source, resource_type, action, at, resource_version, trace, resource_url,
				template, id,
				CASE WHEN source IS NULL THEN resource_id WHEN resource_id = '' THEN '?'
				ELSE ` + l.clean("resource_id") +
		` END AS resource_id,
				CASE WHEN source IS NULL OR user_id = '' THEN user_id ELSE ` + l.clean("user_id") + ` END AS user_id,
				CASE WHEN source IS NULL OR owner_id = '' THEN owner_id ELSE ` + l.clean("owner_id") + ` END AS owner_id
			FROM kept
		), completed AS (
			SELECT clean.position, nth, resource_type, action, resource_id, user_id, owner_id, at, trace,
				CASE WHEN id <> '' THEN id ELSE overlay(substr(lpad(to_hex(at / 1000), 12, '0'), 1, 8) || '-' ||
					substr(lpad(to_hex(at / 1000), 12, '0'), 9, 4) ||
					gen_random_uuid()::text PLACING '-7' FROM 14 FOR 15) END AS id,
				CASE WHEN resource_url <> '' AND octet_length(resource_url) <= 2048 THEN resource_url
					ELSE replace(coalesce(nullif(template, ''), '/' || resource_type || '/{}'), '{}',
						CASE WHEN resource_id ~ '^[A-Za-z0-9._~:@-]*$' THEN resource_id ELSE ` + l.schema +
		`tidings_escape(resource_id) END) END AS resource_url,
				CASE WHEN source IS NULL THEN resource_version ELSE ` + nextVersion + ` + nth END AS resource_version
			FROM clean, state
		)`
}

// clean returns an expression: a text column made valid for an event. Of one that is too
// long, tidings_clean escapes every character; this is the same, and quick.
func (l *Log) clean(column string) string {
	return `CASE WHEN octet_length(` + column + `) > 512 THEN left(` + l.schema + `tidings_escape(left(` + column +
		`, 100), true), 100) || '~' || md5(` + column + `) WHEN ` + column + ` ~ '^[ -~]*$' THEN ` + column + ` ELSE ` +
		l.schema + `tidings_clean(` + column + `) END`
}

// drain moves what is visible now in batches, in the order of positions, until that is
// enough. Events committed later may have lower positions; they and everything that
// depends on them wait for the next call. It returns the head of the log.
func (l *Log) drain(ctx context.Context, enough func() bool) (head int64, err error) {
	var snapshot string
	var first sql.NullInt64
	err = l.headRow(ctx, []any{&head, &snapshot, &first}, l.state()+`SELECT seq, now::text, (
			SELECT min(o.position) FROM ended, `+l.schema+`tidings_outbox o WHERE o.xid > low AND o.xid < high
		) FROM state`)
	if err != nil || !first.Valid {
		return head, err
	}
	after := first.Int64 - 1
	for {
		b, err := l.moveBatch(ctx, `pick AS MATERIALIZED (
				SELECT ctid, position FROM `+l.schema+`tidings_outbox
				WHERE position > $5 AND pg_visible_in_snapshot(xid::text::xid8, $6::text::pg_snapshot)
				ORDER BY position LIMIT $4
			), few AS (SELECT ctid FROM pick)`, "CASE WHEN picked < $4 THEN $6::text END", batchLimit, after, snapshot)
		if err != nil || b.picked < batchLimit || enough() {
			return b.head, err
		}
		after = b.last
	}
}

// adopt makes all events in the outbox be examined again if they came from another
// database system through a dump, because transaction ids differ there.
func (l *Log) adopt(ctx context.Context) error {
	var system string
	err := l.Row(ctx, []any{&system}, "SELECT system_identifier::text FROM pg_control_system()")
	if err != nil && !hasCode(err, insufficientPrivilege) {
		return err
	}
	err = l.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var before string
		var ahead bool
		err := tx.QueryRowContext(ctx,
			`SELECT system, pg_snapshot_xmax(seen::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
			FROM `+l.schema+`tidings_head FOR UPDATE`).Scan(&before, &ahead)
		if err != nil || (before == system && !ahead) {
			return err
		}
		if before != "" || ahead {
			if _, err := tx.ExecContext(ctx, "UPDATE "+l.schema+"tidings_outbox SET xid = 3"); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE "+l.schema+"tidings_head SET seen = '3:3:', system = $1", system)
		return err
	})
	if err == nil {
		l.outbox.adopted.Store(true)
	}
	return err
}

// unnumberedLimit is the highest number that Unnumbered returns.
const unnumberedLimit = 100_000

// Unnumbered implements [eventlog.Archive]. It counts up to 100,000.
func (l *Log) Unnumbered(ctx context.Context) (int64, error) {
	n, err := l.waiting(ctx, unnumberedLimit)
	if err != nil {
		return 0, fmt.Errorf("count events without a position: %w", err)
	}
	return n, nil
}

// waiting counts the events to be moved, up to limit.
func (l *Log) waiting(ctx context.Context, limit int) (n int64, err error) {
	err = l.headRow(ctx, []any{&n}, l.state()+"SELECT (SELECT count(*) FROM ("+l.unmoved("1", limit)+") o) FROM state")
	return n, err
}

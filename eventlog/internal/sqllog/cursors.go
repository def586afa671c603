package sqllog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const cursorColumns = `tidings_cursors.endpoint, tidings_cursors.part, tidings_cursors.parts, tidings_cursors.seq,
	tidings_cursors.owner, tidings_cursors.generation, tidings_cursors.status, tidings_cursors.marks,
	tidings_cursors.saved_at,
	tidings_cursors.removed_at, tidings_cursors.former, tidings_cursors.epoch`

func scanCursor(rows *sql.Rows) (eventlog.Cursor, error) {
	var c eventlog.Cursor
	var saved, removed int64
	var marks string
	if err := rows.Scan(&c.Endpoint, &c.Index, &c.Of, &c.Sequence, &c.Owner, &c.Generation, &c.Status, &marks, &saved,
		&removed, &c.Former, &c.Epoch); err != nil {
		return c, err
	}
	var err error
	c.Saved, c.Removed = fromMicros(saved), fromMicros(removed)
	c.Marks, err = eventlog.ParseMarks(marks)
	return c, err
}

// Prepare implements [eventlog.Cursors].
func (t *Tables) Prepare(ctx context.Context, s eventlog.Setup) error {
	if err := t.forgetOld(ctx, s); err != nil {
		return err
	}
	return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if t.dialect.LockReplicas != "" {
			if _, err := tx.ExecContext(ctx, t.dialect.LockReplicas); err != nil {
				return fmt.Errorf("prepare cursors: %w", err)
			}
		}
		existing, err := t.existingPartitions(ctx, tx)
		if err != nil {
			return err
		}
		configured := make(map[string]bool, len(existing))
		for endpoint, c := range existing {
			configured[endpoint] = !c.removed
		}
		if s.Outdated(configured) {
			return eventlog.ErrEndpointsChanged
		}
		if err := t.noteRemoved(ctx, tx, s.Names(), existing); err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(s.Partitions),
			func(p eventlog.Partition) bool { return existing[p.Endpoint].of == p.Of })
		if len(missing) == 0 {
			return nil
		}
		var end int64
		var epoch string
		if err := tx.QueryRowContext(ctx, "SELECT "+t.dialect.Head+", "+t.currentEpoch()).Scan(&end,
			&epoch); err != nil {
			return fmt.Errorf("prepare cursors: %w", err)
		}
		for _, p := range missing {
			if old, known := existing[p.Endpoint]; known && p.Index == 0 {
				// The new partitions stay with an old owner, which does not know
				// them, until it has finished with the old ones.
				_, err := tx.ExecContext(ctx, "DELETE FROM "+t.schema+
					"tidings_cursors WHERE endpoint = $1 AND parts = $2", p.Endpoint, old.of)
				if err != nil {
					return fmt.Errorf("prepare cursors: %w", err)
				}
			}
		}
		return inBatches(len(missing), func(from, to int) error {
			args := make([]any, 0, 11*(to-from))
			for _, p := range missing[from:to] {
				c := existingCursor{seq: min(s.Begin(p.Endpoint), end)}
				if old, known := existing[p.Endpoint]; known {
					c = old
				}
				args = append(args, p.Endpoint, p.Index, p.Of, c.seq, c.owner, c.generation+1, "", c.marks,
					time.Now().UnixMicro(), c.former, epoch)
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO `+t.schema+
				`tidings_cursors (endpoint, part, parts, seq, owner, generation, status, marks, saved_at, former, epoch)
				VALUES `+Placeholders(to-from, 11)+` ON CONFLICT DO NOTHING`, args...)
			if err != nil {
				return fmt.Errorf("prepare cursors: %w", err)
			}
			return nil
		})
	})
}

// forgetOld makes sure that an endpoint without a cursor inherits nothing from an
// earlier one of the same name.
func (t *Tables) forgetOld(ctx context.Context, s eventlog.Setup) error {
	known := make(map[string]bool)
	cursors, err := t.Cursors(ctx)
	if err != nil {
		return err
	}
	for _, c := range cursors {
		known[c.Endpoint] = true
	}
	if !slices.ContainsFunc(s.Partitions, func(p eventlog.Partition) bool { return !known[p.Endpoint] }) {
		return nil
	}
	_, err = t.forgetOrphans(ctx)
	return err
}

// noteRemoved records which endpoints are configured and ends the replays of
// others.
func (t *Tables) noteRemoved(
	ctx context.Context, tx *sql.Tx, configured map[string]bool, existing map[string]existingCursor,
) error {
	for name, c := range existing {
		var text string
		switch {
		case configured[name] && c.removed:
			text = "UPDATE " + t.schema + "tidings_cursors SET removed_at = 0 WHERE endpoint = $1"
		case !configured[name] && !c.removed:
			text = "UPDATE " + t.schema + "tidings_cursors SET removed_at = " + t.dialect.Now + " WHERE endpoint = $1"
		default:
			continue
		}
		if _, err := tx.ExecContext(ctx, text, name); err != nil {
			return fmt.Errorf("record that endpoint %s was removed: %w", name, err)
		}
	}
	rows, err := tx.QueryContext(ctx, "SELECT DISTINCT endpoint FROM "+t.schema+
		"tidings_replays WHERE state = 'running'")
	if err != nil {
		return fmt.Errorf("read replays: %w", err)
	}
	running, err := collect(rows, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) })
	if err != nil {
		return fmt.Errorf("read replays: %w", err)
	}
	for _, name := range running {
		if configured[name] {
			continue
		}
		_, err := tx.ExecContext(ctx,
			"UPDATE "+t.schema+`tidings_replays SET state = 'canceled', reason = $2, updated_at = $3
			WHERE endpoint = $1 AND state = 'running'`, name, eventlog.RemovedReason, time.Now().UnixMicro())
		if err != nil {
			return fmt.Errorf("end replays of endpoint %s: %w", name, err)
		}
	}
	return nil
}

// existingCursor combines the partitions of an endpoint: the lowest position, the
// highest generation, one of their owners, and marks of what each had settled.
type existingCursor struct {
	of         int
	seq        int64
	owner      string
	generation int64
	marks      string
	removed    bool
	former     string
}

func (t *Tables) existingPartitions(ctx context.Context, tx *sql.Tx) (map[string]existingCursor, error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+cursorColumns+" FROM "+t.schema+
		"tidings_cursors ORDER BY endpoint, part")
	if err != nil {
		return nil, fmt.Errorf("prepare cursors: %w", err)
	}
	defer rows.Close()
	all := make(map[string][]eventlog.Cursor)
	for rows.Next() {
		c, err := scanCursor(rows)
		if err != nil {
			return nil, fmt.Errorf("prepare cursors: %w", err)
		}
		all[c.Endpoint] = append(all[c.Endpoint], c)
	}
	existing := make(map[string]existingCursor)
	for endpoint, cursors := range all {
		first := cursors[0]
		e := existingCursor{
			of: first.Of, seq: first.Sequence, marks: eventlog.Divide(cursors).String(),
			removed: !first.Removed.IsZero(), former: first.Former,
		}
		for _, c := range cursors {
			e.seq, e.owner, e.generation = min(e.seq, c.Sequence), max(e.owner, c.Owner),
				max(e.generation, c.Generation)
		}
		existing[endpoint] = e
	}
	return existing, rows.Err()
}

// Cursors implements [eventlog.Cursors].
func (t *Tables) Cursors(ctx context.Context) ([]eventlog.Cursor, error) {
	var cursors []eventlog.Cursor
	err := t.query(ctx, t.reader, "cursors", func(rows *sql.Rows) error {
		c, err := scanCursor(rows)
		cursors = append(cursors, c)
		return err
	}, "SELECT "+cursorColumns+" FROM "+t.schema+"tidings_cursors ORDER BY endpoint, part")
	return cursors, err
}

// SaveCursors implements [eventlog.Cursors].
func (t *Tables) SaveCursors(ctx context.Context, cursors []eventlog.Cursor) (lost []eventlog.Lease, err error) {
	if len(cursors) == 0 {
		return nil, nil
	}
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		lost = nil
		return inBatches(len(cursors), func(from, to int) error {
			args := make([]any, 0, 9*(to-from)+1)
			left := make(map[eventlog.Partition]eventlog.Lease)
			for _, c := range cursors[from:to] {
				args = append(args, c.Endpoint, c.Index, c.Of, c.Generation, c.Sequence, c.Status,
					c.Marks.String(), c.Owner, c.Epoch)
				left[c.Partition] = c.Lease
			}
			rows, err := tx.QueryContext(ctx, typed(to-from, "endpoint text", "part bigint", "parts bigint",
				"generation bigint", "seq bigint", "status text", "marks text", "owner text", "epoch text")+
				`UPDATE `+t.schema+`tidings_cursors SET `+fmt.Sprintf(`
					seq = CASE WHEN v.seq > tidings_cursors.seq THEN v.seq ELSE tidings_cursors.seq END,
					status = v.status, marks = v.marks, saved_at = $%d
				FROM v WHERE tidings_cursors.endpoint = v.endpoint AND tidings_cursors.part = v.part
					AND tidings_cursors.parts = v.parts AND tidings_cursors.generation = v.generation
					AND tidings_cursors.owner = v.owner AND tidings_cursors.epoch = v.epoch
					AND `+t.sameStart()+`
				RETURNING tidings_cursors.endpoint, tidings_cursors.part, tidings_cursors.parts`, len(args)+1),
				append(args, time.Now().UnixMicro())...)
			if err != nil {
				return fmt.Errorf("save cursors: %w", err)
			}
			defer rows.Close()
			for rows.Next() {
				var p eventlog.Partition
				if err := rows.Scan(&p.Endpoint, &p.Index, &p.Of); err != nil {
					return fmt.Errorf("save cursors: %w", err)
				}
				delete(left, p)
			}
			if err := rows.Err(); err != nil {
				return fmt.Errorf("save cursors: %w", err)
			}
			for _, l := range left {
				err := t.held(ctx, tx, l)
				switch {
				case errors.Is(err, eventlog.ErrLeaseLost):
					lost = append(lost, l)
				case err != nil:
					return fmt.Errorf("save cursors: %w", err)
				}
			}
			return nil
		})
	})
	return lost, err
}

// SaveGap implements [eventlog.Cursors].
func (t *Tables) SaveGap(ctx context.Context, g eventlog.Gap) error {
	return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := t.saveGap(ctx, tx, g)
		return err
	})
}

// saveGap records a gap, or extends one that it touches, and returns the part that
// is new.
func (t *Tables) saveGap(ctx context.Context, tx *sql.Tx, g eventlog.Gap) (fresh eventlog.Gap, err error) {
	g.Reason = cmp.Or(g.Reason, eventlog.GapExpired)
	fresh = g
	var from, to int64
	err = tx.QueryRowContext(ctx, `SELECT from_seq, to_seq FROM `+t.schema+`tidings_gaps
		WHERE endpoint = $1 AND part = $2 AND reason = $4 AND from_seq <= $3 AND to_seq >= $3 - 1
		ORDER BY to_seq DESC LIMIT 1`,
		g.Endpoint, g.Index, g.From, string(g.Reason)).Scan(&from, &to)
	switch {
	case err == nil:
		fresh.From = to + 1
		_, err = tx.ExecContext(ctx,
			`UPDATE `+t.schema+
				`tidings_gaps SET to_seq = $4, at = $5 WHERE endpoint = $1 AND part = $2 AND from_seq = $3 AND reason = $6`,
			g.Endpoint, g.Index, from, max(to, g.To), micros(g.At), string(g.Reason))
	case errors.Is(err, sql.ErrNoRows):
		_, err = tx.ExecContext(ctx, `INSERT INTO `+t.schema+
			`tidings_gaps (endpoint, part, from_seq, to_seq, at, reason) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (endpoint, part, from_seq, reason) DO UPDATE SET to_seq = excluded.to_seq, at = excluded.at`,
			g.Endpoint, g.Index, g.From, g.To, micros(g.At), string(g.Reason))
	}
	if err != nil {
		return fresh, fmt.Errorf("record what endpoint %s missed: %w", g.Endpoint, err)
	}
	return fresh, nil
}

// Gaps implements [eventlog.Archive].
func (t *Tables) Gaps(ctx context.Context, limit int) ([]eventlog.Gap, error) {
	var gaps []eventlog.Gap
	err := t.query(Slow(ctx), t.reader, "gaps", func(rows *sql.Rows) error {
		var g eventlog.Gap
		var at int64
		err := rows.Scan(&g.Endpoint, &g.Index, &g.From, &g.To, &at, (*string)(&g.Reason))
		g.At = fromMicros(at)
		gaps = append(gaps, g)
		return err
	}, "SELECT endpoint, part, from_seq, to_seq, at, reason FROM "+t.schema+"tidings_gaps ORDER BY at DESC LIMIT $1",
		limit)
	return gaps, err
}

// ExpireGaps implements [eventlog.Expirer].
func (t *Tables) ExpireGaps(ctx context.Context, before time.Time) error {
	if _, err := t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_gaps WHERE at < $1", before.UnixMicro()); err != nil {
		return fmt.Errorf("remove old gaps: %w", err)
	}
	return nil
}

// conditions builds a WHERE clause.
type conditions struct {
	texts []string
	args  []any
}

func (c *conditions) add(given bool, text string, arg any) {
	if given {
		c.args = append(c.args, arg)
		c.texts = append(c.texts, fmt.Sprintf(text, len(c.args)))
	}
}

// addResource adds that an event reports a resource: TYPE/ID, or an ID alone.
func (c *conditions) addResource(resource string) {
	typ, id, found := strings.Cut(resource, "/")
	if !found {
		typ, id = "", resource
	}
	c.add(typ != "", "resource_type = $%d", typ)
	c.add(id != "", "resource_id = $%d", id)
}

// addPatterns adds that an event matches one of some patterns, if there are any.
func (c *conditions) addPatterns(patterns []tidings.Pattern) {
	var any []string
	with := conditions{args: c.args}
	for _, p := range patterns {
		one := conditions{args: with.args}
		typ, action, _ := strings.Cut(p.String(), ".")
		one.add(typ != "*", "resource_type = $%d", typ)
		one.add(typ != p.String() && action != "*", "action = $%d", action)
		if len(one.texts) == 0 { // it matches all
			return
		}
		with.args, any = one.args, append(any, "("+strings.Join(one.texts, " AND ")+")")
	}
	if len(any) > 0 {
		c.args, c.texts = with.args, append(c.texts, "("+strings.Join(any, " OR ")+")")
	}
}

func (c *conditions) where() string {
	if len(c.texts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.texts, " AND ")
}

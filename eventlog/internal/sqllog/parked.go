package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// findBehind sets what waiting events wait for.
func (t *Tables) findBehind(ctx context.Context, found []eventlog.Retry) error {
	type resource struct{ endpoint, typ, id string }
	keyOf := func(r eventlog.Retry) resource { return resource{r.Endpoint, string(r.Event.Type), r.Event.ResourceID} }
	waits := func(r eventlog.Retry) bool { return r.Next.IsZero() && r.Dead.IsZero() }
	first := make(map[resource]int64)
	var keys []any
	for _, r := range found {
		if _, known := first[keyOf(r)]; waits(r) && !known {
			first[keyOf(r)] = 0
			keys = append(keys, r.Endpoint, string(r.Event.Type), r.Event.ResourceID)
		}
	}
	err := inBatches(len(keys)/3, func(from, to int) error {
		return t.query(ctx, t.reader, "parked events", func(rows *sql.Rows) error {
			var key resource
			var sequence int64
			err := rows.Scan(&key.endpoint, &key.typ, &key.id, &sequence)
			first[key] = sequence
			return err
		}, typed(to-from, "endpoint text", "typ text", "id text")+`
			SELECT v.endpoint, v.typ, v.id, coalesce((SELECT min(r.seq) FROM `+t.schema+`tidings_retries r
				WHERE r.endpoint = v.endpoint AND r.resource_type = v.typ AND r.resource_id = v.id AND r.dead_at = 0), 0)
			FROM v`, keys[3*from:3*to]...)
	})
	for i, r := range found {
		if before := first[keyOf(r)]; waits(r) && before < r.Event.Sequence {
			found[i].Behind = before
		}
	}
	return err
}

// Discarded implements [eventlog.Retries].
func (t *Tables) Discarded(ctx context.Context, p eventlog.Partition, limit int) ([]eventlog.Retry, error) {
	return t.retries(ctx, "SELECT "+retryColumns+" FROM "+t.schema+`tidings_retries
		WHERE endpoint = $1 AND dead_at < 0 AND lane % $2 = $3 ORDER BY seq LIMIT $4`,
		p.Endpoint, int64(max(p.Of, 1)), int64(p.Index), limit)
}

// ParkedCounts implements [eventlog.ParkedKeeper].
func (t *Tables) ParkedCounts(ctx context.Context) (map[string]eventlog.ParkedCount, error) {
	counts := make(map[string]eventlog.ParkedCount)
	err := t.query(Slow(ctx), t.reader, "numbers of parked events", func(rows *sql.Rows) error {
		var endpoint string
		var c eventlog.ParkedCount
		var at int64
		err := rows.Scan(&endpoint, &c.Live, &c.Dead, &c.Oldest, &at)
		c.At = fromMicros(at)
		counts[endpoint] = c
		return err
	}, `SELECT p.endpoint, p.live, p.dead, coalesce(r.seq, 0), coalesce(r.at, 0)
		FROM `+t.schema+`tidings_parked p LEFT JOIN `+t.schema+`tidings_retries r ON r.endpoint = p.endpoint AND r.seq = (
			SELECT o.seq FROM `+t.schema+`tidings_retries o WHERE o.endpoint = p.endpoint AND o.dead_at = 0
			ORDER BY o.seq LIMIT 1)
		WHERE p.live > 0 OR p.dead > 0`)
	return counts, err
}

// ParkedGroups implements [eventlog.ParkedKeeper].
func (t *Tables) ParkedGroups(
	ctx context.Context, f eventlog.ParkedFilter, limit int,
) (groups []eventlog.ParkedGroup, err error) {
	c := parkedConditions(f)
	err = t.query(Slow(ctx), t.reader, "groups of parked events", func(rows *sql.Rows) error {
		var g eventlog.ParkedGroup
		var firstAt, lastAt, next int64
		err := rows.Scan(&g.Endpoint, &g.Reason, &g.Response, &g.Count, &g.Dead, &g.First, &g.Last, &firstAt, &lastAt, &next)
		g.FirstAt, g.LastAt, g.Next = fromMicros(firstAt), fromMicros(lastAt), fromMicros(next)
		groups = append(groups, g)
		return err
	}, `SELECT endpoint, reason, response, count(*), count(CASE WHEN dead_at > 0 THEN 1 END), min(seq), max(seq),
			coalesce(min(CASE WHEN first_at > 0 THEN first_at END), 0), max(last_at),
			coalesce(min(CASE WHEN dead_at = 0 AND next_at > 0 THEN next_at END), 0)
		FROM `+t.schema+"tidings_retries"+c.where()+fmt.Sprintf(` GROUP BY endpoint, reason, response
		ORDER BY count(*) DESC, endpoint, reason, response LIMIT $%d`, len(c.args)+1), append(c.args, limit)...)
	return groups, err
}

// CountParked implements [eventlog.ParkedKeeper].
func (t *Tables) CountParked(ctx context.Context, f eventlog.ParkedFilter) (n eventlog.Count, err error) {
	c := parkedConditions(f)
	err = t.query(Slow(ctx), t.reader, "numbers of parked events", func(rows *sql.Rows) error {
		return rows.Scan(&n.Events, &n.First, &n.Last)
	}, "SELECT count(*), coalesce(min(seq), 0), coalesce(max(seq), 0) FROM "+t.schema+"tidings_retries"+c.where(),
		c.args...)
	return n, err
}

// RetryParked implements [eventlog.ParkedKeeper].
func (t *Tables) RetryParked(ctx context.Context, endpoint string, events []tidings.Event, now time.Time) error {
	table := t.schema + "tidings_retries"
	return inBatches(len(events), func(from, to int) error {
		sequences, resources := []any{}, []any{}
		for _, e := range events[from:to] {
			sequences = append(sequences, endpoint, e.Sequence)
			resources = append(resources, string(e.Type), e.ResourceID)
		}
		err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, typed(to-from, "endpoint text", "seq bigint")+
				`UPDATE `+table+` SET dead_at = 0, attempts = 0, first_at = 0, next_at = `+
				fmt.Sprintf("$%d", len(sequences)+1)+` WHERE dead_at > 0 AND (endpoint, seq) IN (SELECT endpoint, seq FROM v)`,
				append(sequences, micros(now))...)
			if err != nil {
				return err
			}
			n := len(resources)
			_, err = tx.ExecContext(ctx, typed(to-from, "typ text", "id text")+
				fmt.Sprintf(`UPDATE `+table+` SET next_at = $%d WHERE endpoint = $%d AND dead_at = 0 AND next_at > $%d
					AND (resource_type, resource_id) IN (SELECT typ, id FROM v)`, n+1, n+2, n+1),
				append(resources, micros(now), endpoint)...)
			if err != nil {
				return err
			}
			return t.touchParked(ctx, tx, endpoint)
		})
		if err != nil {
			return fmt.Errorf("retry parked events of endpoint %s: %w", endpoint, err)
		}
		return nil
	})
}

// touchParked records in the endpoint's control that its parked events have changed.
func (t *Tables) touchParked(ctx context.Context, tx *sql.Tx, endpoint string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO `+t.schema+`tidings_controls AS c
			(endpoint, disabled, fingerprint, since, parked_at) VALUES ($1, '', '', 0, `+t.dialect.Now+`)
		ON CONFLICT (endpoint) DO UPDATE SET parked_at = CASE WHEN excluded.parked_at > c.parked_at
			THEN excluded.parked_at ELSE c.parked_at + 1 END`, endpoint)
	return err
}

// Discard implements [eventlog.ParkedKeeper]. A live event is only marked: the owner
// of its partition has yet to learn that its resource is no longer parked.
func (t *Tables) Discard(
	ctx context.Context, endpoint string, sequences []int64, d eventlog.Discard,
) (discarded int64, err error) {
	table := t.schema + "tidings_retries"
	err = inBatches(len(sequences), func(from, to int) error {
		keys := []any{}
		for _, s := range sequences[from:to] {
			keys = append(keys, endpoint, s)
		}
		n := int64(0)
		err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			n = 0
			block := &eventlog.HistoryBlock{Endpoint: endpoint}
			for _, change := range []string{
				"DELETE FROM " + table + " WHERE dead_at > 0",
				"UPDATE " + table + " SET dead_at = -1 WHERE dead_at = 0",
			} {
				rows, err := tx.QueryContext(ctx, typed(to-from, "endpoint text", "seq bigint")+change+
					" AND (endpoint, seq) IN (SELECT endpoint, seq FROM v) RETURNING "+retryColumns, keys...)
				if err != nil {
					return err
				}
				gone, err := collect(rows, scanRetry)
				if err != nil {
					return err
				}
				for _, r := range gone {
					n++
					block.Add(d.Record(r))
				}
			}
			if n == 0 {
				return nil
			}
			if err := t.touchParked(ctx, tx, endpoint); err != nil {
				return err
			}
			return t.writeHistory(ctx, tx, []*eventlog.HistoryBlock{block})
		})
		if err != nil {
			return fmt.Errorf("discard parked events of endpoint %s: %w", endpoint, err)
		}
		discarded += n
		return nil
	})
	return discarded, err
}

// settledBlocks is how many blocks of the history are read at once.
const settledBlocks = 16

// Settled implements [eventlog.Replays].
func (t *Tables) Settled(ctx context.Context, endpoint string, from, to int64, found func(int64)) error {
	for after := int64(0); ; {
		blocks := 0
		err := t.query(Slow(ctx), t.reader, "history", func(rows *sql.Rows) error {
			var text string
			if err := rows.Scan(&after, &text); err != nil {
				return err
			}
			blocks++
			return eventlog.SettledIn(text, func(sequence int64) {
				if sequence >= from && sequence <= to {
					found(sequence)
				}
			})
		}, "SELECT id, records_text FROM "+t.history(3, 2)+`
			WHERE endpoint = $1 AND failures < records AND id + 0 > $4
			ORDER BY id + 0`+limited(settledBlocks), endpoint, to, from, after)
		if err != nil || blocks < settledBlocks {
			return err
		}
	}
}

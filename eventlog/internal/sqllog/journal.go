package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// AddAction implements [eventlog.Journal].
func (t *Tables) AddAction(ctx context.Context, a eventlog.Action) error {
	_, err := t.Exec(ctx, "INSERT INTO "+t.schema+
		"tidings_actions (at, actor, action, endpoint, subject, comment) VALUES "+Placeholders(1, 6),
		micros(a.At), a.By, a.Action, a.Endpoint, a.Subject, a.Comment)
	if err != nil {
		return fmt.Errorf("record an operator's action: %w", err)
	}
	return nil
}

// Actions implements [eventlog.Journal].
func (t *Tables) Actions(ctx context.Context, f eventlog.ActionFilter) ([]eventlog.Action, error) {
	var c conditions
	c.add(f.Endpoint != "", "endpoint = $%d", f.Endpoint)
	c.add(f.Before != 0, "id < $%d", f.Before)
	var found []eventlog.Action
	err := t.query(ctx, t.reader, "actions of operators", func(rows *sql.Rows) error {
		var a eventlog.Action
		var at int64
		err := rows.Scan(&a.ID, &at, &a.By, &a.Action, &a.Endpoint, &a.Subject, &a.Comment)
		a.At = fromMicros(at)
		found = append(found, a)
		return err
	}, "SELECT id, at, actor, action, endpoint, subject, comment FROM "+t.schema+"tidings_actions"+c.where()+
		fmt.Sprintf(" ORDER BY id DESC LIMIT $%d", len(c.args)+1), append(c.args, f.Limit)...)
	return found, err
}

// AddStates implements [eventlog.Journalist].
func (t *Tables) AddStates(ctx context.Context, changes []eventlog.StateChange) error {
	const columns = 8
	err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, c := range changes {
			_, err := tx.ExecContext(ctx, `INSERT INTO `+t.schema+
				`tidings_states (endpoint, part, at, state, reason, detail, actor, comment) VALUES `+
				Placeholders(1, columns)+` ON CONFLICT (endpoint, part, at) DO UPDATE SET state = excluded.state,
				reason = excluded.reason, detail = excluded.detail, actor = excluded.actor, comment = excluded.comment`,
				c.Endpoint, c.Index, micros(c.At), c.State, c.Reason, c.Detail, c.By, c.Comment)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record states of endpoints: %w", err)
	}
	return nil
}

// States implements [eventlog.Journal].
func (t *Tables) States(
	ctx context.Context, endpoint string, since time.Time, limit int,
) ([]eventlog.StateChange, error) {
	read := func(where string, args ...any) (found []eventlog.StateChange, err error) {
		err = t.query(ctx, t.reader, "states of an endpoint", func(rows *sql.Rows) error {
			c := eventlog.StateChange{Endpoint: endpoint}
			var at int64
			err := rows.Scan(&c.Index, &at, &c.State, &c.Reason, &c.Detail, &c.By, &c.Comment)
			c.At = fromMicros(at)
			found = append(found, c)
			return err
		}, "SELECT part, at, state, reason, detail, actor, comment FROM "+t.schema+"tidings_states WHERE endpoint = $1 "+
			where, append([]any{endpoint}, args...)...)
		return found, err
	}
	newest, err := read("AND at > $2 ORDER BY at DESC, part DESC LIMIT $3", micros(since), limit)
	if err != nil {
		return nil, err
	}
	slices.Reverse(newest)
	if len(newest) == limit { // earlier ones are omitted
		since = newest[0].At.Add(-time.Microsecond)
	}
	before, err := read("AND (part, at) IN (SELECT part, max(at) FROM "+t.schema+
		"tidings_states WHERE endpoint = $1 AND at <= $2 GROUP BY part) ORDER BY at, part", micros(since))
	return append(before, newest...), err
}

// sampleColumns are the columns of samples, after the endpoint and the minute.
var sampleColumns = func() []string {
	columns := []string{"delivered", "failed", "waiting", "oldest"}
	for _, name := range []string{"answer", "delay"} {
		for i := range eventlog.HistogramBounds {
			columns = append(columns, fmt.Sprintf("%s_%d", name, i))
		}
	}
	return columns
}()

// sampleTargets returns pointers to the values of sampleColumns.
func sampleTargets(s *eventlog.Sample, oldest *int64) []any {
	targets := []any{&s.Delivered, &s.Failed, &s.Waiting, oldest}
	for _, h := range []*eventlog.Histogram{&s.Answer, &s.Delay} {
		for i := range h {
			targets = append(targets, &h[i])
		}
	}
	return targets
}

// AddSamples implements [eventlog.Journalist].
func (t *Tables) AddSamples(ctx context.Context, samples []eventlog.Sample) error {
	// All writers add in the same order, so that they don't deadlock.
	samples = slices.SortedFunc(slices.Values(samples), func(a, b eventlog.Sample) int {
		return strings.Compare(a.Endpoint, b.Endpoint)
	})
	sets := make([]string, len(sampleColumns))
	for i, c := range sampleColumns {
		sets[i] = fmt.Sprintf("%s = tidings_series.%s + excluded.%s", c, c, c)
		if c == "oldest" {
			sets[i] = "oldest = CASE WHEN excluded.oldest > tidings_series.oldest THEN excluded.oldest " +
				"ELSE tidings_series.oldest END"
		}
	}
	statement := "INSERT INTO " + t.schema + "tidings_series (endpoint, minute, " + strings.Join(sampleColumns, ", ") +
		") VALUES " + Placeholders(1, len(sampleColumns)+2) + " ON CONFLICT (endpoint, minute) DO UPDATE SET " +
		strings.Join(sets, ", ")
	err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, s := range samples {
			oldest := s.Oldest.Microseconds()
			args := []any{s.Endpoint, s.At.Unix() / 60, s.Delivered, s.Failed, s.Waiting, oldest}
			for _, h := range []eventlog.Histogram{s.Answer, s.Delay} {
				for _, n := range h {
					args = append(args, n)
				}
			}
			if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}

// Series implements [eventlog.Journal].
func (t *Tables) Series(
	ctx context.Context, endpoints []string, since time.Time, step time.Duration,
) ([]eventlog.Sample, error) {
	minutes := int64(step / time.Minute)
	sums := make([]string, len(sampleColumns))
	for i, c := range sampleColumns {
		sums[i] = "sum(" + c + ")"
		if c == "waiting" || c == "oldest" {
			sums[i] = "max(" + c + ")"
		}
		sums[i] = "CAST(" + sums[i] + " AS bigint)"
	}
	args, places := []any{since.Unix() / 60, minutes}, make([]string, len(endpoints))
	for i, name := range endpoints {
		args = append(args, name)
		places[i] = fmt.Sprintf("$%d", len(args))
	}
	var found []eventlog.Sample
	err := t.query(ctx, t.reader, "samples of an endpoint", func(rows *sql.Rows) error {
		var s eventlog.Sample
		var at, oldest int64
		err := rows.Scan(append([]any{&s.Endpoint, &at}, sampleTargets(&s, &oldest)...)...)
		s.At, s.Oldest = time.Unix(at*60, 0).UTC(), time.Duration(oldest)*time.Microsecond
		found = append(found, s)
		return err
	}, "SELECT endpoint, minute - minute % CAST($2 AS bigint) AS step, "+strings.Join(sums, ", ")+" FROM "+t.schema+
		"tidings_series WHERE minute >= $1 AND endpoint IN ("+strings.Join(places, ", ")+
		") GROUP BY endpoint, step ORDER BY endpoint, step", args...)
	return found, err
}

// ExpireJournal implements [eventlog.Journal].
func (t *Tables) ExpireJournal(ctx context.Context, before time.Time) error {
	now := time.Now()
	table := func(name string) string { return t.schema + "tidings_" + name }
	for _, remove := range []struct {
		text string
		arg  any
	}{
		{
			"DELETE FROM " + table("actions") + " WHERE id <= (SELECT max(id) FROM " + table("actions") + ") - $1",
			int64(eventlog.MaxActions),
		},
		{"DELETE FROM " + table("actions") + " WHERE at < $1", micros(now.Add(-eventlog.ActionLife))},
		{"DELETE FROM " + table("states") + " WHERE at < $1 AND EXISTS (SELECT 1 FROM " + table("states") +
			" o WHERE o.endpoint = tidings_states.endpoint AND o.part = tidings_states.part AND o.at > tidings_states.at " +
			"AND o.at <= $1)", micros(before)},
	} {
		if _, err := t.Exec(ctx, remove.text, remove.arg); err != nil {
			return fmt.Errorf("remove old journal entries: %w", err)
		}
	}
	for {
		n, err := t.Exec(ctx, "DELETE FROM "+table("series")+" WHERE (endpoint, minute) IN (SELECT endpoint, minute FROM "+
			table("series")+" WHERE minute < $1 LIMIT $2)", now.Add(-eventlog.SeriesLife).Unix()/60, removeBatch)
		if err != nil {
			return fmt.Errorf("remove old samples: %w", err)
		}
		if n < removeBatch {
			return nil
		}
	}
}

package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// AppendHistory implements [eventlog.Recorder].
func (t *Tables) AppendHistory(ctx context.Context, blocks []*eventlog.HistoryBlock) error {
	return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return t.writeHistory(ctx, tx, blocks) })
}

func (t *Tables) writeHistory(ctx context.Context, tx *sql.Tx, blocks []*eventlog.HistoryBlock) error {
	const columns = 8
	return inBatches(len(blocks), func(from, to int) error {
		args := make([]any, 0, (to-from)*columns)
		for _, b := range blocks[from:to] {
			args = append(args, b.Endpoint, micros(b.First), micros(b.Last), b.Lowest, b.Highest,
				b.Records, b.Failures, b.Text())
		}
		_, err := tx.ExecContext(ctx, typed(to-from, "endpoint text", "first_at bigint", "last_at bigint",
			"lowest bigint", "highest bigint", "records bigint", "failures bigint", "records_text text")+`
			INSERT INTO `+t.schema+
			`tidings_history (endpoint, first_at, last_at, lowest, highest, records, failures, records_text, written_at)
			SELECT endpoint, first_at, last_at, lowest, highest, records, failures, records_text, `+
			t.dialect.Now+` FROM v`, args...)
		if err != nil {
			return fmt.Errorf("write history: %w", err)
		}
		return nil
	})
}

// narrow is what separates blocks that span few positions from the others; each kind has
// an index.
const narrow = "10000"

// history returns an expression for the FROM clause: the blocks that may have records of
// events from one position to another, which are parameters with these numbers. The
// newest blocks are not read first, as they would be in the order of their ids.
func (t *Tables) history(from, to int) string {
	return fmt.Sprintf(`(SELECT * FROM %[1]stidings_history WHERE highest - lowest < %[2]s
			AND highest >= $%[3]d AND highest < CAST($%[4]d AS bigint) + %[2]s AND lowest <= $%[4]d
		UNION ALL SELECT * FROM %[1]stidings_history WHERE highest - lowest >= %[2]s
			AND lowest <= $%[4]d AND highest >= $%[3]d) h`, t.schema, narrow, from, to)
}

// clockSkew is how far the clocks of the database and of a process may differ.
const clockSkew = 24 * time.Hour

// ReadHistory implements [eventlog.Archive].
func (t *Tables) ReadHistory(
	ctx context.Context, f eventlog.HistoryFilter,
) (records []eventlog.Record, oldest int64, err error) {
	var c conditions
	blocks, order := t.schema+"tidings_history", "id"
	if f.Sequence != 0 {
		c.args = append(c.args, f.Sequence)
		blocks = t.history(1, 1)
	}
	switch { // expressions, so that the index on ids, which may lead far, is not used
	case f.Failures && f.Endpoint == "":
		order = "id - 0"
	case f.Failures || f.Sequence != 0:
		order = "id + 0"
	}
	c.add(f.Endpoint != "", "endpoint = $%d", f.Endpoint)
	c.add(!f.Since.IsZero(), "last_at >= $%d", micros(f.Since))
	// For PostgreSQL, which then skips the partitions that ended before.
	c.add(!f.Since.IsZero(), t.dialect.Written+" >= $%d", micros(f.Since.Add(-clockSkew)))
	c.add(!f.Until.IsZero(), "first_at < $%d", micros(f.Until))
	if f.Failures {
		c.texts = append(c.texts, "failures > 0") // no parameter: as in its index
	}
	c.add(f.Before != 0, order+" < $%d", f.Before)
	c.add(f.After != 0, order+" > $%d", f.After)
	for _, pair := range f.Mentions() {
		c.args = append(c.args, pair[0], pair[1])
		c.texts = append(c.texts, fmt.Sprintf("(%[1]s(records_text, $%[2]d) > 0 OR %[1]s(records_text, $%[3]d) > 0)",
			t.dialect.Index, len(c.args)-1, len(c.args)))
	}
	err = t.query(Slow(ctx), t.reader, "history", func(rows *sql.Rows) error {
		var endpoint, text string
		if err := rows.Scan(&oldest, &endpoint, &text); err != nil {
			return err
		}
		parsed, err := eventlog.ParseHistory(endpoint, text)
		records = append(records, parsed...)
		return err
	}, "SELECT id, endpoint, records_text FROM "+blocks+c.where()+
		" ORDER BY "+order+" DESC"+limited(f.Limit), c.args...)
	return records, oldest, err
}

package sqllog

import (
	"context"
	"database/sql"
	"fmt"

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

// ReadHistory implements [eventlog.Archive].
func (t *Tables) ReadHistory(
	ctx context.Context, f eventlog.HistoryFilter,
) (records []eventlog.Record, oldest int64, err error) {
	var c conditions
	c.add(f.Endpoint != "", "endpoint = $%d", f.Endpoint)
	c.add(f.Sequence != 0, "lowest <= $%d", f.Sequence)
	c.add(f.Sequence != 0, "highest >= $%d", f.Sequence)
	c.add(!f.Since.IsZero(), "last_at >= $%d", micros(f.Since))
	c.add(!f.Until.IsZero(), "first_at < $%d", micros(f.Until))
	c.add(f.Failures, "failures > $%d", int64(0))
	c.add(f.Before != 0, "id < $%d", f.Before)
	c.add(f.After != 0, "id > $%d", f.After)
	for _, text := range f.Mentions() {
		c.add(true, t.dialect.Index+"(records_text, $%d) > 0", text)
	}
	err = t.query(Slow(ctx), t.reader, "history", func(rows *sql.Rows) error {
		var endpoint, text string
		if err := rows.Scan(&oldest, &endpoint, &text); err != nil {
			return err
		}
		parsed, err := eventlog.ParseHistory(endpoint, text)
		records = append(records, parsed...)
		return err
	}, "SELECT id, endpoint, records_text FROM "+t.schema+"tidings_history"+c.where()+
		fmt.Sprintf(" ORDER BY id DESC LIMIT $%d", len(c.args)+1),
		append(c.args, f.Limit)...)
	return records, oldest, err
}

package main

import (
	"context"
	"database/sql"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/bench"
)

type appender interface {
	BeginTx(ctx context.Context, o *sql.TxOptions) (*sql.Tx, error)
}

const fillBatch = 500

// fill appends events to the log and waits until they are numbered.
func fill(ctx context.Context, log bench.Log, db appender, events int) error {
	for events > 0 {
		n := min(events, fillBatch)
		batch := make([]tidings.Event, n)
		for i := range batch {
			batch[i] = bench.SampleEvent()
		}
		if err := appendBatch(ctx, log, db, batch); err != nil {
			return err
		}
		events -= n
	}
	_, err := log.Advance(ctx)
	return err
}

func appendBatch(ctx context.Context, log bench.Log, db appender, batch []tidings.Event) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // no-op after a commit
	if err := log.Append(ctx, tx, batch...); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	log.Committed(batch...)
	return nil
}

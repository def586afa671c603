package store

import (
	"context"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/sqllog"
)

// WithoutEvents is a store that writes no events, to measure what they cost.
func (s *Store) WithoutEvents() *Store {
	silent := *s
	silent.log = silentLog{s.log}
	return &silent
}

type silentLog struct{ appendLog }

func (silentLog) Append(context.Context, sqllog.Execer, ...tidings.Event) error { return nil }

func (silentLog) Wake() {}

// Setting is what a setting of PostgreSQL is in the transaction.
func (tx *Tx) Setting(ctx context.Context, name string) (value string, err error) {
	err = tx.tx.QueryRowContext(ctx, "SHOW "+name).Scan(&value)
	return value, err
}

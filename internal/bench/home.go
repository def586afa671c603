package bench

import (
	"context"
	"database/sql"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Log is an event log that appends events in a transaction of its database.
type Log = store.Log

// Home is a log and its database, opened as the server opens them.
type Home struct {
	Log
	DB    *sql.DB // for writing
	store *store.Store
}

// Open opens a database: PostgreSQL if there is a URL, otherwise SQLite in a folder. It
// creates no tables.
func Open(url, folder string) (*Home, error) {
	s, err := open(url, folder)
	if err != nil {
		return nil, err
	}
	return &Home{Log: s.Log(), DB: s.DB(), store: s}, nil
}

func open(url, folder string) (*store.Store, error) {
	if url != "" {
		return store.OpenPostgres(url, store.PostgresOptions{})
	}
	return store.OpenSQLite(folder)
}

// Transact runs a transaction as the server does, and appends the events that do returns.
func (h *Home) Transact(
	ctx context.Context, do func(context.Context, *sql.Tx) ([]tidings.Event, error),
) error {
	return h.store.Transact(ctx, do)
}

// Close closes the database.
func (h *Home) Close() error { return h.store.Close() }

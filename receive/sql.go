package receive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
)

// SQL is a [Storage] in a PostgreSQL or SQLite database. An event is handled and
// remembered in one transaction: what the function that handles it writes with
// [Tx] happens exactly once.
//
// With SQLite, set a busy timeout (such as 10 s), because transactions wait for
// each other.
type SQL struct {
	db      *sql.DB
	cleaned atomic.Int64 // Unix time
}

const (
	// idsKept is longer than any event is retried or kept in the log by default.
	idsKept       = 30 * 24 * time.Hour
	cleanInterval = time.Hour
)

// NewSQL returns a storage in a database, and creates its tables
// (tidings_handled, tidings_newest and tidings_feed) if they are missing.
func NewSQL(ctx context.Context, db *sql.DB) (*SQL, error) {
	for _, table := range []string{
		"tidings_handled (id TEXT PRIMARY KEY, handled_at BIGINT NOT NULL)",
		`tidings_newest (resource TEXT PRIMARY KEY, version BIGINT NOT NULL, sequence BIGINT NOT NULL,
			changed_at BIGINT NOT NULL)`,
		"tidings_feed (id BIGINT PRIMARY KEY, position TEXT NOT NULL)",
	} {
		if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+table); err != nil {
			return nil, fmt.Errorf("create the tables of the receiver: %w", err)
		}
	}
	return &SQL{db: db}, nil
}

type txKey struct{}

// Tx returns the transaction in which the event is remembered, for the function
// that handles it; nil with another storage than [SQL].
func Tx(ctx context.Context) *sql.Tx {
	tx, _ := ctx.Value(txKey{}).(*sql.Tx)
	return tx
}

// Once implements [Storage].
func (s *SQL) Once(ctx context.Context, e tidings.Event, handle func(context.Context) error) (Result, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return Failed, err
	}
	defer func() { _ = tx.Rollback() }() // after a commit, it does nothing
	result, err := once(ctx, tx, e, handle)
	if err != nil {
		return Failed, err
	}
	if err := s.clean(ctx, tx); err != nil {
		return Failed, err
	}
	if err := tx.Commit(); err != nil {
		return Failed, fmt.Errorf("remember event %s: %w", e.ID, err)
	}
	return result, nil
}

func once(ctx context.Context, tx *sql.Tx, e tidings.Event, handle func(context.Context) error) (Result, error) {
	inserted, err := tx.ExecContext(ctx,
		"INSERT INTO tidings_handled (id, handled_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
		e.ID, time.Now().Unix())
	if err != nil {
		return Failed, fmt.Errorf("remember event %s: %w", e.ID, err)
	}
	if n, err := inserted.RowsAffected(); n == 0 || err != nil {
		return Duplicate, err
	}
	// The row is locked until the transaction ends: events of a resource are handled one at a time.
	var newest tidings.Event
	var changed int64
	err = tx.QueryRowContext(ctx, `INSERT INTO tidings_newest (resource, version, sequence, changed_at)
		VALUES ($1, 0, 0, 0) ON CONFLICT (resource) DO UPDATE SET version = tidings_newest.version
		RETURNING version, sequence, changed_at`, e.Resource()).
		Scan(&newest.ResourceVersion, &newest.Sequence, &changed)
	if err != nil {
		return Failed, fmt.Errorf("read the newest event of %s: %w", e.Resource(), err)
	}
	if changed != 0 {
		newest.Time = time.UnixMicro(changed).UTC()
		if older(e, newest) {
			return Stale, nil
		}
	}
	if err := handle(context.WithValue(ctx, txKey{}, tx)); err != nil {
		return Failed, err
	}
	newest = newer(e, newest)
	if _, err := tx.ExecContext(ctx,
		"UPDATE tidings_newest SET version = $1, sequence = $2, changed_at = $3 WHERE resource = $4",
		newest.ResourceVersion, newest.Sequence, newest.Time.UnixMicro(), e.Resource()); err != nil {
		return Failed, fmt.Errorf("remember the newest event of %s: %w", e.Resource(), err)
	}
	return Handled, nil
}

// clean forgets old ids once an hour.
func (s *SQL) clean(ctx context.Context, tx *sql.Tx) error {
	now := time.Now()
	before := s.cleaned.Load()
	if now.Sub(time.Unix(before, 0)) < cleanInterval || !s.cleaned.CompareAndSwap(before, now.Unix()) {
		return nil
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM tidings_handled WHERE handled_at < $1", now.Add(-idsKept).Unix())
	return err
}

// Cursor implements [Storage].
func (s *SQL) Cursor(ctx context.Context) (string, error) {
	var cursor string
	err := s.db.QueryRowContext(ctx, "SELECT position FROM tidings_feed WHERE id = 1").Scan(&cursor)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return cursor, err
}

// SetCursor implements [Storage].
func (s *SQL) SetCursor(ctx context.Context, cursor string) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO tidings_feed (id, position) VALUES (1, $1)
		ON CONFLICT (id) DO UPDATE SET position = excluded.position`, cursor)
	return err
}

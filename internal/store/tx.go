package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings"
)

// ErrNotFound says that a row is not there.
var ErrNotFound = errors.New("no such row")

// Tx is a transaction. It fixes one time for everything in it, and appends its
// events last, so that whoever changes a row holds it until they are numbered.
type Tx struct {
	// Now is the time of all changes in the transaction, to the microsecond.
	Now time.Time

	tx     bun.Tx
	events []tidings.Event
}

// InTx runs do in a transaction: all of it is committed, events included, or
// none.
func (s *Store) InTx(ctx context.Context, do func(*Tx) error) error {
	begun, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer begun.Rollback() //nolint:errcheck // after a commit it does nothing
	tx := &Tx{Now: time.Now().UTC().Truncate(time.Microsecond), tx: begun}
	if err := do(tx); err != nil {
		return err
	}
	if len(tx.events) > 0 {
		// Not through bun, which has placeholders of its own.
		if err := s.log.Append(ctx, begun.Tx, tx.events...); err != nil {
			return err
		}
	}
	if err := begun.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if len(tx.events) > 0 {
		s.log.Wake()
	}
	return nil
}

// Insert writes a new row and the event that tells of it.
func (tx *Tx) Insert(ctx context.Context, row any, e tidings.Event) error {
	if _, err := tx.tx.NewInsert().Model(row).Exec(ctx); err != nil {
		return fmt.Errorf("insert %s: %w", e.Type, err)
	}
	tx.tell(e)
	return nil
}

// Update writes a changed row, found by its primary key, and the event that
// tells of it.
func (tx *Tx) Update(ctx context.Context, row any, e tidings.Event) error {
	result, err := tx.tx.NewUpdate().Model(row).WherePK().Exec(ctx)
	return tx.changed(result, err, "update", e)
}

// Delete removes a row, found by its primary key, and writes the event that
// tells of it.
func (tx *Tx) Delete(ctx context.Context, row any, e tidings.Event) error {
	result, err := tx.tx.NewDelete().Model(row).WherePK().Exec(ctx)
	return tx.changed(result, err, "delete", e)
}

func (tx *Tx) changed(result sql.Result, err error, verb string, e tidings.Event) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, e.Type, err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("%s %s %s: %w", verb, e.Type, e.ResourceID, errors.Join(ErrNotFound, err))
	}
	tx.tell(e)
	return nil
}

func (tx *Tx) tell(e tidings.Event) {
	e.Time = tx.Now
	tx.events = append(tx.events, e)
}

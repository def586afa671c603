package resource

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings/internal/store"
)

// Owned is something that goes with a resource that is deleted, by whom it is
// deleted. What fires events, fires its own.
type Owned func(ctx context.Context, tx *store.Tx, who Caller, parent string) error

// Rows are read so many at a time.
const cascadeBatch = 500

// deletes removes the resources whose column names the parent.
func deletes[R Row](c *Collection[R], column string) Owned {
	return func(ctx context.Context, tx *store.Tx, who Caller, parent string) error {
		return eachOf(ctx, tx, column, parent, func(row R) error {
			err := c.remove(ctx, tx, who, row)
			if errors.Is(err, store.ErrNotFound) {
				return nil // it went with another row
			}
			return err
		})
	}
}

// clears takes the parent out of the resources whose column names it.
func clears[R Row](c *Collection[R], column string, clear func(R)) Owned {
	return func(ctx context.Context, tx *store.Tx, who Caller, parent string) error {
		return eachOf(ctx, tx, column, parent, func(row R) error {
			return c.change(ctx, tx, who, row, func(row R) error {
				clear(row)
				return nil
			})
		})
	}
}

// eachOf calls do, which makes them go, with the rows whose column names the
// parent.
func eachOf[R Row](ctx context.Context, tx *store.Tx, column, parent string, do func(R) error) error {
	for {
		var rows []R
		err := tx.Find(ctx, &rows, cascadeBatch, store.Filter{Column: column, Op: store.Equal, Value: parent})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := do(row); err != nil {
				return err
			}
		}
		if len(rows) < cascadeBatch {
			return nil
		}
	}
}

// details removes rows that are part of the parent.
func details(row any, column string) Owned {
	return func(ctx context.Context, tx *store.Tx, _ Caller, parent string) error {
		_, err := tx.DeleteDetails(ctx, row, store.Filter{Column: column, Op: store.Equal, Value: parent})
		return err
	}
}

package resource

import (
	"context"
	"errors"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Rows are read in batches of this size.
const cascadeBatch = 500

// references returns the declared references to a type, and created_by.
func (c *collection[R]) references(to tidings.ResourceType) (refs []reference[R]) {
	if to == UserType && !c.kind.Unowned {
		refs = append(refs, reference[R]{To: UserType, Column: "created_by"})
	}
	for _, ref := range c.kind.References {
		if ref.To == to {
			refs = append(refs, ref)
		}
	}
	return refs
}

// deletedWith implements [registered].
func (c *collection[R]) deletedWith(to tidings.ResourceType) (columns []store.Column) {
	for _, ref := range c.references(to) {
		if ref.Clear == nil {
			columns = append(columns, store.Column{Row: c.kind.New(), Name: ref.Column})
		}
	}
	return columns
}

// deleteWith implements [registered].
func (c *collection[R]) deleteWith(
	ctx context.Context, tx *store.Tx, who Caller, to tidings.ResourceType, id string,
) error {
	for _, ref := range c.references(to) {
		if ref.Clear != nil {
			continue
		}
		err := eachOf(ctx, tx, ref.Column, id, func(row R) error {
			err := c.remove(ctx, tx, who, row)
			if errors.Is(err, store.ErrNotFound) {
				return nil // already deleted with another row
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// clear implements [registered].
func (c *collection[R]) clear(ctx context.Context, tx *store.Tx, who Caller, to tidings.ResourceType, id string) error {
	for _, ref := range c.references(to) {
		if ref.Clear == nil {
			continue
		}
		err := eachOf(ctx, tx, ref.Column, id, func(row R) error {
			return c.change(ctx, tx, who, row, func(row R) (bool, error) {
				ref.Clear(row)
				return true, nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachOf calls do for each row whose column refers to parent. After do returns,
// the row no longer refers to it.
func eachOf[R Row](ctx context.Context, tx *store.Tx, column, parent string, do func(R) error) error {
	for {
		var rows []R
		err := tx.Find(ctx, &rows, cascadeBatch, equal(column, parent))
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

// deleteDependents deletes the resources that are deleted along with the given
// one, each with its own event, attributed to the same caller.
func (c *core) deleteDependents(
	ctx context.Context, tx *store.Tx, who Caller, to tidings.ResourceType, id string,
) error {
	for _, t := range c.types {
		if err := t.deleteWith(ctx, tx, who, to, id); err != nil {
			return err
		}
	}
	return nil
}

// clearReferences removes all references to a resource that is being deleted.
func (c *core) clearReferences(
	ctx context.Context, tx *store.Tx, who Caller, to tidings.ResourceType, id string,
) error {
	for _, t := range c.types {
		if err := t.clear(ctx, tx, who, to, id); err != nil {
			return err
		}
	}
	return nil
}

package resource

import (
	"bytes"
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// core is shared by all types, which receive it on registration.
type core struct {
	store  *store.Store
	quotas Quotas
	logger *slog.Logger
	types  []registered
}

// collection implements the verbs for the resources of one type. The type
// exports those that apply to it.
type collection[R Row] struct {
	*core // nil until the type is registered
	kind  kind[R]
}

func newCollection[R Row](k kind[R]) *collection[R] {
	if k.Guard == nil {
		k.Guard = func(context.Context, *store.Tx, verb, R) error { return nil }
	}
	if k.Deleting == nil {
		k.Deleting = func(context.Context, *store.Tx, string) error { return nil }
	}
	return &collection[R]{kind: k}
}

// create inserts a resource; id, times and owner of the row are filled in.
func (c *collection[R]) create(ctx context.Context, who Caller, row R) (R, error) {
	err := c.store.InTx(ctx, func(tx *store.Tx) error { return c.insert(ctx, tx, who, row) })
	return row, err
}

func (c *collection[R]) insert(ctx context.Context, tx *store.Tx, who Caller, row R) error {
	b := row.base()
	if err := c.kind.permit(who, creating); err != nil {
		return err
	}
	if b.ID == "" {
		b.ID = uuid.NewString()
	}
	b.Version, b.CreatedAt, b.UpdatedAt = 1, tx.Now, tx.Now
	if !c.kind.Unowned {
		b.CreatedBy = &who.UserID
	}
	if err := c.kind.Guard(ctx, tx, creating, row); err != nil {
		return err
	}
	if err := c.takeRow(ctx, tx, who); err != nil {
		return err
	}
	return fromStore(tx.Insert(ctx, row, c.kind.event(who, row, tidings.Created)), c.kind.name())
}

// get returns a resource that the caller may read.
func (c *collection[R]) get(ctx context.Context, who Caller, id string) (R, error) {
	return c.find(ctx, who, reading, id)
}

// find returns a resource on which the caller may perform the verb.
func (c *collection[R]) find(ctx context.Context, who Caller, do verb, id string) (R, error) {
	row := c.withID(id)
	if err := c.kind.permit(who, do); err != nil {
		return row, err
	}
	return row, fromStore(c.store.Get(ctx, row, c.kind.visible(who, do)...), c.kind.name())
}

// update applies change to a locked row, in the transaction; change may run
// more than once. It reports whether it modified anything that is not visible
// in the row's JSON. If it did not and the JSON is the same as before, nothing
// is written and there is no event. ifMatch is the expected version, or 0 for
// any.
func (c *collection[R]) update(ctx context.Context, who Caller, id string, ifMatch int64,
	change func(*store.Tx, R) (hidden bool, err error),
) (row R, err error) {
	err = c.store.InTx(ctx, func(tx *store.Tx) error {
		if row, err = c.lock(ctx, tx, who, updating, id, ifMatch); err != nil {
			return err
		}
		return c.change(ctx, tx, who, row, func(row R) (bool, error) { return change(tx, row) })
	})
	return row, err
}

// change applies a change to a locked row, as [collection.update] does.
func (c *collection[R]) change(
	ctx context.Context, tx *store.Tx, who Caller, row R, change func(R) (hidden bool, err error),
) error {
	before, err := snapshot(row)
	if err != nil {
		return err
	}
	hidden, err := change(row)
	if err != nil {
		return err
	}
	after, err := snapshot(row)
	if err != nil {
		return err
	}
	if !hidden && bytes.Equal(before, after) {
		return nil
	}
	if err := c.kind.Guard(ctx, tx, updating, row); err != nil {
		return err
	}
	b := row.base()
	b.Version++
	b.UpdatedAt = tx.Now
	return fromStore(tx.Update(ctx, row, c.kind.event(who, row, tidings.Updated)), c.kind.name())
}

// delete deletes a resource and everything that depends on it.
func (c *collection[R]) delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return c.store.InTx(ctx, func(tx *store.Tx) error {
		row, err := c.lock(ctx, tx, who, deleting, id, ifMatch)
		if err != nil {
			return err
		}
		return c.remove(ctx, tx, who, row)
	})
}

// remove deletes a locked row, after everything that is deleted along with it.
func (c *collection[R]) remove(ctx context.Context, tx *store.Tx, who Caller, row R) error {
	if err := c.kind.Guard(ctx, tx, deleting, row); err != nil {
		return err
	}
	id := row.base().ID
	if err := c.deleteDependents(ctx, tx, who, c.kind.Type, id); err != nil {
		return err
	}
	if err := c.clearReferences(ctx, tx, who, c.kind.Type, id); err != nil {
		return err
	}
	for _, d := range c.kind.Details {
		if _, err := tx.DeleteDetails(ctx, d.row, equal(d.column, id)); err != nil {
			return err
		}
	}
	if err := c.kind.Deleting(ctx, tx, id); err != nil {
		return err
	}
	row.base().Version++
	return fromStore(tx.Delete(ctx, row, c.kind.event(who, row, tidings.Deleted)), c.kind.name())
}

// lock reads and locks a row on which the caller may perform the verb. ifMatch
// is the expected version, or 0 for any.
func (c *collection[R]) lock(
	ctx context.Context, tx *store.Tx, who Caller, do verb, id string, ifMatch int64,
) (R, error) {
	row := c.withID(id)
	if err := c.kind.permit(who, do); err != nil {
		return row, err
	}
	if err := tx.Lock(ctx, row, c.kind.visible(who, do)...); err != nil {
		return row, fromStore(err, c.kind.name())
	}
	if v := row.base().Version; ifMatch != 0 && ifMatch != v {
		return row, fail(Changed, "If-Match", "the %s has changed: it is now at version %d", c.kind.name(), v)
	}
	return row, nil
}

func (c *collection[R]) withID(id string) R {
	row := c.kind.New()
	row.base().ID = id
	return row
}

// list returns a page of the resources that the caller may read.
func (c *collection[R]) list(ctx context.Context, who Caller, page Page, filters ...store.Filter) (*Items[R], error) {
	if err := c.kind.permit(who, reading); err != nil {
		return nil, err
	}
	filters = append(c.kind.visible(who, reading), filters...)
	order := store.Order{Column: page.OrderBy, Descending: page.Descending, Limit: page.Limit}
	if page.Token != "" {
		last, err := c.get(ctx, who, page.Token)
		if isCode(err, NotFound) {
			return nil, fail(Invalid, "page_token", "the item no longer exists; start again from the first page")
		} else if err != nil {
			return nil, err
		}
		order.After = &store.Position{ID: last.base().ID, Value: last.sortValue(page.OrderBy)}
	}
	list, err := c.page(ctx, order, filters...)
	if err != nil {
		return nil, err
	}
	list.TotalCount, err = c.store.Count(ctx, c.kind.New(), filters...)
	return list, err
}

// page returns a page of the resources that match the filters.
func (c *collection[R]) page(ctx context.Context, order store.Order, filters ...store.Filter) (*Items[R], error) {
	return readPage(ctx, c.store, c.kind.New, order, func(row R) store.Position {
		return store.Position{ID: row.base().ID, Value: row.sortValue(order.Column)}
	}, filters...)
}

// all calls do for every resource, page by page.
func (c *collection[R]) all(ctx context.Context, do func(R) error, filters ...store.Filter) error {
	order := store.Order{Column: "created_at", Limit: 100}
	for {
		list, err := c.page(ctx, order, filters...)
		if err != nil {
			return err
		}
		for _, row := range list.Items {
			if err := do(row); err != nil {
				return err
			}
		}
		if !list.HasMore {
			return nil
		}
		last := list.Items[len(list.Items)-1].base()
		order.After = &store.Position{Value: last.CreatedAt, ID: last.ID}
	}
}

// exists reports whether a resource exists.
func (c *collection[R]) exists(ctx context.Context, id string) (bool, error) {
	err := c.store.Get(ctx, c.withID(id))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// equal selects the rows whose column has the value.
func equal(column string, value any) store.Filter {
	return store.Filter{Column: column, Op: store.Equal, Value: value}
}

// ownedFilter restricts a list to the caller's own resources, or to those of
// others.
func ownedFilter(who Caller, owned *bool) []store.Filter {
	if owned == nil {
		return nil
	}
	op := store.NotEqual
	if *owned {
		op = store.Equal
	}
	return []store.Filter{{Column: "created_by", Op: op, Value: who.UserID}}
}

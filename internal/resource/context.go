package resource

import (
	"context"
	"errors"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// Context is a conversation and everything that belongs to it.
type Context struct {
	bun.BaseModel `bun:"table:contexts"`
	Base

	ProviderID   *string   `json:"provider_id" format:"uuid"`
	Metadata     Metadata  `bun:"type:json" json:"metadata"`
	LastActiveAt time.Time `json:"last_active_at"`
	HistoryCount int64     `json:"-"`
	HistoryBytes int64     `json:"-"`
}

// Contexts is the type of the users' conversations.
type Contexts struct {
	*collection[*Context]
	providers *Providers
}

func newContexts(providers *Providers) *Contexts {
	return &Contexts{providers: providers, collection: newCollection(kind[*Context]{
		Type:   ContextType,
		URL:    "/api/v1/contexts/{id}",
		New:    func() *Context { return new(Context) },
		policy: private,
		References: []reference[*Context]{
			{To: ProviderType, Column: "provider_id", Clear: func(c *Context) { c.ProviderID = nil }},
		},
		Details: []detail{{new(HistoryItem), "context_id"}},
	})}
}

// Get returns one of the caller's contexts.
func (c *Contexts) Get(ctx context.Context, who Caller, id string) (*Context, error) {
	return c.get(ctx, who, id)
}

// Delete deletes a context with its history and everything that belongs to it.
// ifMatch is the expected version, or 0 for any.
func (c *Contexts) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return c.delete(ctx, who, id, ifMatch)
}

// NewContext is a request to create a context.
type NewContext struct {
	Metadata   Metadata `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
	ProviderID *string  `json:"provider_id" required:"false" format:"uuid"`
}

// Create creates a context.
func (c *Contexts) Create(ctx context.Context, who Caller, in NewContext) (*Context, error) {
	if err := in.Metadata.check(); err != nil {
		return nil, err
	}
	row := &Context{Metadata: in.Metadata.orEmpty(), ProviderID: in.ProviderID}
	err := c.store.InTx(ctx, func(tx *store.Tx) error {
		if in.ProviderID != nil {
			provider, err := c.providers.lockNamed(ctx, tx, who, *in.ProviderID)
			if err != nil {
				return err
			}
			if err := tx.Touch(ctx, provider); err != nil {
				return err
			}
		}
		row.LastActiveAt = tx.Now
		return c.insert(ctx, tx, who, row)
	})
	return row, err
}

// ContextUpdate replaces a context's metadata. If it is omitted or null, the
// metadata is cleared.
type ContextUpdate struct {
	Metadata Metadata `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
}

// Put replaces a context's metadata.
func (c *Contexts) Put(ctx context.Context, who Caller, id string, ifMatch int64, in ContextUpdate) (*Context, error) {
	if err := in.Metadata.check(); err != nil {
		return nil, err
	}
	return c.update(ctx, who, id, ifMatch, func(_ *store.Tx, row *Context) (bool, error) {
		row.Metadata = in.Metadata.orEmpty()
		return false, nil
	})
}

// MetadataPatch merges into metadata; null removes a key.
type MetadataPatch struct {
	Metadata map[string]*string `json:"metadata" maxProperties:"32"`
}

// PatchMetadata merges changes into a context's metadata.
func (c *Contexts) PatchMetadata(
	ctx context.Context, who Caller, id string, ifMatch int64, in MetadataPatch,
) (*Context, error) {
	return c.update(ctx, who, id, ifMatch, func(_ *store.Tx, row *Context) (bool, error) {
		row.Metadata = row.Metadata.merge(in.Metadata)
		return false, row.Metadata.check()
	})
}

// inContextID attributes a not-found error to the member or parameter
// context_id.
func inContextID(err error) error {
	if isCode(err, NotFound) {
		return fail(NotFound, "context_id", "no such context")
	}
	return err
}

// need returns an error if the request is restricted to a context that does not
// belong to the caller.
func (c *Contexts) need(ctx context.Context, who Caller) error {
	if who.ContextID == "" {
		return nil
	}
	_, err := c.get(ctx, who, who.ContextID)
	return inContextID(err)
}

// lockNamed locks one of the caller's contexts, named in a request.
func (c *Contexts) lockNamed(ctx context.Context, tx *store.Tx, who Caller, id string) (*Context, error) {
	row, err := c.lock(ctx, tx, who, updating, id, 0)
	return row, inContextID(err)
}

// enter locks one of the caller's contexts for an operation in it, and records
// the activity. A nil id stands for no context.
func (c *Contexts) enter(ctx context.Context, tx *store.Tx, who Caller, id *string) error {
	if id == nil {
		return nil
	}
	row, err := c.lockNamed(ctx, tx, who, *id)
	if err != nil {
		return err
	}
	return tx.Touch(ctx, row)
}

// How many contexts are expired per batch.
const expiryBatch = 100

// Expire deletes what belongs to contexts that have been idle for the given
// time, such as files, and returns the number of contexts.
func (c *Contexts) Expire(ctx context.Context, idle time.Duration) (expired int, err error) {
	var inside []store.Column
	for _, t := range c.types {
		inside = append(inside, t.deletedWith(ContextType)...)
	}
	for {
		before := now().Add(-idle)
		ids, err := c.store.Idle(ctx, new(Context), before, expiryBatch, inside...)
		if err != nil || len(ids) == 0 {
			return expired, err
		}
		for _, id := range ids {
			if err := c.expire(ctx, id, before); err != nil {
				return expired, err
			}
			expired++
		}
	}
}

func (c *Contexts) expire(ctx context.Context, id string, before time.Time) error {
	return c.store.InTx(ctx, func(tx *store.Tx) error {
		row := c.withID(id)
		err := tx.Lock(ctx, row)
		if errors.Is(err, store.ErrNotFound) || (err == nil && !row.LastActiveAt.Before(before)) {
			return nil // deleted or active again
		} else if err != nil {
			return err
		}
		return c.deleteDependents(ctx, tx, owner(row), ContextType, row.ID)
	})
}

// ContextFilter filters a list of contexts.
type ContextFilter struct {
	ProviderID string
	// NotEmpty omits contexts without history.
	NotEmpty bool
}

// List returns a page of the caller's contexts.
func (c *Contexts) List(ctx context.Context, who Caller, page Page, in ContextFilter) (*Items[*Context], error) {
	var filters []store.Filter
	if in.ProviderID != "" {
		filters = append(filters, ofProvider(in.ProviderID))
	}
	if in.NotEmpty {
		filters = append(filters, store.Filter{Column: "history_count", Op: store.Greater, Value: 0})
	}
	return c.list(ctx, who, page, filters...)
}

func ofProvider(id string) store.Filter {
	return equal("provider_id", id)
}

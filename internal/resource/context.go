package resource

import (
	"context"
	"errors"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// Context is a conversation, and what belongs to it.
type Context struct {
	bun.BaseModel `bun:"table:contexts"`
	Base

	ProviderID   *string   `json:"provider_id" format:"uuid"`
	Metadata     Metadata  `bun:"type:json" json:"metadata"`
	LastActiveAt time.Time `json:"last_active_at"`
	HistoryCount int64     `json:"-"`
	HistoryBytes int64     `json:"-"`
}

func contextKind(owns ...Owned) Kind[*Context] {
	return Kind[*Context]{
		Type:   ContextType,
		URL:    "/api/v1/contexts/{id}",
		New:    func() *Context { return new(Context) },
		Policy: private,
		Owns:   owns,
	}
}

// NewContext asks for a conversation.
type NewContext struct {
	Metadata   Metadata `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
	ProviderID *string  `json:"provider_id" required:"false" format:"uuid"`
}

// CreateContext begins a conversation.
func (r *Resources) CreateContext(ctx context.Context, who Caller, in NewContext) (*Context, error) {
	if err := in.Metadata.check(); err != nil {
		return nil, err
	}
	row := &Context{Metadata: in.Metadata.orEmpty(), ProviderID: in.ProviderID}
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		if in.ProviderID != nil {
			provider, err := r.lockProvider(ctx, tx, who, *in.ProviderID)
			if err != nil {
				return err
			}
			if err := tx.Touch(ctx, provider); err != nil {
				return err
			}
		}
		row.LastActiveAt = tx.Now
		return r.Contexts.insert(ctx, tx, who, row)
	})
	return row, err
}

// ContextUpdate replaces a context's metadata; left out or null, it clears it.
type ContextUpdate struct {
	Metadata Metadata `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
}

// PutContext replaces a context's metadata.
func (r *Resources) PutContext(ctx context.Context, who Caller, id string, ifMatch int64, in ContextUpdate) (*Context, error) {
	if err := in.Metadata.check(); err != nil {
		return nil, err
	}
	return r.Contexts.Update(ctx, who, id, ifMatch, func(row *Context) error {
		row.Metadata = in.Metadata.orEmpty()
		return nil
	})
}

// MetadataPatch merges into metadata; null removes a key.
type MetadataPatch struct {
	Metadata map[string]*string `json:"metadata" maxProperties:"32"`
}

// PatchContextMetadata merges changes into a context's metadata.
func (r *Resources) PatchContextMetadata(ctx context.Context, who Caller, id string, ifMatch int64, in MetadataPatch) (*Context, error) {
	return r.Contexts.Update(ctx, who, id, ifMatch, func(row *Context) error {
		row.Metadata = row.Metadata.merge(in.Metadata)
		return row.Metadata.check()
	})
}

// inContextID names the parameter or member in the error about a context that
// does not exist or is not the caller's.
func inContextID(err error) error {
	if isCode(err, NotFound) {
		return fail(NotFound, "context_id", "there is no such context")
	}
	return err
}

// needContext returns an error if the request is limited to a context that is not
// the caller's.
func (r *Resources) needContext(ctx context.Context, who Caller) error {
	if who.ContextID == "" {
		return nil
	}
	_, err := r.Contexts.Get(ctx, who, who.ContextID)
	return inContextID(err)
}

// lockContext holds a context of the caller's until the end of the transaction.
func (r *Resources) lockContext(ctx context.Context, tx *store.Tx, who Caller, id string) (*Context, error) {
	row, err := r.Contexts.lock(ctx, tx, who, Updating, id, 0)
	return row, inContextID(err)
}

// enter holds a context of the caller's for something that is done in it, and
// notes that it is active. A nil id is no context.
func (r *Resources) enter(ctx context.Context, tx *store.Tx, who Caller, id *string) error {
	if id == nil {
		return nil
	}
	row, err := r.lockContext(ctx, tx, who, *id)
	if err != nil {
		return err
	}
	return tx.Touch(ctx, row)
}

// Contexts whose things expire, at a time.
const expiryBatch = 100

// ExpireContexts deletes the files and vector stores of contexts that were idle
// for so long, and says of how many contexts.
func (r *Resources) ExpireContexts(ctx context.Context, idle time.Duration) (expired int, err error) {
	for {
		before := r.now().Add(-idle)
		ids, err := r.store.IdleContexts(ctx, before, expiryBatch)
		if err != nil || len(ids) == 0 {
			return expired, err
		}
		for _, id := range ids {
			if err := r.expireContext(ctx, id, before); err != nil {
				return expired, err
			}
			expired++
		}
	}
}

func (r *Resources) expireContext(ctx context.Context, id string, before time.Time) error {
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		row := r.Contexts.withID(id)
		err := tx.Lock(ctx, row)
		if errors.Is(err, store.ErrNotFound) || (err == nil && !row.LastActiveAt.Before(before)) {
			return nil // deleted, or active again
		} else if err != nil {
			return err
		}
		for _, owned := range r.expires {
			if err := owned(ctx, tx, owner(row), row.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// ContextFilter narrows a list of contexts.
type ContextFilter struct {
	ProviderID string
	// NotEmpty leaves out contexts without history.
	NotEmpty bool
}

// ListContexts returns a part of the caller's contexts.
func (r *Resources) ListContexts(ctx context.Context, who Caller, page Page, in ContextFilter) (*Items[*Context], error) {
	var filters []store.Filter
	if in.ProviderID != "" {
		filters = append(filters, ofProvider(in.ProviderID))
	}
	if in.NotEmpty {
		filters = append(filters, store.Filter{Column: "history_count", Op: store.Greater, Value: 0})
	}
	return r.Contexts.List(ctx, who, page, filters...)
}

func ofProvider(id string) store.Filter {
	return store.Filter{Column: "provider_id", Op: store.Equal, Value: id}
}

package resource

import (
	"context"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// Configuration holds the system-wide defaults, in a single row that always
// exists.
type Configuration struct {
	bun.BaseModel `bun:"table:configurations"`
	Base

	Kind                  string  `json:"-"`
	DefaultLLMModel       *string `bun:"default_llm_model" json:"default_llm_model"`
	DefaultEmbeddingModel *string `bun:"default_embedding_model" json:"default_embedding_model"`
}

// Configurations is the type of the system-wide defaults, which can only be
// updated.
type Configurations struct {
	*collection[*Configuration]
	models *ModelProviders
}

func newConfigurations(models *ModelProviders) *Configurations {
	return &Configurations{models: models, collection: newCollection(kind[*Configuration]{
		Type:      ConfigurationType,
		URL:       "/api/v1/configurations/system",
		New:       func() *Configuration { return new(Configuration) },
		policy:    administered(RoleUser),
		Unowned:   true, // created_by is the last user who set them
		Unlimited: true,
	})}
}

// SystemConfiguration replaces the system configuration; omitted fields are
// reset.
type SystemConfiguration struct {
	DefaultLLMModel       *string `json:"default_llm_model" required:"false" maxLength:"256"`
	DefaultEmbeddingModel *string `json:"default_embedding_model" required:"false" maxLength:"256"`
}

// System returns the defaults. Until they are first set, the caller counts as
// their owner.
func (c *Configurations) System(ctx context.Context, who Caller) (*Configuration, error) {
	if err := c.kind.permit(who, reading); err != nil {
		return nil, err
	}
	row := new(Configuration)
	if err := c.store.First(ctx, row, equal("kind", "system")); err != nil {
		return nil, fromStore(err, "configuration")
	}
	return row.ownedBy(who), nil
}

// ownedBy sets the owner if there is none.
func (c *Configuration) ownedBy(who Caller) *Configuration {
	if c.CreatedBy == nil {
		c.CreatedBy = &who.UserID
	}
	return c
}

// PutSystem sets the defaults. It rejects models that no model provider offers.
func (c *Configurations) PutSystem(
	ctx context.Context, who Caller, ifMatch int64, in SystemConfiguration,
) (*Configuration, error) {
	if err := c.kind.permit(who, updating); err != nil {
		return nil, err
	}
	now, err := c.System(ctx, who)
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		field     string
		now, want *string
	}{
		{"default_llm_model", now.DefaultLLMModel, in.DefaultLLMModel},
		{"default_embedding_model", now.DefaultEmbeddingModel, in.DefaultEmbeddingModel},
	} {
		if m.want == nil || (m.now != nil && *m.now == *m.want) {
			continue
		}
		if err := c.models.need(ctx, m.field, *m.want); err != nil {
			return nil, err
		}
	}
	row, err := c.update(ctx, who, now.ID, ifMatch, func(_ *store.Tx, row *Configuration) (bool, error) {
		if !same(row.DefaultLLMModel, in.DefaultLLMModel) ||
			!same(row.DefaultEmbeddingModel, in.DefaultEmbeddingModel) {
			row.DefaultLLMModel, row.DefaultEmbeddingModel = in.DefaultLLMModel, in.DefaultEmbeddingModel
			row.CreatedBy = &who.UserID
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	return row.ownedBy(who), nil
}

func same[T comparable](a, b *T) bool {
	return a == b || (a != nil && b != nil && *a == *b)
}

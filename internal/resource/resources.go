package resource

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Outside holds the external services that the resources use.
type Outside struct {
	Agents AgentCards
	Models ModelAPI
	MCP    MCP
	Blobs  Blobs
	Box    Box
}

// Options are settings; Logger is required.
type Options struct {
	Limits  FileLimits
	Quotas  Quotas
	Presets []Preset
	Logger  *slog.Logger
}

// Resources holds all resource types.
type Resources struct {
	Configurations *Configurations
	Connectors     *Connectors
	Contexts       *Contexts
	Files          *Files
	ModelProviders *ModelProviders
	Providers      *Providers
	ProviderBuilds *ProviderBuilds
	Users          *Users
	UserFeedback   *Feedback
	VectorStores   *VectorStores

	*core
	secrets secrets
}

// New returns the resources of a store. It does not use the store yet.
//
// It registers the types. Everything that concerns all types is derived from
// this list: the vocabulary of events, who may see them, and what is deleted
// along with a user or another resource. An unregistered type cannot be used at
// all.
//
// A user's resources are deleted in this order. A type precedes those that it
// refers to and that outlive it, so that nothing is updated just before it is
// deleted. Contexts precede their contents, because every request locks them
// first.
func New(s *store.Store, o Outside, options Options) *Resources {
	secrets := secrets{o.Box}
	variables := variableStore{s, secrets}
	users := newUsers(variables)
	models := newModelProviders(o.Models, secrets)
	providers := newProviders(o.Agents, variables)
	contexts := newContexts(providers)
	r := &Resources{
		core:    &core{store: s, quotas: options.Quotas, logger: options.Logger},
		secrets: secrets,

		Contexts:       contexts,
		Files:          newFiles(contexts, o.Blobs, options.Limits),
		VectorStores:   newVectorStores(contexts),
		Connectors:     newConnectors(o.MCP, secrets, options.Presets),
		UserFeedback:   newFeedback(providers, contexts),
		ProviderBuilds: newProviderBuilds(providers),
		Providers:      providers,
		ModelProviders: models,
		Configurations: newConfigurations(models),
		Users:          users,
	}
	r.register(
		r.Contexts,
		r.Files,
		r.VectorStores,
		r.Connectors,
		r.UserFeedback,
		r.ProviderBuilds,
		r.Providers,
		r.ModelProviders,
		r.Configurations,
		r.Users,
	)
	return r
}

// registered is a resource type, independent of its row type.
type registered interface {
	info() Info
	join(*core)
	// mayRead reports whether the caller may see an event of this type.
	mayRead(who Caller, e tidings.Event) bool
	// deletedWith returns the columns that refer to type to and whose rows are
	// deleted along with what they refer to.
	deletedWith(to tidings.ResourceType) []store.Column
	// deleteWith deletes the resources that are deleted along with the given
	// one.
	deleteWith(ctx context.Context, tx *store.Tx, who Caller, to tidings.ResourceType, id string) error
	// clear removes the given resource from those that refer to it and outlive
	// it.
	clear(ctx context.Context, tx *store.Tx, who Caller, to tidings.ResourceType, id string) error
}

func (c *core) register(types ...registered) {
	for _, t := range types {
		t.join(c)
		c.types = append(c.types, t)
	}
}

// join implements [registered].
func (c *collection[R]) join(shared *core) { c.core = shared }

// info implements [registered].
func (c *collection[R]) info() Info {
	return Info{Type: c.kind.Type, URL: c.kind.URL, InContext: c.kind.InContext, Unlimited: c.kind.Unlimited}
}

// mayRead implements [registered].
func (c *collection[R]) mayRead(who Caller, e tidings.Event) bool { return c.kind.mayRead(who, e) }

// MayRead reports whether the caller may see an event. Events of other types are
// published by programs, and have no owner.
func (r *Resources) MayRead(who Caller, e tidings.Event) bool {
	for _, t := range r.types {
		if t.info().Type == e.Type {
			return t.mayRead(who, e)
		}
	}
	return who.Role == RoleAdmin || who.Role == RoleReader
}

func newID() string { return uuid.NewString() }

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

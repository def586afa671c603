package resource

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Outside is what the resources need of the world outside the database.
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

// Resources is all ten types.
type Resources struct {
	Configurations *Collection[*Configuration]
	Connectors     *Collection[*Connector]
	Contexts       *Collection[*Context]
	Files          *Collection[*File]
	ModelProviders *Collection[*ModelProvider]
	Providers      *Collection[*Provider]
	ProviderBuilds *Collection[*ProviderBuild]
	Users          *Collection[*User]
	UserFeedback   *Collection[*UserFeedback]
	VectorStores   *Collection[*VectorStore]

	store   *store.Store
	agents  AgentCards
	models  ModelAPI
	mcp     MCP
	blobs   Blobs
	box     Box
	limits  FileLimits
	quotas  Quotas
	presets []Preset
	logger  *slog.Logger

	modelLists modelLists
	incoming   incoming
	// expires goes from contexts that are idle.
	expires []Owned
	// mayRead says who may hear of the events of a type.
	mayRead map[tidings.ResourceType]func(Caller, tidings.Event) bool
}

// New puts the types together, leaves first, so that the cascades read from top
// to bottom.
func New(s *store.Store, o Outside, options Options) *Resources {
	r := &Resources{
		store: s, agents: o.Agents, models: o.Models, mcp: o.MCP, blobs: o.Blobs, box: o.Box,
		limits: options.Limits, quotas: options.Quotas, presets: options.Presets, logger: options.Logger,
		incoming: incoming{bytes: make(map[string]int64)},
	}
	r.Configurations = collection(s, options.Quotas, configurationKind())
	r.ModelProviders = collection(s, options.Quotas, modelProviderKind())
	r.Connectors = collection(s, options.Quotas, connectorKind())
	r.UserFeedback = collection(s, options.Quotas, userFeedbackKind())
	r.ProviderBuilds = collection(s, options.Quotas, providerBuildKind())
	r.Files = collection(s, options.Quotas, fileKind(r.textOf, r.contentOf))
	r.VectorStores = collection(s, options.Quotas, vectorStoreKind(details(new(vectorStoreItem), "vector_store_id")))
	r.expires = []Owned{deletes(r.Files, "context_id"), deletes(r.VectorStores, "context_id")}
	r.Contexts = collection(s, options.Quotas, contextKind(append(r.expires, details(new(HistoryItem), "context_id"))...))
	r.Providers = collection(s, options.Quotas, providerKind(
		deletes(r.UserFeedback, "provider_id"),
		clears(r.Contexts, "provider_id", func(c *Context) { c.ProviderID = nil }),
		clears(r.ProviderBuilds, "provider_id", func(b *ProviderBuild) { b.ProviderID = nil }),
		details(new(variable), "owner_id"),
	))
	r.Users = collection(s, options.Quotas, userKind(
		deletes(r.Contexts, "created_by"),
		deletes(r.Files, "created_by"),
		deletes(r.VectorStores, "created_by"),
		deletes(r.Connectors, "created_by"),
		deletes(r.UserFeedback, "created_by"),
		deletes(r.ProviderBuilds, "created_by"),
		deletes(r.Providers, "created_by"),
		details(new(variable), "owner_id"),
	))
	r.mayRead = map[tidings.ResourceType]func(Caller, tidings.Event) bool{
		ConfigurationType: r.Configurations.kind.mayRead,
		ConnectorType:     r.Connectors.kind.mayRead,
		ContextType:       r.Contexts.kind.mayRead,
		FileType:          r.Files.kind.mayRead,
		ModelProviderType: r.ModelProviders.kind.mayRead,
		ProviderType:      r.Providers.kind.mayRead,
		ProviderBuildType: r.ProviderBuilds.kind.mayRead,
		UserType:          r.Users.kind.mayRead,
		UserFeedbackType:  r.UserFeedback.kind.mayRead,
		VectorStoreType:   r.VectorStores.kind.mayRead,
	}
	return r
}

// MayRead reports whether a caller may hear of an event.
func (r *Resources) MayRead(who Caller, e tidings.Event) bool {
	may := r.mayRead[e.Type]
	return may != nil && may(who, e)
}

// textOf removes the text that was extracted from a file.
func (r *Resources) textOf(ctx context.Context, tx *store.Tx, who Caller, id string) error {
	return deletes(r.Files, "parent_file_id")(ctx, tx, who, id)
}

func newID() string { return uuid.NewString() }

func (r *Resources) now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

package tidings

// ResourceType names a kind of resource, such as "provider". Programs that
// embed the delivery packages use types of their own.
type ResourceType string

// The resource types of the Tidings server.
const (
	Configuration ResourceType = "configuration"
	Connector     ResourceType = "connector"
	Context       ResourceType = "context"
	File          ResourceType = "file"
	ModelProvider ResourceType = "model_provider"
	Provider      ResourceType = "provider"
	ProviderBuild ResourceType = "provider_build"
	User          ResourceType = "user"
	UserFeedback  ResourceType = "user_feedback"
	VectorStore   ResourceType = "vector_store"
)

// ServerTypes returns the resource types of the Tidings server, sorted.
func ServerTypes() []ResourceType {
	return []ResourceType{
		Configuration, Connector, Context, File, ModelProvider,
		Provider, ProviderBuild, User, UserFeedback, VectorStore,
	}
}

// Action says what happened to a resource.
type Action string

// The three things that can happen to a resource.
const (
	Created Action = "created"
	Updated Action = "updated"
	Deleted Action = "deleted"
)

// Actions returns the three actions in the order of a resource's life.
func Actions() []Action { return []Action{Created, Updated, Deleted} }

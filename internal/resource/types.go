package resource

import (
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/vocabulary"
)

// The resource types. [New] registers them.
const (
	ConfigurationType tidings.ResourceType = "configuration"
	ConnectorType     tidings.ResourceType = "connector"
	ContextType       tidings.ResourceType = "context"
	FileType          tidings.ResourceType = "file"
	ModelProviderType tidings.ResourceType = "model_provider"
	ProviderType      tidings.ResourceType = "provider"
	ProviderBuildType tidings.ResourceType = "provider_build"
	UserType          tidings.ResourceType = "user"
	UserFeedbackType  tidings.ResourceType = "user_feedback"
	VectorStoreType   tidings.ResourceType = "vector_store"
)

// Info describes a resource type to other packages.
type Info struct {
	Type tidings.ResourceType
	// URL is the path of a resource, with {id} as a placeholder.
	URL string
	// InContext is set for types whose resources may belong to a context.
	InContext bool
	// Unlimited types have no quota.
	Unlimited bool
}

// All returns the registered types, in the order of registration.
func (r *Resources) All() []Info {
	all := make([]Info, len(r.types))
	for i, t := range r.types {
		all[i] = t.info()
	}
	return all
}

// Types returns the registered types, all of which can be created, updated and
// deleted.
func Types() vocabulary.Types { return maps.Clone(types()) }

var types = sync.OnceValue(func() vocabulary.Types {
	types := make(vocabulary.Types)
	for _, t := range New(nil, Outside{}, Options{}).All() {
		types[t.Type] = nil
	}
	return types
})

// ParseID returns an id in its stored form, or an error if it is malformed.
func ParseID(text string) (string, error) {
	if _, err := uuid.Parse(text); err != nil || len(text) != 36 {
		return "", errors.New("the id is not a UUID")
	}
	return strings.ToLower(text), nil
}

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

// Info is what other packages need to know of a type.
type Info struct {
	Type tidings.ResourceType
	// URL is the path of a resource, with {id} where its id goes.
	URL string
	// InContext is set for resources that may belong to a context.
	InContext bool
	// Unlimited resources have no quota.
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

// Types returns the registered types, each of which is created, updated and deleted.
func Types() vocabulary.Types { return maps.Clone(types()) }

var types = sync.OnceValue(func() vocabulary.Types {
	types := make(vocabulary.Types)
	for _, t := range New(nil, Outside{}, Options{}).All() {
		types[t.Type] = nil
	}
	return types
})

// ParseID returns the id of a resource as it is stored, or an error if there can be
// none like it.
func ParseID(text string) (string, error) {
	if _, err := uuid.Parse(text); err != nil || len(text) != 36 {
		return "", errors.New("the id is not a UUID")
	}
	return strings.ToLower(text), nil
}

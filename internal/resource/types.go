package resource

import (
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/vocabulary"
)

// The resource types.
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

// Types returns the resource types, each of which is created, updated and deleted.
func Types() vocabulary.Types {
	return vocabulary.Types{
		ConfigurationType: nil, ConnectorType: nil, ContextType: nil, FileType: nil, ModelProviderType: nil,
		ProviderType: nil, ProviderBuildType: nil, UserType: nil, UserFeedbackType: nil, VectorStoreType: nil,
	}
}

// ParseID returns the id of a resource as it is stored, or an error if there can be
// none like it.
func ParseID(text string) (string, error) {
	if _, err := uuid.Parse(text); err != nil || len(text) != 36 {
		return "", errors.New("the id is not a UUID")
	}
	return strings.ToLower(text), nil
}

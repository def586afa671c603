package app

import (
	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/resource"
)

// quotas are what one user may own.
func quotas(l *config.Limits) resource.Quotas {
	quota := func(name string, limit int64) resource.Quota {
		return resource.Quota{Max: limit, Setting: "limits." + name}
	}
	return resource.Quotas{
		Resources: map[tidings.ResourceType]resource.Quota{
			tidings.Context:       quota("contexts", int64(l.Contexts)),
			tidings.File:          quota("files", int64(l.Files)),
			tidings.VectorStore:   quota("vector_stores", int64(l.VectorStores)),
			tidings.Connector:     quota("connectors", int64(l.Connectors)),
			tidings.UserFeedback:  quota("user_feedback", int64(l.UserFeedback)),
			tidings.Provider:      quota("providers", int64(l.Providers)),
			tidings.ProviderBuild: quota("provider_builds", int64(l.ProviderBuilds)),
			tidings.ModelProvider: quota("model_providers", int64(l.ModelProviders)),
		},
		HistoryItems:     quota("history_items", int64(l.HistoryItems)),
		HistoryBytes:     quota("history_bytes", int64(l.HistoryBytes)),
		VectorStoreItems: quota("vector_store_items", int64(l.VectorStoreItems)),
		VectorStoreBytes: quota("vector_store_bytes", int64(l.VectorStoreBytes)),
	}
}

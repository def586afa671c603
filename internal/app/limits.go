package app

import (
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
)

// placeWait is how long a request waits for a place.
const placeWait = 5 * time.Second

func places(l config.Limits) rest.Limits {
	of := func(what string, total, perUser int) *limit.Places {
		return limit.NewPlaces(limit.Options{What: what, Total: int64(total), PerUser: int64(perUser), Wait: placeWait})
	}
	return rest.Limits{
		Requests: of("requests", l.ConcurrentRequests, l.UserConcurrentRequests),
		Streams:  of("event streams and requests that wait for events", l.EventStreams, l.UserEventStreams),
		Uploads:  of("uploads and extractions", l.Uploads, l.UserUploads),
		Scans:    of("searches and other long reads", l.Scans, l.UserScans),
		Bodies:   of("bytes of large request bodies", int(l.BodyMemory), int(l.UserBodyMemory)),
	}
}

// Limits on requests without valid credentials: more than a misconfigured client
// sends, and too few to burden the server.
const (
	strangersPerSecond = 10
	strangersBurst     = 100
)

func rates(l config.Limits) httpapi.Rates {
	return httpapi.Rates{
		Callers: limit.NewRate(limit.RateOptions{
			PerSecond: l.RequestsPerSecond, Burst: l.Burst, Who: "one caller",
			Setting: "limits.requests_per_second and limits.burst",
		}),
		Strangers: limit.NewRate(limit.RateOptions{
			PerSecond: strangersPerSecond, Burst: strangersBurst, Who: "one address without valid credentials",
		}),
	}
}

// quotas returns how much one user may own.
func quotas(l *config.Limits) resource.Quotas {
	quota := func(name string, limit int64) resource.Quota {
		return resource.Quota{Max: limit, Setting: "limits." + name}
	}
	return resource.Quotas{
		Resources: map[tidings.ResourceType]resource.Quota{
			resource.ContextType:       quota("contexts", int64(l.Contexts)),
			resource.FileType:          quota("files", int64(l.Files)),
			resource.VectorStoreType:   quota("vector_stores", int64(l.VectorStores)),
			resource.ConnectorType:     quota("connectors", int64(l.Connectors)),
			resource.UserFeedbackType:  quota("user_feedback", int64(l.UserFeedback)),
			resource.ProviderType:      quota("providers", int64(l.Providers)),
			resource.ProviderBuildType: quota("provider_builds", int64(l.ProviderBuilds)),
			resource.ModelProviderType: quota("model_providers", int64(l.ModelProviders)),
		},
		HistoryItems:     quota("history_items", int64(l.HistoryItems)),
		HistoryBytes:     quota("history_bytes", int64(l.HistoryBytes)),
		VectorStoreItems: quota("vector_store_items", int64(l.VectorStoreItems)),
		VectorStoreBytes: quota("vector_store_bytes", int64(l.VectorStoreBytes)),
	}
}

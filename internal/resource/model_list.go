package resource

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	modelListTime     = 5 * time.Second
	modelListParallel = 64
	// modelListAge is how long a list of models is cached, and modelListRetry
	// how long a failure to list them is.
	modelListAge   = time.Minute
	modelListRetry = 10 * time.Second
)

// Limits on what one model provider may list; anything beyond is ignored.
const (
	maxModels    = 2000
	maxModelName = 256 // bytes
)

// model is a model that a model provider offers.
type model struct {
	id        string // type:name
	embedding bool
	// full is the id, and bare the name, in the form that is compared.
	full, bare pairs
}

// modelLists caches what model providers list, so that users' requests do not
// all turn into requests to them.
type modelLists struct {
	mu    sync.Mutex
	lists map[string]*modelList // by model provider id
}

type modelList struct {
	mu      sync.Mutex // held while listing
	version int64      // of the model provider
	at      time.Time
	models  []model
	failed  bool
}

// of returns the cached list of a model provider.
func (l *modelLists) of(id string) *modelList {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lists == nil {
		l.lists = make(map[string]*modelList)
	}
	list := l.lists[id]
	if list == nil {
		list = new(modelList)
		l.lists[id] = list
	}
	return list
}

// keep drops the cached lists of all other model providers.
func (l *modelLists) keep(providers []*ModelProvider) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.lists {
		if !slices.ContainsFunc(providers, func(m *ModelProvider) bool { return m.ID == id }) {
			delete(l.lists, id)
		}
	}
}

// modelsOf returns the models of a model provider, from a list no older than
// maxAge. Concurrent callers share one request.
func (m *ModelProviders) modelsOf(ctx context.Context, row *ModelProvider, maxAge time.Duration) ([]model, error) {
	asked := time.Now()
	list := m.lists.of(row.ID)
	list.mu.Lock()
	defer list.mu.Unlock()
	if list.failed {
		maxAge = min(maxAge, modelListRetry)
	}
	if list.version >= row.Version && !list.at.Before(asked.Add(-maxAge)) {
		return list.models, nil
	}
	names, err := m.askForModels(ctx, row)
	list.version, list.at, list.failed = row.Version, time.Now(), err != nil
	list.models = asModels(row.Type, names)
	return list.models, nil
}

// askForModels requests the list from a model provider and logs failures.
func (m *ModelProviders) askForModels(ctx context.Context, row *ModelProvider) ([]string, error) {
	key, err := m.secrets.unseal(row.APIKey, boundTo(row.ID), "api_key")
	if err != nil {
		m.logger.WarnContext(ctx, "a model provider offers no models: its key cannot be decrypted",
			"model_provider", row.ID, "error", err)
		return nil, err
	}
	// Other callers may be waiting for the answer, even if this one no longer
	// is.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), modelListTime)
	defer cancel()
	names, err := m.models.Models(ctx, ModelSource{Type: row.Type, BaseURL: row.BaseURL, APIKey: key})
	if failed, ok := errors.AsType[*RemoteError](err); ok {
		m.logRemote(ctx, "listing the models of a model provider failed", row.BaseURL, failed, "model_provider", row.ID)
	}
	return names, err
}

func asModels(kind string, names []string) (models []model) {
	for _, name := range names {
		if len(models) == maxModels {
			break
		}
		if len(name) > maxModelName {
			continue
		}
		models = append(models, model{
			id:        kind + ":" + name,
			embedding: strings.Contains(strings.ToLower(name), "embed"),
			full:      pairsOf(kind + ":" + name),
			bare:      pairsOf(name),
		})
	}
	return models
}

// offered returns the models of all model providers, from lists no older than
// maxAge. A provider that does not answer offers no models.
func (m *ModelProviders) offered(ctx context.Context, maxAge time.Duration) ([]model, error) {
	var providers []*ModelProvider
	err := m.all(ctx, func(row *ModelProvider) error {
		providers = append(providers, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.lists.keep(providers)
	lists := make([][]model, len(providers))
	var group errgroup.Group
	group.SetLimit(modelListParallel)
	for i, row := range providers {
		group.Go(func() (err error) {
			lists[i], err = m.modelsOf(ctx, row, maxAge)
			return err
		})
	}
	err = group.Wait()
	return slices.Concat(lists...), err
}

// need returns an error unless a model provider currently offers the model.
func (m *ModelProviders) need(ctx context.Context, field, id string) error {
	models, err := m.offered(ctx, 0)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(models, func(m model) bool { return m.id == id }) {
		return fail(NotFound, field,
			"no model provider offers this model; model ids have the form type:model, such as openai:gpt-4o")
	}
	return nil
}

package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
)

// Model capabilities.
const (
	llm       = "llm"
	embedding = "embedding"
)

// capabilities lists the capabilities of the provider types that do not have
// both.
var capabilities = map[string][]string{
	"anthropic": {llm}, "cerebras": {llm}, "chutes": {llm}, "deepseek": {llm}, "groq": {llm}, "jan": {llm},
	"moonshot": {llm}, "nvidia": {llm}, "openrouter": {llm}, "perplexity": {llm}, "voyage": {embedding},
}

// MarshalJSON adds the derived fields.
func (m *ModelProvider) MarshalJSON() ([]byte, error) {
	type plain ModelProvider
	shown := plain(*m)
	if shown.Capabilities = capabilities[m.Type]; shown.Capabilities == nil {
		shown.Capabilities = []string{llm, embedding}
	}
	return json.Marshal(&shown)
}

// Each calls do for every model provider.
func (m *ModelProviders) Each(ctx context.Context, do func(*ModelProvider) error) error {
	return m.all(ctx, do)
}

// Check lists the models of a model provider and updates its state; an
// unchanged state is not written.
func (m *ModelProviders) Check(ctx context.Context, row *ModelProvider) error {
	key, err := m.secrets.box.Open(row.APIKey, row.ID)
	if err != nil {
		return fmt.Errorf("model provider %s: %w", row.ID, err)
	}
	state := Online
	asking, cancel := context.WithTimeout(ctx, modelListTime)
	defer cancel()
	_, err = m.models.Models(asking, ModelSource{Type: row.Type, BaseURL: row.BaseURL, APIKey: key})
	if err != nil {
		state = Offline
	}
	if ctx.Err() != nil || state == row.State {
		return ctx.Err()
	}
	if failed, ok := errors.AsType[*RemoteError](err); ok {
		m.logRemote(ctx, "model provider went offline", row.BaseURL, failed, "model_provider", row.ID)
	}
	_, err = m.update(ctx, owner(row), row.ID, 0, func(_ *store.Tx, now *ModelProvider) (bool, error) {
		if now.BaseURL == row.BaseURL && bytes.Equal(now.APIKey, row.APIKey) { // neither has changed in the meantime
			now.State = state
		}
		return false, nil
	})
	if err != nil && !isCode(err, NotFound) { // otherwise it was deleted in the meantime
		return fmt.Errorf("model provider %s: %w", row.ID, err)
	}
	return nil
}

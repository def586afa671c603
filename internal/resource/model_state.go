package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// What models are for.
const (
	llm       = "llm"
	embedding = "embedding"
)

// capabilities are what the models of a type of provider are for, where they are
// not for both.
var capabilities = map[string][]string{
	"anthropic": {llm}, "cerebras": {llm}, "chutes": {llm}, "deepseek": {llm}, "groq": {llm}, "jan": {llm},
	"moonshot": {llm}, "nvidia": {llm}, "openrouter": {llm}, "perplexity": {llm}, "voyage": {embedding},
}

// MarshalJSON adds what follows from other fields.
func (m *ModelProvider) MarshalJSON() ([]byte, error) {
	type plain ModelProvider
	shown := plain(*m)
	if shown.Capabilities = capabilities[m.Type]; shown.Capabilities == nil {
		shown.Capabilities = []string{llm, embedding}
	}
	return json.Marshal(&shown)
}

// EachModelProvider calls do with every model provider.
func (r *Resources) EachModelProvider(ctx context.Context, do func(*ModelProvider) error) error {
	return r.ModelProviders.all(ctx, do)
}

// CheckModelProvider lists the models of a model provider and notes whether that
// works. Only a state that flips is a change.
func (r *Resources) CheckModelProvider(ctx context.Context, m *ModelProvider) error {
	key, err := r.box.Open(m.APIKey, m.ID)
	if err != nil {
		return fmt.Errorf("model provider %s: %w", m.ID, err)
	}
	state := Online
	asking, cancel := context.WithTimeout(ctx, modelListTime)
	defer cancel()
	_, err = r.models.Models(asking, ModelSource{Type: m.Type, BaseURL: m.BaseURL, APIKey: key})
	if err != nil {
		state = Offline
	}
	if ctx.Err() != nil || state == m.State {
		return ctx.Err()
	}
	if failed, ok := errors.AsType[*RemoteError](err); ok {
		r.logRemote(ctx, "a model provider went offline", m.BaseURL, failed, "model_provider", m.ID)
	}
	_, err = r.ModelProviders.Update(ctx, owner(m), m.ID, 0, func(now *ModelProvider) error {
		if now.BaseURL == m.BaseURL && bytes.Equal(now.APIKey, m.APIKey) { // neither changed meanwhile
			now.State = state
		}
		return nil
	})
	if err != nil && !isCode(err, NotFound) { // else it was deleted meanwhile
		return fmt.Errorf("model provider %s: %w", m.ID, err)
	}
	return nil
}

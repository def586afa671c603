package resource

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"unicode"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// ModelProvider is a source of language models.
type ModelProvider struct {
	bun.BaseModel `bun:"table:model_providers"`
	Base

	Type             string   `json:"type"`
	Name             *string  `json:"name"`
	Description      *string  `json:"description"`
	BaseURL          string   `json:"base_url" format:"uri"`
	Capabilities     []string `bun:"-" json:"capabilities" nullable:"false" enum:"llm,embedding" doc:"What its models can do; derived from the type."`
	State            string   `json:"state" enum:"online,offline" doc:"Whether the last attempt to list its models succeeded."`
	APIKey           []byte   `json:"-"`
	WatsonxProjectID *string  `json:"-"`
	WatsonxSpaceID   *string  `json:"-"`
}

// ModelProviders is the type of the sources of language models.
type ModelProviders struct {
	*collection[*ModelProvider]
	models  ModelAPI
	secrets secrets
	lists   modelLists
}

func newModelProviders(models ModelAPI, s secrets) *ModelProviders {
	return &ModelProviders{models: models, secrets: s, collection: newCollection(kind[*ModelProvider]{
		Type:    ModelProviderType,
		URL:     "/api/v1/model_providers/{id}",
		New:     func() *ModelProvider { return new(ModelProvider) },
		policy:  administered(RoleUser),
		Unowned: true,
	})}
}

// Get returns a model provider.
func (m *ModelProviders) Get(ctx context.Context, who Caller, id string) (*ModelProvider, error) {
	return m.get(ctx, who, id)
}

// List returns a page of the model providers.
func (m *ModelProviders) List(ctx context.Context, who Caller, page Page) (*Items[*ModelProvider], error) {
	return m.list(ctx, who, page)
}

// Delete deletes a model provider. ifMatch is the expected version, or 0 for
// any.
func (m *ModelProviders) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return m.delete(ctx, who, id, ifMatch)
}

// ModelSource holds what is needed to call a model provider's API.
type ModelSource struct {
	Type    string
	BaseURL string
	APIKey  string
}

// ModelAPI is a client for model providers.
type ModelAPI interface {
	// Models lists the models of a provider. Errors are [RemoteError]s.
	Models(ctx context.Context, s ModelSource) ([]string, error)
}

// NewModelProvider is a request to create a model provider.
type NewModelProvider struct {
	Type             string  `json:"type" enum:"anthropic,cerebras,chutes,cohere,deepseek,gemini,github,groq,watsonx,jan,mistral,moonshot,nvidia,ollama,openai,openrouter,perplexity,together,voyage,rits,bedrock,other"`
	Name             *string `json:"name" required:"false" maxLength:"1024"`
	Description      *string `json:"description" required:"false" maxLength:"10000"`
	BaseURL          string  `json:"base_url" maxLength:"1024" doc:"The http(s) URL of its API."`
	APIKey           string  `json:"api_key" minLength:"1" maxLength:"10000"`
	WatsonxProjectID *string `json:"watsonx_project_id" required:"false" maxLength:"256"`
	WatsonxSpaceID   *string `json:"watsonx_space_id" required:"false" maxLength:"256"`
}

func (m *ModelProvider) check() error {
	u, err := url.Parse(m.BaseURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return fail(Invalid, "base_url", "expected an http(s) URL without credentials")
	}
	project, space := m.WatsonxProjectID != nil, m.WatsonxSpaceID != nil
	if m.Type == "watsonx" && project == space {
		return fail(Invalid, "watsonx_project_id",
			"the type watsonx requires either watsonx_project_id or watsonx_space_id")
	}
	if m.Type != "watsonx" && (project || space) {
		return fail(Invalid, "watsonx_project_id", "only the type watsonx accepts a project or space")
	}
	return nil
}

// checkKey tries the key by listing the models.
func (m *ModelProviders) checkKey(ctx context.Context, row *ModelProvider, key string) error {
	if strings.ContainsFunc(key, unicode.IsControl) {
		return fail(Invalid, "api_key", "must not contain line breaks or other control characters")
	}
	_, err := m.models.Models(ctx, ModelSource{Type: row.Type, BaseURL: row.BaseURL, APIKey: key})
	if err == nil {
		return nil
	}
	field := "base_url"
	if e, ok := errors.AsType[*RemoteError](err); ok && e.Reason == RemoteUnauthorized {
		field = "api_key"
	}
	return m.remoteFailed(ctx, Unusable, field, "the models could not be listed", row.BaseURL, err)
}

// Create creates a model provider, after trying its key.
func (m *ModelProviders) Create(ctx context.Context, who Caller, in NewModelProvider) (*ModelProvider, error) {
	row := &ModelProvider{
		Base: Base{ID: newID()}, Type: in.Type, Name: in.Name, Description: in.Description,
		BaseURL: in.BaseURL, State: Online, WatsonxProjectID: in.WatsonxProjectID, WatsonxSpaceID: in.WatsonxSpaceID,
	}
	if err := m.kind.permit(who, creating); err != nil {
		return nil, err
	}
	if err := row.check(); err != nil {
		return nil, err
	}
	if err := m.secrets.needKey(); err != nil { // before any request
		return nil, err
	}
	if err := m.checkKey(ctx, row, in.APIKey); err != nil {
		return nil, err
	}
	err := m.store.InTx(ctx, func(tx *store.Tx) (err error) {
		if row.APIKey, err = m.secrets.seal(ctx, tx, in.APIKey, boundTo(row.ID)); err != nil {
			return err
		}
		return m.insert(ctx, tx, who, row)
	})
	return row, err
}

// ModelProviderPatch changes a model provider; omitted or null members stay
// unchanged.
type ModelProviderPatch struct {
	Name             *string `json:"name" required:"false" maxLength:"1024"`
	Description      *string `json:"description" required:"false" maxLength:"10000"`
	BaseURL          *string `json:"base_url" required:"false" maxLength:"1024"`
	APIKey           *string `json:"api_key" required:"false" minLength:"1" maxLength:"10000"`
	WatsonxProjectID *string `json:"watsonx_project_id" required:"false" maxLength:"256" doc:"Replaces the space."`
	WatsonxSpaceID   *string `json:"watsonx_space_id" required:"false" maxLength:"256" doc:"Replaces the project."`
}

// apply reports whether it changed anything that clients cannot see.
func (in *ModelProviderPatch) apply(m *ModelProvider) (hidden bool, err error) {
	if in.Name != nil {
		m.Name = in.Name
	}
	if in.Description != nil {
		m.Description = in.Description
	}
	if in.BaseURL != nil {
		m.BaseURL = *in.BaseURL
	}
	if in.WatsonxProjectID != nil || in.WatsonxSpaceID != nil {
		hidden = !same(m.WatsonxProjectID, in.WatsonxProjectID) || !same(m.WatsonxSpaceID, in.WatsonxSpaceID)
		m.WatsonxProjectID, m.WatsonxSpaceID = in.WatsonxProjectID, in.WatsonxSpaceID
	}
	return hidden, m.check()
}

// Patch changes a model provider, after trying a new key or URL.
func (m *ModelProviders) Patch(
	ctx context.Context, who Caller, id string, ifMatch int64, in ModelProviderPatch,
) (*ModelProvider, error) {
	now, err := m.find(ctx, who, updating, id)
	if err != nil {
		return nil, err
	}
	newKey, err := m.newKey(now, in)
	if err != nil {
		return nil, err
	}
	moves := in.BaseURL != nil && *in.BaseURL != now.BaseURL
	if _, err := in.apply(now); err != nil {
		return nil, err
	}
	if newKey || moves {
		key := in.APIKey
		if key == nil {
			old, err := m.secrets.unseal(now.APIKey, boundTo(now.ID), "api_key")
			if err != nil {
				return nil, err
			}
			key = &old
		}
		if err := m.checkKey(ctx, now, *key); err != nil {
			return nil, err
		}
	}
	return m.update(ctx, who, id, ifMatch, func(tx *store.Tx, row *ModelProvider) (bool, error) {
		if newKey || moves {
			row.State = Online
		}
		hidden, err := in.apply(row)
		if err != nil || !newKey {
			return hidden, err
		}
		row.APIKey, err = m.secrets.seal(ctx, tx, *in.APIKey, boundTo(row.ID))
		return true, err
	})
}

// newKey reports whether a patch changes the key. A key that can no longer be
// decrypted counts as changed.
func (m *ModelProviders) newKey(now *ModelProvider, in ModelProviderPatch) (bool, error) {
	if in.APIKey == nil {
		return false, nil
	}
	if err := m.secrets.needKey(); err != nil {
		return false, err
	}
	old, err := m.secrets.box.Open(now.APIKey, boundTo(now.ID))
	return err != nil || old != *in.APIKey, nil
}

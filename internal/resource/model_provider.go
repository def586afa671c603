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

// ModelProvider is where language models come from.
type ModelProvider struct {
	bun.BaseModel `bun:"table:model_providers"`
	Base

	Type             string   `json:"type"`
	Name             *string  `json:"name"`
	Description      *string  `json:"description"`
	BaseURL          string   `json:"base_url" format:"uri"`
	Capabilities     []string `bun:"-" json:"capabilities" nullable:"false" enum:"llm,embedding" doc:"What its models are for, by its type."`
	State            string   `json:"state" enum:"online,offline" doc:"Whether its models could be listed when that was last tried."`
	APIKey           []byte   `json:"-"`
	WatsonxProjectID *string  `json:"-"`
	WatsonxSpaceID   *string  `json:"-"`
}

// ModelProviders are where language models come from.
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

// List returns a part of the model providers.
func (m *ModelProviders) List(ctx context.Context, who Caller, page Page) (*Items[*ModelProvider], error) {
	return m.list(ctx, who, page)
}

// Delete removes a model provider. ifMatch is the version the caller knows, 0 for any.
func (m *ModelProviders) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return m.delete(ctx, who, id, ifMatch)
}

// ModelSource is how to reach a model provider's API.
type ModelSource struct {
	Type    string
	BaseURL string
	APIKey  string
}

// ModelAPI asks model providers.
type ModelAPI interface {
	// Models lists the models of a provider. The error is a [RemoteError].
	Models(ctx context.Context, s ModelSource) ([]string, error)
}

// NewModelProvider asks for a source of models.
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
		return fail(Invalid, "base_url", "expected an http(s) URL without a user or a password")
	}
	project, space := m.WatsonxProjectID != nil, m.WatsonxSpaceID != nil
	if m.Type == "watsonx" && project == space {
		return fail(Invalid, "watsonx_project_id", "watsonx needs either watsonx_project_id or watsonx_space_id")
	}
	if m.Type != "watsonx" && (project || space) {
		return fail(Invalid, "watsonx_project_id", "only the type watsonx has a project or a space")
	}
	return nil
}

// checkKey lists the models once.
func (m *ModelProviders) checkKey(ctx context.Context, row *ModelProvider, key string) error {
	if strings.ContainsFunc(key, unicode.IsControl) {
		return fail(Invalid, "api_key", "holds a line break or another control character")
	}
	_, err := m.models.Models(ctx, ModelSource{Type: row.Type, BaseURL: row.BaseURL, APIKey: key})
	if err == nil {
		return nil
	}
	field := "base_url"
	if e, ok := errors.AsType[*RemoteError](err); ok && e.Reason == RemoteUnauthorized {
		field = "api_key"
	}
	return m.remoteFailed(ctx, Unusable, field, "the models can't be listed", row.BaseURL, err)
}

// Create keeps a source of models, whose key it tries first.
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
	if err := m.secrets.needKey(); err != nil { // before anybody is asked
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

// ModelProviderPatch changes a model provider; what is left out or null stays.
type ModelProviderPatch struct {
	Name             *string `json:"name" required:"false" maxLength:"1024"`
	Description      *string `json:"description" required:"false" maxLength:"10000"`
	BaseURL          *string `json:"base_url" required:"false" maxLength:"1024"`
	APIKey           *string `json:"api_key" required:"false" minLength:"1" maxLength:"10000"`
	WatsonxProjectID *string `json:"watsonx_project_id" required:"false" maxLength:"256" doc:"Takes the place of a space."`
	WatsonxSpaceID   *string `json:"watsonx_space_id" required:"false" maxLength:"256" doc:"Takes the place of a project."`
}

// apply reports whether it changes anything that clients can't see.
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

// Patch changes a model provider; a new key or URL is tried first.
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

// newKey reports whether a change brings another key. One that can't be decrypted
// any more is another one.
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

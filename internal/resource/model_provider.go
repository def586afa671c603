package resource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings"
)

// ModelProvider is where language models come from.
type ModelProvider struct {
	bun.BaseModel `bun:"table:model_providers"`
	Base

	Type             string  `json:"type"`
	Name             *string `json:"name"`
	Description      *string `json:"description"`
	BaseURL          string  `json:"base_url" format:"uri"`
	APIKey           []byte  `json:"-"`
	WatsonxProjectID *string `json:"-"`
	WatsonxSpaceID   *string `json:"-"`
}

func modelProviderKind() Kind[*ModelProvider] {
	return Kind[*ModelProvider]{
		Type:    tidings.ModelProvider,
		URL:     "/api/v1/model_providers/{id}",
		New:     func() *ModelProvider { return new(ModelProvider) },
		Policy:  administered(RoleUser),
		Unowned: true,
	}
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
func (r *Resources) checkKey(ctx context.Context, m *ModelProvider, key string) error {
	if strings.ContainsFunc(key, unicode.IsControl) {
		return fail(Invalid, "api_key", "holds a line break or another control character")
	}
	_, err := r.models.Models(ctx, ModelSource{Type: m.Type, BaseURL: m.BaseURL, APIKey: key})
	if err == nil {
		return nil
	}
	field := "base_url"
	if e, ok := errors.AsType[*RemoteError](err); ok && e.Reason == RemoteUnauthorized {
		field = "api_key"
	}
	return r.remoteFailed(ctx, Unusable, field, "the models can't be listed", m.BaseURL, err)
}

// CreateModelProvider keeps a source of models, whose key it tries first.
func (r *Resources) CreateModelProvider(ctx context.Context, who Caller, in NewModelProvider) (*ModelProvider, error) {
	row := &ModelProvider{
		Base: Base{ID: newID()}, Type: in.Type, Name: in.Name, Description: in.Description,
		BaseURL: in.BaseURL, WatsonxProjectID: in.WatsonxProjectID, WatsonxSpaceID: in.WatsonxSpaceID,
	}
	if err := r.ModelProviders.kind.permit(who, Creating); err != nil {
		return nil, err
	}
	if err := row.check(); err != nil {
		return nil, err
	}
	var err error
	if row.APIKey, err = r.box.Seal(in.APIKey, row.ID); err != nil {
		return nil, err
	}
	if err := r.checkKey(ctx, row, in.APIKey); err != nil {
		return nil, err
	}
	return r.ModelProviders.Create(ctx, who, row)
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

func (in *ModelProviderPatch) apply(m *ModelProvider) error {
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
		m.touched = !same(m.WatsonxProjectID, in.WatsonxProjectID) || !same(m.WatsonxSpaceID, in.WatsonxSpaceID)
		m.WatsonxProjectID, m.WatsonxSpaceID = in.WatsonxProjectID, in.WatsonxSpaceID
	}
	return m.check()
}

// PatchModelProvider changes a model provider; a new key or URL is tried first.
func (r *Resources) PatchModelProvider(ctx context.Context, who Caller, id string, ifMatch int64, in ModelProviderPatch) (*ModelProvider, error) {
	now, err := r.ModelProviders.find(ctx, who, Updating, id)
	if err != nil {
		return nil, err
	}
	key, err := r.box.Open(now.APIKey, now.ID)
	if err != nil {
		return nil, err
	}
	newKey := in.APIKey != nil && *in.APIKey != key
	moves := in.BaseURL != nil && *in.BaseURL != now.BaseURL
	if err := in.apply(now); err != nil {
		return nil, err
	}
	var sealed []byte
	if newKey {
		key = *in.APIKey
		if sealed, err = r.box.Seal(key, now.ID); err != nil {
			return nil, err
		}
	}
	if newKey || moves {
		if err := r.checkKey(ctx, now, key); err != nil {
			return nil, err
		}
	}
	return r.ModelProviders.Update(ctx, who, id, ifMatch, func(m *ModelProvider) error {
		if newKey {
			m.APIKey, m.touched = sealed, true
		}
		touched := m.touched
		err := in.apply(m)
		m.touched = m.touched || touched
		return err
	})
}

// offered is a model that a model provider offers.
type offered struct {
	id        string // type:model
	embedding bool
}

const (
	modelListTime     = 5 * time.Second
	modelListParallel = 8
)

// offeredModels asks all model providers at once; one that does not answer
// offers nothing.
func (r *Resources) offeredModels(ctx context.Context) ([]offered, error) {
	ctx, cancel := context.WithTimeout(ctx, modelListTime)
	defer cancel()
	var providers []*ModelProvider
	err := r.ModelProviders.all(ctx, func(m *ModelProvider) error {
		providers = append(providers, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	lists := make([][]string, len(providers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(modelListParallel)
	for i, m := range providers {
		group.Go(func() error {
			key, err := r.box.Open(m.APIKey, m.ID)
			if err != nil {
				return err
			}
			if lists[i], err = r.models.Models(ctx, ModelSource{Type: m.Type, BaseURL: m.BaseURL, APIKey: key}); err != nil {
				if failed, ok := errors.AsType[*RemoteError](err); ok {
					r.logRemote(ctx, "a model provider does not list its models", m.BaseURL, failed, "model_provider", m.ID)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var all []offered
	for i, models := range lists {
		for _, name := range models {
			all = append(all, offered{
				id:        fmt.Sprintf("%s:%s", providers[i].Type, name),
				embedding: strings.Contains(strings.ToLower(name), "embed"),
			})
		}
	}
	return all, nil
}

// needModel returns an error unless a model provider offers a model.
func (r *Resources) needModel(ctx context.Context, field, id string) error {
	models, err := r.offeredModels(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(models, func(o offered) bool { return o.id == id }) {
		return fail(NotFound, field, "no model provider offers this model; a model is named type:model, such as openai:gpt-4o")
	}
	return nil
}

// ModelMatch asks for models like those suggested.
type ModelMatch struct {
	SuggestedModels []string `json:"suggested_models" required:"false" nullable:"true" maxItems:"100" maxLength:"256"`
	Capability      string   `json:"capability" enum:"llm,embedding"`
	ScoreCutoff     *float64 `json:"score_cutoff" required:"false" minimum:"0" maximum:"1" default:"0.4"`
}

// MatchedModel is a model and how like a suggested one it is.
type MatchedModel struct {
	ModelID string  `json:"model_id"`
	Score   float64 `json:"score"`
}

// MatchModels returns models that are like those suggested, best first; without
// suggestions, all that have the capability.
func (r *Resources) MatchModels(ctx context.Context, who Caller, in ModelMatch) (*Items[*MatchedModel], error) {
	if err := r.ModelProviders.kind.permit(who, Reading); err != nil {
		return nil, err
	}
	models, err := r.offeredModels(ctx)
	if err != nil {
		return nil, err
	}
	list, cutoff := []*MatchedModel{}, 0.0
	if in.ScoreCutoff != nil {
		cutoff = *in.ScoreCutoff
	}
	for _, o := range models {
		if o.embedding != (in.Capability == "embedding") {
			continue
		}
		score := 1.0
		if len(in.SuggestedModels) > 0 {
			score = 0
			for _, s := range in.SuggestedModels {
				score = max(score, likeness(o.id, s))
			}
		}
		if score >= cutoff {
			list = append(list, &MatchedModel{ModelID: o.id, Score: score})
		}
	}
	slices.SortStableFunc(list, func(a, b *MatchedModel) int { return cmp.Compare(b.Score, a.Score) })
	return &Items[*MatchedModel]{Items: list, TotalCount: int64(len(list))}, nil
}

// likeness is the Sørensen–Dice coefficient of the pairs of letters of two
// models' names, whatever the case; the type counts only where both name one.
func likeness(id, suggested string) float64 {
	id, suggested = strings.ToLower(id), strings.ToLower(suggested)
	if !strings.Contains(suggested, ":") {
		_, id, _ = strings.Cut(id, ":")
	}
	if id == suggested {
		return 1
	}
	pairs := make(map[string]int)
	for i := range len(id) - 1 {
		pairs[id[i:i+2]]++
	}
	shared := 0
	for i := range len(suggested) - 1 {
		if pair := suggested[i : i+2]; pairs[pair] > 0 {
			pairs[pair]--
			shared++
		}
	}
	if total := len(id) + len(suggested) - 2; total > 0 {
		return 2 * float64(shared) / float64(total)
	}
	return 0
}

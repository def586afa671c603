package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/tidings-dev/tidings/internal/resource"
)

// maxModels is more than any provider offers.
const maxModels = 10_000

// Models lists the models of a model provider, with OpenAI's API, which most
// providers implement, unless the provider has its own. Errors are
// [resource.RemoteError]s.
func (c *Client) Models(ctx context.Context, s resource.ModelSource) ([]string, error) {
	base, err := url.Parse(s.BaseURL)
	if err != nil {
		return nil, unusable(err)
	}
	// Only the list is requested, whatever the URL contains besides its path.
	base.RawQuery, base.Fragment = "", ""
	header := make(http.Header)
	target := base.JoinPath("models")
	switch s.Type {
	case "anthropic":
		header.Set("x-api-key", s.APIKey)
		header.Set("anthropic-version", "2023-06-01")
	case "ollama":
		base.Path, base.RawPath = strings.TrimSuffix(strings.TrimSuffix(base.Path, "/"), "/v1"), ""
		target = base.JoinPath("api", "tags")
		header.Set("Authorization", "Bearer "+s.APIKey)
	case "watsonx":
		target = base.JoinPath("ml", "v1", "foundation_model_specs")
		target.RawQuery = "version=2024-10-10"
	default:
		header.Set("Authorization", "Bearer "+s.APIKey)
	}
	document, err := c.get(ctx, target.String(), header)
	if err != nil {
		return nil, err
	}
	names, err := modelNames(document)
	if err != nil {
		return nil, unusable(err)
	}
	return names, nil
}

// modelNames parses the lists of OpenAI and Anthropic (data), Ollama (models)
// and watsonx (resources), or a bare array.
func modelNames(document json.RawMessage) ([]string, error) {
	type model struct {
		ID      string `json:"id"`
		Name    string `json:"name"`
		ModelID string `json:"model_id"`
	}
	var lists struct {
		Data      []model `json:"data"`
		Models    []model `json:"models"`
		Resources []model `json:"resources"`
	}
	if json.Unmarshal(document, &lists.Data) != nil {
		if err := json.Unmarshal(document, &lists); err != nil {
			return nil, errors.New("its response is not a list of models")
		}
	}
	if lists.Data == nil && lists.Models == nil && lists.Resources == nil {
		return nil, errors.New("its response is not a list of models")
	}
	if n := len(lists.Data) + len(lists.Models) + len(lists.Resources); n > maxModels {
		return nil, fmt.Errorf("its response lists %d models; the limit is %d", n, maxModels)
	}
	var names []string
	for _, m := range append(append(lists.Data, lists.Models...), lists.Resources...) {
		for _, name := range []string{m.ID, m.ModelID, m.Name} {
			if name != "" {
				names = append(names, strings.TrimPrefix(name, "models/"))
				break
			}
		}
	}
	return names, nil
}

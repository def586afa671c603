package remote

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/internal/resource"
)

// Models lists the models of a model provider: with the API of OpenAI, which
// most speak, unless the provider has one of its own.
func (c *Client) Models(ctx context.Context, s resource.ModelSource) ([]string, error) {
	base, header := strings.TrimSuffix(s.BaseURL, "/"), make(http.Header)
	path := "/models"
	switch s.Type {
	case "anthropic":
		header.Set("x-api-key", s.APIKey)
		header.Set("anthropic-version", "2023-06-01")
	case "ollama":
		base, path = strings.TrimSuffix(base, "/v1"), "/api/tags"
		header.Set("Authorization", "Bearer "+s.APIKey)
	case "watsonx":
		path = "/ml/v1/foundation_model_specs?version=2024-10-10"
	default:
		header.Set("Authorization", "Bearer "+s.APIKey)
	}
	document, err := c.get(ctx, base+path, header)
	if err != nil {
		return nil, err
	}
	return modelNames(document)
}

// modelNames reads the lists of OpenAI and Anthropic (data), Ollama (models) and
// watsonx (resources), or a bare list.
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
			return nil, errors.New("the answer is not a list of models")
		}
	}
	if lists.Data == nil && lists.Models == nil && lists.Resources == nil {
		return nil, errors.New("the answer is not a list of models")
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

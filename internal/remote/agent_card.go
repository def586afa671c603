package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/a2aproject/a2a-go/a2a"
)

const agentCardPath = "/.well-known/agent-card.json"

// Fetch returns the card of an agent. Errors are [resource.RemoteError]s.
func (c *Client) Fetch(ctx context.Context, location string) (json.RawMessage, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, unusable(err)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + agentCardPath
	u.RawPath, u.RawQuery, u.Fragment = "", "", ""
	document, err := c.get(ctx, u.String(), nil)
	if err != nil {
		return nil, err
	}
	card, err := c.Check(document)
	if err != nil {
		return nil, unusable(err)
	}
	return card, nil
}

// defaultProtocol is the A2A version of cards that name none.
const defaultProtocol = "0.3.0"

// Check returns an agent card without nulls, which mean that a member is
// omitted, and with a protocol version: some clients accept no other form. The
// error names what a document lacks to be a card of A2A 0.3.
func (c *Client) Check(document json.RawMessage) (json.RawMessage, error) {
	if err := json.Unmarshal(document, new(a2a.AgentCard)); err != nil {
		return nil, fmt.Errorf("not an A2A agent card: %w", err)
	}
	var card map[string]any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&card); err != nil {
		return nil, fmt.Errorf("not an A2A agent card: %w", err)
	}
	dropNulls(card)
	if missing := missingMember(card); missing != "" {
		return nil, fmt.Errorf("not an A2A agent card: %s is missing", missing)
	}
	if _, ok := card["protocolVersion"]; !ok {
		card["protocolVersion"] = defaultProtocol
	}
	return json.Marshal(card)
}

// dropNulls removes nulls from members that A2A defines. Members defined by
// others, the parameters of extensions and the headers of signatures, are left
// alone.
func dropNulls(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			switch {
			case member == nil:
				delete(v, name)
			case name != "params" && name != "header":
				v[name] = dropNulls(member)
			}
		}
	case []any:
		v = slices.DeleteFunc(v, func(element any) bool { return element == nil })
		for i := range v {
			v[i] = dropNulls(v[i])
		}
		return v
	}
	return value
}

// missingMember returns the first required member that a card lacks.
func missingMember(card map[string]any) string {
	capabilities, _ := card["capabilities"].(map[string]any)
	for _, part := range []struct {
		name    string
		value   any // an object or a list of objects
		members []string
	}{
		{"", card, []string{
			"name", "description", "url", "version", "capabilities", "defaultInputModes",
			"defaultOutputModes", "skills",
		}},
		{"skills", card["skills"], []string{"id", "name", "description", "tags"}},
		{"capabilities.extensions", capabilities["extensions"], []string{"uri"}},
		{"additionalInterfaces", card["additionalInterfaces"], []string{"transport", "url"}},
		{"provider", card["provider"], []string{"organization", "url"}},
		{"signatures", card["signatures"], []string{"protected", "signature"}},
	} {
		objects, isList := part.value.([]any)
		if !isList && part.value != nil {
			objects = []any{part.value}
		}
		for _, object := range objects {
			for _, member := range part.members {
				if _, ok := object.(map[string]any)[member]; !ok {
					return strings.TrimPrefix(part.name+"."+member, ".")
				}
			}
		}
	}
	if card["name"] == "" {
		return "name"
	}
	return ""
}

package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/a2aproject/a2a-go/a2a"
)

const agentCardPath = "/.well-known/agent-card.json"

// Fetch returns the card of an agent. The error is a [resource.RemoteError].
func (c *Client) Fetch(ctx context.Context, location string) (json.RawMessage, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, unusable(err)
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + agentCardPath
	u.RawPath, u.RawQuery, u.Fragment = "", "", ""
	card, err := c.get(ctx, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if err := c.Check(card); err != nil {
		return nil, unusable(err)
	}
	return card, nil
}

// Check returns an error for a document that is no agent card.
func (c *Client) Check(document json.RawMessage) error {
	var card a2a.AgentCard
	if err := json.Unmarshal(document, &card); err != nil {
		return fmt.Errorf("not an agent card of A2A: %w", err)
	}
	if card.Name == "" {
		return errors.New("not an agent card of A2A: it has no name")
	}
	return nil
}

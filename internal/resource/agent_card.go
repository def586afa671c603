package resource

import (
	"encoding/json"
	"fmt"
	"strings"
)

// EnvVar is an environment variable that an agent asks for.
type EnvVar struct {
	Name        string  `json:"name"`
	Description *string `json:"description"`
	Required    bool    `json:"required"`
}

// MarshalJSON adds the derived fields.
func (p *Provider) MarshalJSON() ([]byte, error) {
	type plain Provider
	shown := plain(*p)
	shown.Managed = p.Type == managed
	shown.AutoStopTimeout = isoDuration(p.AutoStopTimeoutSec)
	shown.Env = envOf(p.AgentCard)
	return json.Marshal(&shown)
}

// isoDuration formats seconds as an ISO 8601 duration.
func isoDuration(seconds int) string {
	text := "PT"
	if minutes := seconds / 60; minutes > 0 {
		text += fmt.Sprintf("%dM", minutes)
	}
	if rest := seconds % 60; rest > 0 || seconds == 0 {
		text += fmt.Sprintf("%dS", rest)
	}
	return text
}

// agentDetail is the suffix of the A2A extension URI with which agents of the
// Agent Stack, under any of its names, declare their variables.
const agentDetail = "/ui/agent-detail/v1"

// envOf returns the variables that an agent card declares. Malformed ones are
// ignored.
func envOf(card json.RawMessage) []EnvVar {
	var asks struct {
		Capabilities struct {
			Extensions []struct {
				URI    string          `json:"uri"`
				Params json.RawMessage `json:"params"`
			} `json:"extensions"`
		} `json:"capabilities"`
	}
	env := []EnvVar{}
	if json.Unmarshal(card, &asks) != nil {
		return env
	}
	for _, extension := range asks.Capabilities.Extensions {
		var params struct {
			Variables []EnvVar `json:"variables"`
		}
		if !strings.HasSuffix(extension.URI, agentDetail) || json.Unmarshal(extension.Params, &params) != nil {
			continue
		}
		for _, v := range params.Variables {
			if v.Name != "" {
				env = append(env, v)
			}
		}
	}
	return env
}

package resource

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// managed is the type of a provider that is an image.
const managed = "managed"

// The states of a provider, and of a model provider.
const (
	Online  = "online"
	Offline = "offline"
)

// Provider is an agent that speaks A2A.
type Provider struct {
	bun.BaseModel `bun:"table:providers"`
	Base

	Type               string          `json:"type" enum:"managed,unmanaged"`
	Managed            bool            `bun:"-" json:"managed" doc:"Whether type is managed."`
	Source             string          `json:"source" doc:"Where it is."`
	Origin             string          `json:"origin" doc:"What it came from: the location unless said otherwise."`
	VersionInfo        VersionInfo     `bun:"type:json" json:"version_info"`
	AgentCard          json.RawMessage `bun:"type:json" json:"agent_card"`
	State              string          `json:"state" enum:"online,offline,missing"`
	AutoStopTimeoutSec int             `json:"auto_stop_timeout_sec"`
	AutoStopTimeout    string          `bun:"-" json:"auto_stop_timeout" doc:"The same as an ISO 8601 duration, such as PT20M."`
	LastActiveAt       time.Time       `json:"last_active_at" doc:"When it was created, or last got a context."`
	Env                []EnvVar        `bun:"-" json:"env" nullable:"false" doc:"The variables that its agent card asks for."`
}

// VersionInfo is the version of a managed provider's image.
type VersionInfo struct {
	Docker *string `json:"docker"`
	GitHub *string `json:"github"`
}

func providerKind(owns ...Owned) Kind[*Provider] {
	return Kind[*Provider]{
		Type:   ProviderType,
		URL:    "/api/v1/providers/{id}",
		New:    func() *Provider { return new(Provider) },
		Policy: published(RoleUser),
		Owns:   owns,
	}
}

// AgentCards fetches agent cards.
type AgentCards interface {
	// Fetch returns the card of an agent at an http(s) URL. The error is a
	// [RemoteError].
	Fetch(ctx context.Context, location string) (json.RawMessage, error)
	// Check returns a card as clients of A2A read it, or why a document is none.
	Check(document json.RawMessage) (json.RawMessage, error)
}

// NewProvider asks for an agent to be known.
type NewProvider struct {
	Location           string          `json:"location" maxLength:"2048" doc:"The http(s) URL of a running agent."`
	AgentCard          json.RawMessage `json:"agent_card" required:"false" doc:"Left out, it is fetched from the agent."`
	Origin             *string         `json:"origin" required:"false" minLength:"1" maxLength:"2048"`
	AutoStopTimeoutSec *float64        `json:"auto_stop_timeout_sec" required:"false" minimum:"1" maximum:"1800" multipleOf:"1"`
	Variables          Variables       `json:"variables" required:"false" nullable:"true" maxProperties:"100"`
}

const defaultAutoStop = 1200

// providerID makes the same agent keep its id.
func providerID(location string) string {
	hash := sha256.Sum256([]byte(location))
	return uuid.UUID(hash[:16]).String()
}

func checkLocation(location string) error {
	u, err := url.Parse(location)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fail(Invalid, "location", "expected the http(s) URL of a running agent")
	}
	if u.User != nil {
		return fail(Invalid, "location", "a URL with a user or a password would show them to everybody")
	}
	return nil
}

// PreviewProvider returns the provider that [Resources.CreateProvider] would make.
func (r *Resources) PreviewProvider(ctx context.Context, who Caller, in NewProvider) (*Provider, error) {
	if err := r.Providers.kind.permit(who, Creating); err != nil {
		return nil, err
	}
	if err := checkLocation(in.Location); err != nil {
		return nil, err
	}
	now := r.now()
	row := &Provider{
		Base: Base{ID: providerID(in.Location), CreatedBy: &who.UserID, CreatedAt: now, UpdatedAt: now},
		Type: "unmanaged", Source: in.Location, Origin: in.Location, AutoStopTimeoutSec: defaultAutoStop, LastActiveAt: now,
	}
	if in.Origin != nil {
		row.Origin = *in.Origin
	}
	if in.AutoStopTimeoutSec != nil {
		row.AutoStopTimeoutSec = int(*in.AutoStopTimeoutSec)
	}
	var err error
	row.AgentCard, row.State, err = r.agentCard(ctx, in.Location, in.AgentCard)
	return row, err
}

// agentCard checks the card that was given, or fetches it.
func (r *Resources) agentCard(ctx context.Context, location string, given json.RawMessage) (card json.RawMessage, state string, err error) {
	if isNull(given) {
		if card, err = r.agents.Fetch(ctx, location); err != nil {
			return nil, "", r.remoteFailed(ctx, Unusable, "location", "no agent card", location, err)
		}
		return card, Online, nil
	}
	if card, err = r.agents.Check(given); err != nil {
		return nil, "", &Error{Code: Invalid, Field: "agent_card", Message: err.Error(), Cause: err}
	}
	return card, Offline, nil // until the agent has been asked
}

func isNull(document json.RawMessage) bool { return len(document) == 0 || string(document) == "null" }

// CreateProvider makes an agent known.
func (r *Resources) CreateProvider(ctx context.Context, who Caller, in NewProvider) (*Provider, error) {
	row, err := r.PreviewProvider(ctx, who, in)
	if err != nil {
		return nil, err
	}
	err = r.store.InTx(ctx, func(tx *store.Tx) error {
		if err := r.Providers.insert(ctx, tx, who, row); err != nil {
			return err
		}
		_, err := r.replaceVariables(ctx, tx, row.ID, in.Variables)
		return err
	})
	return row, err
}

// ProviderPatch changes a provider; what is left out or null stays.
type ProviderPatch struct {
	Location           *string         `json:"location" required:"false" maxLength:"2048"`
	AgentCard          json.RawMessage `json:"agent_card" required:"false"`
	Origin             *string         `json:"origin" required:"false" minLength:"1" maxLength:"2048"`
	AutoStopTimeoutSec *float64        `json:"auto_stop_timeout_sec" required:"false" minimum:"1" maximum:"1800" multipleOf:"1"`
	Variables          Variables       `json:"variables" required:"false" nullable:"true" maxProperties:"100" doc:"Take the place of those there are."`
}

// PatchProvider changes a provider. A new location keeps the id; unless a card
// comes with it, the card is fetched from there.
func (r *Resources) PatchProvider(ctx context.Context, who Caller, id string, ifMatch int64, in ProviderPatch) (*Provider, error) {
	now, err := r.Providers.find(ctx, who, Updating, id)
	if err != nil {
		return nil, err
	}
	moves := in.Location != nil && *in.Location != now.Source
	var card json.RawMessage
	state := now.State
	switch {
	case moves:
		if err := checkLocation(*in.Location); err != nil {
			return nil, err
		}
		card, state, err = r.agentCard(ctx, *in.Location, in.AgentCard)
	case !isNull(in.AgentCard):
		card, _, err = r.agentCard(ctx, now.Source, in.AgentCard)
	}
	if err != nil {
		return nil, err
	}
	return r.Providers.update(ctx, who, id, ifMatch, func(tx *store.Tx, p *Provider) (err error) {
		if moves {
			if p.Origin == p.Source {
				p.Origin = *in.Location
			}
			p.Source, p.State = *in.Location, state
		}
		if card != nil {
			p.AgentCard = card
		}
		if in.Origin != nil {
			p.Origin = *in.Origin
		}
		if in.AutoStopTimeoutSec != nil {
			p.AutoStopTimeoutSec = int(*in.AutoStopTimeoutSec)
		}
		if in.Variables != nil {
			p.touched, err = r.replaceVariables(ctx, tx, p.ID, in.Variables)
		}
		return err
	})
}

// ProviderByLocation returns the provider at a location.
func (r *Resources) ProviderByLocation(ctx context.Context, who Caller, location string) (*Provider, error) {
	if err := r.Providers.kind.permit(who, Reading); err != nil {
		return nil, err
	}
	if err := checkLocation(location); err != nil {
		return nil, err
	}
	row := new(Provider)
	at := store.Filter{Column: "source", Op: store.Equal, Value: location}
	err := r.store.First(ctx, row, append(r.Providers.kind.visible(who, Reading), at)...)
	return row, known(err, "provider")
}

// ProviderVariables returns the variables of a provider that the caller may
// change.
func (r *Resources) ProviderVariables(ctx context.Context, who Caller, id string) (map[string]string, error) {
	row, err := r.Providers.find(ctx, who, Updating, id)
	if err != nil {
		return nil, err
	}
	return r.variables(ctx, row.ID)
}

// PutProviderVariables merges changes into a provider's variables; nil removes
// one.
func (r *Resources) PutProviderVariables(ctx context.Context, who Caller, id string, ifMatch int64, changes VariableChanges) error {
	_, err := r.Providers.update(ctx, who, id, ifMatch, func(tx *store.Tx, p *Provider) (err error) {
		p.touched, err = r.setVariables(ctx, tx, p.ID, changes)
		return err
	})
	return err
}

// Agent is what the checks need to know of a provider that is a URL.
type Agent struct {
	bun.BaseModel `bun:"table:providers"`

	ID        string `bun:",pk"`
	Source    string
	State     string
	CreatedBy string
}

// Agents returns all providers that are URLs, without their cards.
func (r *Resources) Agents(ctx context.Context) (all []*Agent, err error) {
	err = store.Each(ctx, r.store, func(a *Agent) error {
		all = append(all, a)
		return nil
	}, store.Filter{Column: "type", Op: store.Equal, Value: "unmanaged"})
	return all, err
}

// CheckAgent asks an agent for its card and notes whether it answers. Only a
// state that flips is a change.
func (r *Resources) CheckAgent(ctx context.Context, p *Agent) error {
	state := Online
	_, err := r.agents.Fetch(ctx, p.Source)
	if err != nil {
		state = Offline
	}
	if ctx.Err() != nil || state == p.State {
		return ctx.Err()
	}
	if failed, ok := errors.AsType[*RemoteError](err); ok {
		r.logRemote(ctx, "an agent went offline", p.Source, failed, "provider", p.ID)
	}
	owner := Caller{UserID: p.CreatedBy, Role: RoleAdmin}
	_, err = r.Providers.Update(ctx, owner, p.ID, 0, func(now *Provider) error {
		if now.Source == p.Source { // it has not moved meanwhile
			now.State = state
		}
		return nil
	})
	if err != nil && !isCode(err, NotFound) { // else it was deleted meanwhile
		return fmt.Errorf("provider %s: %w", p.ID, err)
	}
	return nil
}

// lockProvider holds a provider that the caller may read.
func (r *Resources) lockProvider(ctx context.Context, tx *store.Tx, who Caller, id string) (*Provider, error) {
	row, err := r.Providers.lock(ctx, tx, who, Reading, id, 0)
	if isCode(err, NotFound) {
		err = fail(NotFound, "provider_id", "there is no such provider")
	}
	return row, err
}

// ProviderFilter narrows a list of providers. UserOwned: true is the caller's,
// false those of others.
type ProviderFilter struct {
	Origin    string
	UserOwned *bool
}

// ListProviders returns a part of the providers.
func (r *Resources) ListProviders(ctx context.Context, who Caller, page Page, in ProviderFilter) (*Items[*Provider], error) {
	filters := ownedFilter(who, in.UserOwned)
	if in.Origin != "" {
		filters = append(filters, store.Filter{Column: "origin", Op: store.Equal, Value: in.Origin})
	}
	return r.Providers.List(ctx, who, page, filters...)
}

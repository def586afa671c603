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

// managed is the type of providers that are container images.
const managed = "managed"

// The states of a provider and of a model provider.
const (
	Online  = "online"
	Offline = "offline"
)

// Provider is an agent that speaks A2A.
type Provider struct {
	bun.BaseModel `bun:"table:providers"`
	Base

	Type               string          `json:"type" enum:"managed,unmanaged"`
	Managed            bool            `bun:"-" json:"managed" doc:"Whether the type is managed."`
	Source             string          `json:"source" doc:"Where the agent runs."`
	Origin             string          `json:"origin" doc:"Where the agent comes from; defaults to the location."`
	VersionInfo        VersionInfo     `bun:"type:json" json:"version_info"`
	AgentCard          json.RawMessage `bun:"type:json" json:"agent_card"`
	State              string          `json:"state" enum:"online,offline,missing"`
	AutoStopTimeoutSec int             `json:"auto_stop_timeout_sec"`
	AutoStopTimeout    string          `bun:"-" json:"auto_stop_timeout" doc:"The same value as an ISO 8601 duration, such as PT20M."`
	LastActiveAt       time.Time       `json:"last_active_at" doc:"When it was created or last given a context."`
	Env                []EnvVar        `bun:"-" json:"env" nullable:"false" doc:"The variables that the agent card asks for."`
}

// VersionInfo is the version of a managed provider's image.
type VersionInfo struct {
	Docker *string `json:"docker"`
	GitHub *string `json:"github"`
}

// Providers is the type of the registered agents.
type Providers struct {
	*collection[*Provider]
	agents    AgentCards
	variables variableStore
}

func newProviders(agents AgentCards, variables variableStore) *Providers {
	return &Providers{agents: agents, variables: variables, collection: newCollection(kind[*Provider]{
		Type:    ProviderType,
		URL:     "/api/v1/providers/{id}",
		New:     func() *Provider { return new(Provider) },
		policy:  published(RoleUser),
		Details: []detail{{new(variable), "owner_id"}},
	})}
}

// Get returns a provider.
func (p *Providers) Get(ctx context.Context, who Caller, id string) (*Provider, error) {
	return p.get(ctx, who, id)
}

// Delete deletes a provider and the feedback on it. ifMatch is the expected
// version, or 0 for any.
func (p *Providers) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return p.delete(ctx, who, id, ifMatch)
}

// AgentCards fetches and checks agent cards.
type AgentCards interface {
	// Fetch returns the card of the agent at an http(s) URL. Errors are
	// [RemoteError]s.
	Fetch(ctx context.Context, location string) (json.RawMessage, error)
	// Check normalizes a card for A2A clients, or returns why it is invalid.
	Check(document json.RawMessage) (json.RawMessage, error)
}

// NewProvider is a request to register an agent.
type NewProvider struct {
	Location           string          `json:"location" maxLength:"2048" doc:"The http(s) URL of a running agent."`
	AgentCard          json.RawMessage `json:"agent_card" required:"false" doc:"If omitted, it is fetched from the agent."`
	Origin             *string         `json:"origin" required:"false" minLength:"1" maxLength:"2048"`
	AutoStopTimeoutSec *float64        `json:"auto_stop_timeout_sec" required:"false" minimum:"1" maximum:"1800" multipleOf:"1"`
	Variables          Variables       `json:"variables" required:"false" nullable:"true" maxProperties:"100"`
}

const defaultAutoStop = 1200

// providerID derives the id from the location, so that an agent that is
// registered again keeps it.
func providerID(location string) string {
	hash := sha256.Sum256([]byte(location))
	return uuid.UUID(hash[:16]).String()
}

func checkLocation(location string) error {
	u, err := url.Parse(location)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fail(Invalid, "location", "must be the http(s) URL of a running agent")
	}
	if u.User != nil {
		return fail(Invalid, "location", "must not contain credentials: every user can read it")
	}
	return nil
}

// Preview returns the provider that [Providers.Create] would create.
func (p *Providers) Preview(ctx context.Context, who Caller, in NewProvider) (*Provider, error) {
	if err := p.kind.permit(who, creating); err != nil {
		return nil, err
	}
	if err := checkLocation(in.Location); err != nil {
		return nil, err
	}
	at := now()
	row := &Provider{
		Base: Base{ID: providerID(in.Location), CreatedBy: &who.UserID, CreatedAt: at, UpdatedAt: at},
		Type: "unmanaged", Source: in.Location, Origin: in.Location,
		AutoStopTimeoutSec: defaultAutoStop, LastActiveAt: at,
	}
	if in.Origin != nil {
		row.Origin = *in.Origin
	}
	if in.AutoStopTimeoutSec != nil {
		row.AutoStopTimeoutSec = int(*in.AutoStopTimeoutSec)
	}
	var err error
	row.AgentCard, row.State, err = p.agentCard(ctx, in.Location, in.AgentCard)
	return row, err
}

// agentCard checks the given card, or fetches it if there is none.
func (p *Providers) agentCard(
	ctx context.Context, location string, given json.RawMessage,
) (card json.RawMessage, state string, err error) {
	if isNull(given) {
		if card, err = p.agents.Fetch(ctx, location); err != nil {
			return nil, "",
				p.remoteFailed(ctx, Unusable, "location", "the agent card could not be fetched", location, err)
		}
		return card, Online, nil
	}
	if card, err = p.agents.Check(given); err != nil {
		return nil, "", &Error{Code: Invalid, Field: "agent_card", Message: err.Error(), Cause: err}
	}
	return card, Offline, nil // until the agent is checked
}

func isNull(document json.RawMessage) bool { return len(document) == 0 || string(document) == "null" }

// Create registers an agent.
func (p *Providers) Create(ctx context.Context, who Caller, in NewProvider) (*Provider, error) {
	row, err := p.Preview(ctx, who, in)
	if err != nil {
		return nil, err
	}
	err = p.store.InTx(ctx, func(tx *store.Tx) error {
		if err := p.insert(ctx, tx, who, row); err != nil {
			return err
		}
		_, err := p.variables.replace(ctx, tx, row.ID, in.Variables)
		return err
	})
	return row, err
}

// ProviderPatch changes a provider; omitted or null members stay unchanged.
type ProviderPatch struct {
	Location           *string         `json:"location" required:"false" maxLength:"2048"`
	AgentCard          json.RawMessage `json:"agent_card" required:"false"`
	Origin             *string         `json:"origin" required:"false" minLength:"1" maxLength:"2048"`
	AutoStopTimeoutSec *float64        `json:"auto_stop_timeout_sec" required:"false" minimum:"1" maximum:"1800" multipleOf:"1"`
	Variables          Variables       `json:"variables" required:"false" nullable:"true" maxProperties:"100" doc:"Replace the existing variables."`
}

// Patch changes a provider. It keeps its id if it moves. Unless the patch
// includes a card, the card is fetched from the new location.
func (p *Providers) Patch(
	ctx context.Context, who Caller, id string, ifMatch int64, in ProviderPatch,
) (*Provider, error) {
	now, err := p.find(ctx, who, updating, id)
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
		card, state, err = p.agentCard(ctx, *in.Location, in.AgentCard)
	case !isNull(in.AgentCard):
		card, _, err = p.agentCard(ctx, now.Source, in.AgentCard)
	}
	if err != nil {
		return nil, err
	}
	return p.update(ctx, who, id, ifMatch, func(tx *store.Tx, row *Provider) (hidden bool, err error) {
		if moves {
			if row.Origin == row.Source {
				row.Origin = *in.Location
			}
			row.Source, row.State = *in.Location, state
		}
		if card != nil {
			row.AgentCard = card
		}
		if in.Origin != nil {
			row.Origin = *in.Origin
		}
		if in.AutoStopTimeoutSec != nil {
			row.AutoStopTimeoutSec = int(*in.AutoStopTimeoutSec)
		}
		if in.Variables != nil {
			hidden, err = p.variables.replace(ctx, tx, row.ID, in.Variables)
		}
		return hidden, err
	})
}

// ByLocation returns the provider at a location.
func (p *Providers) ByLocation(ctx context.Context, who Caller, location string) (*Provider, error) {
	if err := p.kind.permit(who, reading); err != nil {
		return nil, err
	}
	if err := checkLocation(location); err != nil {
		return nil, err
	}
	row := new(Provider)
	at := equal("source", location)
	err := p.store.First(ctx, row, append(p.kind.visible(who, reading), at)...)
	return row, fromStore(err, "provider")
}

// Variables returns the variables of a provider that the caller may change.
func (p *Providers) Variables(ctx context.Context, who Caller, id string) (map[string]string, error) {
	row, err := p.find(ctx, who, updating, id)
	if err != nil {
		return nil, err
	}
	return p.variables.of(ctx, row.ID)
}

// PutVariables merges changes into a provider's variables; nil removes a
// variable.
func (p *Providers) PutVariables(
	ctx context.Context, who Caller, id string, ifMatch int64, changes VariableChanges,
) error {
	_, err := p.update(ctx, who, id, ifMatch, func(tx *store.Tx, row *Provider) (bool, error) {
		return p.variables.merge(ctx, tx, row.ID, changes)
	})
	return err
}

// Agent holds the columns that checks need of a provider that is a URL.
type Agent struct {
	bun.BaseModel `bun:"table:providers"`

	ID        string `bun:",pk"`
	Source    string
	State     string
	CreatedBy string
}

// Agents returns all providers that are URLs, without their cards.
func (p *Providers) Agents(ctx context.Context) (all []*Agent, err error) {
	err = store.Each(ctx, p.store, func(a *Agent) error {
		all = append(all, a)
		return nil
	}, equal("type", "unmanaged"))
	return all, err
}

// CheckAgent fetches an agent's card and updates the provider's state; an
// unchanged state is not written.
func (p *Providers) CheckAgent(ctx context.Context, a *Agent) error {
	state := Online
	_, err := p.agents.Fetch(ctx, a.Source)
	if err != nil {
		state = Offline
	}
	if ctx.Err() != nil || state == a.State {
		return ctx.Err()
	}
	if failed, ok := errors.AsType[*RemoteError](err); ok {
		p.logRemote(ctx, "agent went offline", a.Source, failed, "provider", a.ID)
	}
	owner := Caller{UserID: a.CreatedBy, Role: RoleAdmin}
	_, err = p.update(ctx, owner, a.ID, 0, func(_ *store.Tx, now *Provider) (bool, error) {
		if now.Source == a.Source { // it has not moved in the meantime
			now.State = state
		}
		return false, nil
	})
	if err != nil && !isCode(err, NotFound) { // otherwise it was deleted in the meantime
		return fmt.Errorf("provider %s: %w", a.ID, err)
	}
	return nil
}

// lockNamed locks a provider that the caller may read, named in a request.
func (p *Providers) lockNamed(ctx context.Context, tx *store.Tx, who Caller, id string) (*Provider, error) {
	row, err := p.lock(ctx, tx, who, reading, id, 0)
	if isCode(err, NotFound) {
		err = fail(NotFound, "provider_id", "no such provider")
	}
	return row, err
}

// ProviderFilter filters a list of providers. UserOwned selects the caller's
// own (true) or those of others (false).
type ProviderFilter struct {
	Origin    string
	UserOwned *bool
}

// List returns a page of the providers.
func (p *Providers) List(ctx context.Context, who Caller, page Page, in ProviderFilter) (*Items[*Provider], error) {
	filters := ownedFilter(who, in.UserOwned)
	if in.Origin != "" {
		filters = append(filters, equal("origin", in.Origin))
	}
	return p.list(ctx, who, page, filters...)
}

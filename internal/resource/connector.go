package resource

import (
	"context"
	"errors"
	"net/url"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// The states of a connector.
const (
	connectorCreated      = "created"
	connectorConnected    = "connected"
	connectorDisconnected = "disconnected"
)

// Connector is a user's link to an MCP server.
type Connector struct {
	bun.BaseModel `bun:"table:connectors"`
	Base

	URL              string       `json:"url" format:"uri"`
	ClientID         *string      `json:"-"`
	ClientSecret     []byte       `json:"-"`
	State            string       `json:"state" enum:"created,connected,disconnected"`
	AuthRequest      *AuthRequest `bun:"-" json:"auth_request" doc:"Where the user authorizes the connection; null if no authorization is required."`
	DisconnectReason *string      `json:"disconnect_reason"`
	Metadata         Metadata     `bun:"type:json" json:"metadata"`
}

// AuthRequest tells the user of a connector where to authorize it.
type AuthRequest struct {
	Type                  string `json:"type" enum:"code"`
	AuthorizationEndpoint string `json:"authorization_endpoint" format:"uri"`
}

// Connectors is the type of the users' links to MCP servers.
type Connectors struct {
	*collection[*Connector]
	mcp     MCP
	secrets secrets
	presets []Preset
}

func newConnectors(mcp MCP, s secrets, presets []Preset) *Connectors {
	return &Connectors{mcp: mcp, secrets: s, presets: presets, collection: newCollection(kind[*Connector]{
		Type:   ConnectorType,
		URL:    "/api/v1/connectors/{id}",
		New:    func() *Connector { return new(Connector) },
		policy: private,
	})}
}

// Get returns one of the caller's connectors.
func (c *Connectors) Get(ctx context.Context, who Caller, id string) (*Connector, error) {
	return c.get(ctx, who, id)
}

// List returns a page of the caller's connectors.
func (c *Connectors) List(ctx context.Context, who Caller, page Page) (*Items[*Connector], error) {
	return c.list(ctx, who, page)
}

// Delete deletes a connector. ifMatch is the expected version, or 0 for any.
func (c *Connectors) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return c.delete(ctx, who, id, ifMatch)
}

// MCP is a client for MCP servers.
type MCP interface {
	// Initialize performs the protocol's initialize request. Errors are
	// [RemoteError]s.
	Initialize(ctx context.Context, url string) error
}

// Preset is an MCP server that is offered to users.
type Preset struct {
	URL          string   `json:"url" format:"uri"`
	Metadata     Metadata `json:"metadata"`
	ClientID     string   `json:"-"`
	ClientSecret string   `json:"-"`
}

// Presets returns the MCP servers that are offered to users.
func (c *Connectors) Presets() *Items[Preset] {
	items := append([]Preset{}, c.presets...)
	for i := range items {
		items[i].Metadata = items[i].Metadata.orEmpty()
	}
	return &Items[Preset]{Items: items, TotalCount: int64(len(items))}
}

// NewConnector is a request to link to an MCP server.
type NewConnector struct {
	URL          string   `json:"url" maxLength:"2048"`
	ClientID     *string  `json:"client_id" required:"false" minLength:"1" maxLength:"256"`
	ClientSecret *string  `json:"client_secret" required:"false" minLength:"1" maxLength:"10000" doc:"Requires a client_id."`
	Metadata     Metadata `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
	MatchPreset  *bool    `json:"match_preset" required:"false" default:"true" doc:"Fill in omitted fields from the preset for this URL."`
}

// Create creates a connector.
func (c *Connectors) Create(ctx context.Context, who Caller, in NewConnector) (*Connector, error) {
	u, err := url.Parse(in.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, fail(Invalid, "url", "expected the http(s) URL of an MCP server, without credentials")
	}
	if in.ClientSecret != nil && in.ClientID == nil {
		return nil, fail(Invalid, "client_secret", "requires a client_id")
	}
	if err := in.Metadata.check(); err != nil {
		return nil, err
	}
	if in.MatchPreset == nil || *in.MatchPreset {
		c.applyPreset(&in)
	}
	row := &Connector{
		Base: Base{ID: newID()}, URL: in.URL, ClientID: in.ClientID,
		State: connectorCreated, Metadata: in.Metadata.orEmpty(),
	}
	err = c.store.InTx(ctx, func(tx *store.Tx) error {
		if in.ClientSecret != nil {
			var err error
			if row.ClientSecret, err = c.secrets.seal(ctx, tx, *in.ClientSecret, boundTo(row.ID)); err != nil {
				return err
			}
		}
		return c.insert(ctx, tx, who, row)
	})
	return row, err
}

func (c *Connectors) applyPreset(in *NewConnector) {
	for i := range c.presets {
		p := &c.presets[i]
		if p.URL != in.URL {
			continue
		}
		if in.ClientID == nil && p.ClientID != "" {
			in.ClientID = &p.ClientID
			if p.ClientSecret != "" {
				in.ClientSecret = &p.ClientSecret
			}
		}
		if in.Metadata == nil {
			in.Metadata = p.Metadata
		}
		return
	}
}

// Connection is a request to connect.
type Connection struct {
	RedirectURL *string `json:"redirect_url" required:"false" maxLength:"2048" doc:"Where the user returns after authorizing the connection; ignored if no authorization is required."`
	AccessToken *string `json:"access_token" required:"false" maxLength:"10000" doc:"Not yet supported."`
}

// Connect connects to the MCP server. If the server cannot be used, nothing
// changes.
func (c *Connectors) Connect(ctx context.Context, who Caller, id string, how *Connection) (*Connector, error) {
	if how != nil && how.AccessToken != nil {
		return nil, fail(Invalid, "access_token", "access tokens are not yet supported; omit it or set it to null")
	}
	now, err := c.get(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if err := c.mcp.Initialize(ctx, now.URL); err != nil {
		return nil, c.remoteFailed(ctx, connectCode(err), "url", "the MCP server can't be used", now.URL, err)
	}
	return c.update(ctx, who, id, 0, func(_ *store.Tx, row *Connector) (bool, error) {
		row.State, row.DisconnectReason = connectorConnected, nil
		return false, nil
	})
}

// connectCode distinguishes a server that fails from one that does not answer.
func connectCode(err error) Code {
	if e, ok := errors.AsType[*RemoteError](err); ok && (e.Reason == RemoteUnreachable || e.Reason == RemoteSlow) {
		return RemoteTimeout
	}
	return RemoteFailed
}

// Disconnect disconnects from the MCP server.
func (c *Connectors) Disconnect(ctx context.Context, who Caller, id string) (*Connector, error) {
	return c.update(ctx, who, id, 0, func(_ *store.Tx, row *Connector) (bool, error) {
		if row.State == connectorCreated {
			return false, fail(Conflict, "", "the connector was never connected")
		}
		reason := "Client request"
		row.State, row.DisconnectReason = connectorDisconnected, &reason
		return false, nil
	})
}

// Package reach creates the HTTP clients that reach endpoints, from settings
// like Prometheus' http_config.
package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/regular"
	"github.com/tidings-dev/tidings/sender"
)

const connectTimeout = 5 * time.Second

// Options holds what a client needs besides the settings of its endpoint.
type Options struct {
	// Egress is the rule for addresses.
	Egress sender.Egress
	// MaxConnectionAge is how long a connection is used, ±20 %.
	MaxConnectionAge time.Duration
	// Connections limits those of all clients together; nil means no limit.
	Connections *sender.Connections
	Sender      sender.Options
}

// Open returns a sender that reaches its endpoint according to the settings,
// and a closer for its connections.
func Open(e tidings.Endpoint, c promconfig.HTTPClientConfig, o Options) (*sender.Sender, func() error, error) {
	dialer := sender.NewDialer(o.Egress, e.MaxInFlight, connectTimeout)
	dialer.Connections = o.Connections
	client, err := newClient(c, sender.TransportOptions{Dialer: dialer, Timeout: e.Timeout, MaxAge: o.MaxConnectionAge})
	if err != nil {
		return nil, nil, err
	}
	s, err := sender.New(e, client, o.Sender)
	if err != nil {
		return nil, nil, errors.Join(err, dialer.Close())
	}
	return s, dialer.Close, nil
}

// Check returns an error unless a client can be created from the settings.
func Check(c promconfig.HTTPClientConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	// Prometheus detects other invalid settings; newClient detects missing
	// files.
	if _, err := promconfig.NewRoundTripperFromConfig(c, "check"); err != nil {
		return err
	}
	_, err := newClient(c, sender.TransportOptions{Dialer: sender.NewDialer(sender.Egress{}, 1, connectTimeout)})
	return err
}

// newClient returns the client described by Prometheus' settings. It assembles
// Prometheus' building blocks itself, because connections and OAuth2 tokens
// need limits that Prometheus' own client lacks.
func newClient(c promconfig.HTTPClientConfig, o sender.TransportOptions) (*http.Client, error) {
	o.HTTP2 = c.EnableHTTP2
	o.Proxy, o.ProxyHeader = c.Proxy(), c.GetProxyConnectHeader()
	rt, err := newTransport(&c.TLSConfig, o)
	if err != nil {
		return nil, err
	}
	if a := c.Authorization; a != nil {
		rt = promconfig.NewAuthorizationCredentialsRoundTripper(a.Type,
			secretReader(string(a.Credentials), a.CredentialsFile), rt)
	}
	if b := c.BasicAuth; b != nil {
		rt = promconfig.NewBasicAuthRoundTripper(secretReader(b.Username, b.UsernameFile),
			secretReader(string(b.Password), b.PasswordFile), rt)
	}
	if c.OAuth2 != nil {
		if rt, err = newTokens(c.OAuth2, o, rt); err != nil {
			return nil, err
		}
	}
	if c.HTTPHeaders != nil {
		rt = promconfig.NewHeadersRoundTripper(c.HTTPHeaders, rt)
	}
	return &http.Client{Transport: rt}, nil
}

// newTransport returns a transport that reloads its certificates when their
// files change.
func newTransport(c *promconfig.TLSConfig, o sender.TransportOptions) (http.RoundTripper, error) {
	tlsConfig, err := promconfig.NewTLSConfig(c)
	if err != nil {
		return nil, err
	}
	o.TLS = tlsConfig
	if c.CAFile == "" && c.CertFile == "" && c.KeyFile == "" {
		return sender.NewTransport(o), nil
	}
	files := promconfig.TLSRoundTripperSettings{
		CA: secretReader(c.CA, c.CAFile), Cert: secretReader(c.Cert, c.CertFile),
		Key: secretReader(string(c.Key), c.KeyFile),
	}
	return promconfig.NewTLSRoundTripperWithContext(context.Background(), tlsConfig, files,
		func(t *tls.Config) (http.RoundTripper, error) {
			o.TLS = t
			return sender.NewTransport(o), nil
		})
}

// secretReader returns nil if no secret is configured.
func secretReader(text, file string) promconfig.SecretReader {
	switch {
	case text != "":
		return promconfig.NewInlineSecret(text)
	case file != "":
		return fileSecret(file)
	}
	return nil
}

// fileSecret is the path of a file that is read on each use.
type fileSecret string

// Fetch implements [promconfig.SecretReader].
func (f fileSecret) Fetch(context.Context) (string, error) {
	text, err := regular.Read(string(f))
	return strings.TrimSpace(string(text)), err
}

// Description implements [promconfig.SecretReader].
func (f fileSecret) Description() string { return "file " + string(f) }

// Immutable implements [promconfig.SecretReader].
func (fileSecret) Immutable() bool { return false }

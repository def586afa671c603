package config

import (
	"context"
	"crypto/tls"
	"net/http"

	promconfig "github.com/prometheus/common/config"

	"github.com/tidings-dev/tidings/sender"
)

// newClient returns the client that Prometheus' settings describe. It is put
// together here, from Prometheus' parts, since connections and OAuth2 tokens need
// limits that its own client lacks.
func newClient(c promconfig.HTTPClientConfig, o sender.TransportOptions) (*http.Client, error) {
	o.NoHTTP2 = !c.EnableHTTP2
	o.Proxy, o.ProxyHeader = c.Proxy(), c.GetProxyConnectHeader()
	rt, err := newTransport(&c.TLSConfig, o)
	if err != nil {
		return nil, err
	}
	if a := c.Authorization; a != nil {
		rt = promconfig.NewAuthorizationCredentialsRoundTripper(a.Type, secretReader(string(a.Credentials), a.CredentialsFile), rt)
	}
	if b := c.BasicAuth; b != nil {
		rt = promconfig.NewBasicAuthRoundTripper(secretReader(b.Username, b.UsernameFile), secretReader(string(b.Password), b.PasswordFile), rt)
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

// newTransport returns a transport that reads its certificates again when their
// files change.
func newTransport(c *promconfig.TLSConfig, o sender.TransportOptions) (http.RoundTripper, error) {
	tlsConfig, err := promconfig.NewTLSConfig(c)
	if err != nil {
		return nil, err
	}
	files := promconfig.TLSRoundTripperSettings{
		CA: secretReader(c.CA, c.CAFile), Cert: secretReader(c.Cert, c.CertFile), Key: secretReader(string(c.Key), c.KeyFile),
	}
	return promconfig.NewTLSRoundTripperWithContext(context.Background(), tlsConfig, files, func(t *tls.Config) (http.RoundTripper, error) {
		o.TLS = t
		return sender.NewTransport(o), nil
	})
}

// secretReader returns nil for a secret that is not configured.
func secretReader(text, file string) promconfig.SecretReader {
	switch {
	case text != "":
		return promconfig.NewInlineSecret(text)
	case file != "":
		return promconfig.NewFileSecret(file)
	}
	return nil
}

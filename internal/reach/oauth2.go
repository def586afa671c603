package reach

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/golang-jwt/jwt/v5"
	promconfig "github.com/prometheus/common/config"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tidings-dev/tidings/sender"
)

// tokens is a round tripper that adds an OAuth2 token to each request. Unlike
// Prometheus', it fetches tokens within the time limit of the request:
// otherwise, a token endpoint that never responds would block attempts forever.
type tokens struct {
	config   *promconfig.OAuth2
	secret   promconfig.SecretReader // client secret; nil for none
	endpoint http.RoundTripper       // for the token endpoint
	next     http.RoundTripper

	busy   chan struct{} // a mutex with timeout for the fields below
	token  *oauth2.Token
	gotFor string // the secret with which it was fetched
}

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

func newTokens(c *promconfig.OAuth2, o sender.TransportOptions, next http.RoundTripper) (*tokens, error) {
	o.HTTP2 = false
	o.Proxy, o.ProxyHeader = c.Proxy(), c.GetProxyConnectHeader()
	endpoint, err := newTransport(&c.TLSConfig, o)
	if err != nil {
		return nil, fmt.Errorf("oauth2: %w", err)
	}
	t := &tokens{config: c, endpoint: endpoint, next: next, busy: make(chan struct{}, 1)}
	if c.GrantType == jwtBearer {
		t.secret = secretReader(string(c.ClientCertificateKey), c.ClientCertificateKeyFile)
	} else {
		t.secret = secretReader(string(c.ClientSecret), c.ClientSecretFile)
	}
	return t, nil
}

// RoundTrip implements [http.RoundTripper].
func (t *tokens) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := t.current(r)
	if err != nil {
		return nil, errors.Join(err, r.Body.Close())
	}
	r = r.Clone(r.Context())
	token.SetAuthHeader(r)
	response, err := t.next.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusUnauthorized {
		t.drop(token)
	}
	return response, err
}

// current returns a valid token, which it fetches if necessary.
func (t *tokens) current(r *http.Request) (*oauth2.Token, error) {
	ctx := r.Context()
	select {
	case t.busy <- struct{}{}:
		defer func() { <-t.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	secret := ""
	if t.secret != nil {
		var err error
		if secret, err = t.secret.Fetch(ctx); err != nil {
			return nil, fmt.Errorf("oauth2 client secret: %w", err)
		}
	}
	if t.token.Valid() && secret == t.gotFor {
		return t.token, nil
	}
	client := &http.Client{
		Transport:     &bound{ctx, r.UserAgent(), t.endpoint},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := t.source(context.WithValue(valueless{ctx}, oauth2.HTTPClient, client), secret).Token()
	if err != nil {
		return nil, tokenError(err)
	}
	t.token, t.gotFor = token, secret
	return token, nil
}

// drop discards a token that the receiver rejected.
func (t *tokens) drop(token *oauth2.Token) {
	select {
	case t.busy <- struct{}{}:
		if t.token == token {
			t.token = nil
		}
		<-t.busy
	default: // a new one is being fetched
	}
}

func (t *tokens) source(ctx context.Context, secret string) oauth2.TokenSource {
	c := t.config
	parameters := url.Values{}
	for name, value := range c.EndpointParams {
		parameters.Set(name, value)
	}
	if c.GrantType != jwtBearer {
		return (&clientcredentials.Config{
			ClientID: c.ClientID, ClientSecret: secret, Scopes: c.Scopes, TokenURL: c.TokenURL,
			EndpointParams: parameters,
		}).TokenSource(ctx)
	}
	issuer := c.Iss
	if issuer == "" {
		issuer = c.ClientID
	}
	algorithm, ok := jwt.GetSigningMethod(c.SignatureAlgorithm).(*jwt.SigningMethodRSA)
	if !ok {
		algorithm = jwt.SigningMethodRS256
	}
	return (&promconfig.JwtGrantTypeConfig{
		PrivateKey: []byte(secret), PrivateKeyID: c.ClientCertificateKeyID, SigningAlgorithm: algorithm,
		Iss: issuer, Subject: c.ClientID, Audience: c.Audience, PrivateClaims: c.Claims,
		Scopes: c.Scopes, TokenURL: c.TokenURL, EndpointParams: parameters,
	}).TokenSource(ctx)
}

// tokenError removes the token endpoint's response and URL from an error,
// because either may contain a secret.
func tokenError(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response != nil {
		return fmt.Errorf("the OAuth2 token endpoint responded with %d %s", refused.Response.StatusCode, refused.ErrorCode)
	}
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	return fmt.Errorf("the OAuth2 token endpoint: %w", err)
}

// bound sends requests in a given context, because libraries use none.
type bound struct {
	ctx       context.Context
	userAgent string
	next      http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (b *bound) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(valueless{b.ctx})
	r.Header.Set("User-Agent", b.userAgent)
	return b.next.RoundTrip(r)
}

// valueless ends with its context but has none of its values, such as another
// request's trace.
type valueless struct{ context.Context }

// Value implements [context.Context].
func (valueless) Value(any) any { return nil }

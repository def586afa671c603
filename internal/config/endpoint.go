package config

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"time"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// HTTP is how an endpoint is reached: TLS, basic authentication, bearer token,
// OAuth2 client credentials and proxy, as in Prometheus' http_config.
type HTTP struct{ config *promconfig.HTTPClientConfig }

func (h *HTTP) check() error {
	if h.config == nil {
		return nil
	}
	if err := h.config.Validate(); err != nil {
		return err
	}
	// What files there are is found out by making a client.
	client, err := promconfig.NewClientFromConfig(*h.config, "check")
	if err != nil {
		return err
	}
	client.CloseIdleConnections()
	for _, file := range h.files() {
		if _, err := (SecretSource{File: file}).Read(); err != nil {
			return err
		}
	}
	return nil
}

// files are those that are read at each request.
func (h *HTTP) files() []string {
	files := []string{h.config.BearerTokenFile}
	if a := h.config.Authorization; a != nil {
		files = append(files, a.CredentialsFile)
	}
	if b := h.config.BasicAuth; b != nil {
		files = append(files, b.UsernameFile, b.PasswordFile)
	}
	if o := h.config.OAuth2; o != nil {
		files = append(files, o.ClientSecretFile)
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// decodeHTTP checks the keys, with their places, and leaves the rest to
// Prometheus.
func (d *decoder) decodeHTTP(node *yaml.Node, h *HTTP, key string) {
	before := len(d.problems)
	d.checkKeys(node, reflect.TypeFor[promconfig.HTTPClientConfig](), key)
	if len(d.problems) > before {
		return
	}
	cfg := promconfig.DefaultHTTPClientConfig
	if err := node.Decode(&cfg); err != nil {
		d.problem(node, key, "%v", err)
		return
	}
	h.config = &cfg
}

// checkKeys notes keys of a mapping that a struct does not have.
func (d *decoder) checkKeys(node *yaml.Node, t reflect.Type, key string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isNull(node) || node.Kind == yaml.ScalarNode {
		return
	}
	fields := fieldsOf(t)
	d.eachKey(node, key, func(name string, at, value *yaml.Node) {
		index, ok := fields[name]
		if !ok {
			if len(fields) > 0 {
				d.unknownKey(at, key, name, fields)
			}
			return
		}
		d.checkKeys(value, t.FieldByIndex(index).Type, join(key, name))
	})
}

const connectTimeout = 5 * time.Second

// Receiver is an endpoint with the client that reaches it.
type Receiver struct {
	tidings.Endpoint
	Enabled bool
	Client  *http.Client
	Retry   relay.Schedule
	// Fingerprint changes with the endpoint's settings.
	Fingerprint string

	dialer *sender.Dialer
}

// Close closes the endpoint's connections.
func (r *Receiver) Close() error { return r.dialer.Close() }

// Receivers turns the configured endpoints, which were checked by [Load], into
// clients and words.
func (c *Config) Receivers(userAgent string) ([]*Receiver, error) {
	egress := sender.Egress{Deny: c.Egress.DenyNetworks, Allow: c.Egress.AllowNetworks}
	receivers := make([]*Receiver, len(c.Webhook.Endpoints))
	for i := range c.Webhook.Endpoints {
		var err error
		if receivers[i], err = c.Webhook.Endpoints[i].receiver(egress, userAgent); err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", c.Webhook.Endpoints[i].Name, err)
		}
	}
	return receivers, nil
}

func (e *Endpoint) receiver(egress sender.Egress, userAgent string) (*Receiver, error) {
	r := &Receiver{
		Endpoint: tidings.Endpoint{
			Name: e.Name, URL: e.URL, Headers: make(http.Header),
			Timeout: time.Duration(e.Timeout), MaxInFlight: e.MaxInFlight,
			Format: tidings.Format(e.Format), EventPrefix: e.EventPrefix,
			NoInfoHeaders: e.InfoHeaders != nil && !*e.InfoHeaders,
		},
		Enabled: e.Enabled == nil || *e.Enabled,
		Retry:   relay.Schedule{MaxAttempts: e.Retry.MaxAttempts, MaxAge: time.Duration(e.Retry.MaxAge)},
		dialer:  sender.NewDialer(egress, e.MaxInFlight, connectTimeout),
	}
	for _, delay := range e.Retry.Schedule {
		r.Retry.Delays = append(r.Retry.Delays, time.Duration(delay))
	}
	for name, source := range e.Headers {
		value, err := source.Read()
		if err != nil {
			return nil, err
		}
		r.Headers.Set(name, value)
	}
	for _, text := range e.Events {
		p, err := tidings.ParsePattern(text, tidings.ServerTypes())
		if err != nil {
			return nil, err
		}
		r.Patterns = append(r.Patterns, p)
	}
	for _, source := range append([]SecretSource{e.Secret}, e.Secrets...) {
		if !source.Set() {
			continue
		}
		secret, err := source.Read()
		if err != nil {
			return nil, err
		}
		r.Secrets = append(r.Secrets, secret)
	}
	cfg := promconfig.DefaultHTTPClientConfig
	if e.HTTP.config != nil {
		cfg = *e.HTTP.config
	}
	cfg.FollowRedirects = false
	var err error
	r.Client, err = promconfig.NewClientFromConfig(cfg, e.Name,
		promconfig.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			return r.dialer.DialContext(ctx, network, address)
		}), promconfig.WithUserAgent(userAgent))
	r.Fingerprint = fingerprint(e)
	return r, err
}

// UsesProxy reports whether requests go through a proxy; then the egress rule
// sees only the proxy's address.
func (e *Endpoint) UsesProxy() bool {
	c := e.HTTP.config
	return c != nil && (c.ProxyURL.URL != nil || c.ProxyFromEnvironment)
}

// fingerprint is a hash of what the operator wrote, so that an endpoint that was
// disabled comes back when it changes.
func fingerprint(e *Endpoint) string {
	hash := sha256.New()
	fmt.Fprintln(hash, e.URL, e.Name, e.Events, e.Format, e.EventPrefix, e.Timeout, e.MaxInFlight, e.HTTP.config != nil)
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		value, _ := e.Headers[name].Read()
		fmt.Fprintln(hash, name, value)
	}
	for _, source := range append([]SecretSource{e.Secret}, e.Secrets...) {
		value, _ := source.Read()
		fmt.Fprintln(hash, value)
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/reach"
	"github.com/tidings-dev/tidings/internal/regular"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// HTTP configures an endpoint's HTTP client: TLS, basic authentication, bearer
// token, OAuth2 client credentials and proxy, as in Prometheus' http_config.
type HTTP struct{ config *promconfig.HTTPClientConfig }

func (h *HTTP) check() error {
	if h.config == nil {
		return nil
	}
	files := append(h.files(), certificates(h.config.TLSConfig)...)
	if o := h.config.OAuth2; o != nil {
		files = append(files, certificates(o.TLSConfig)...)
	}
	for _, file := range files { // Prometheus reads them even if they are not regular files
		if err := regular.Check(file); err != nil {
			return err
		}
	}
	if err := reach.Check(*h.config); err != nil {
		return err
	}
	for _, file := range h.files() {
		if _, err := (SecretSource{File: file}).Read(); err != nil {
			return err
		}
	}
	return nil
}

func certificates(c promconfig.TLSConfig) []string { return []string{c.CAFile, c.CertFile, c.KeyFile} }

// files returns the files that are read for each request.
func (h *HTTP) files() []string {
	files := []string{h.config.BearerTokenFile}
	if a := h.config.Authorization; a != nil {
		files = append(files, a.CredentialsFile)
	}
	if b := h.config.BasicAuth; b != nil {
		files = append(files, b.UsernameFile, b.PasswordFile)
	}
	if o := h.config.OAuth2; o != nil {
		files = append(files, o.ClientSecretFile, o.ClientCertificateKeyFile)
	}
	if h.config.HTTPHeaders != nil {
		for _, name := range slices.Sorted(maps.Keys(h.config.HTTPHeaders.Headers)) {
			files = append(files, h.config.HTTPHeaders.Headers[name].Files...)
		}
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// Values of start, besides times.
const (
	startNewest = "newest"
	startOldest = "oldest"
)

// Receiver is an endpoint and its HTTP client settings. Its Sender is not set.
type Receiver struct {
	relay.Endpoint
	HTTP             promconfig.HTTPClientConfig
	MaxConnectionAge time.Duration
}

// UsesProxy reports whether requests go through a proxy; the egress rule then checks
// only the proxy's address.
func (r *Receiver) UsesProxy() bool {
	return r.HTTP.ProxyURL.URL != nil || r.HTTP.ProxyFromEnvironment
}

// Receivers reads the secrets of the configured endpoints, which [Load] has checked,
// and returns the endpoints.
func (c *Config) Receivers() ([]Receiver, error) {
	receivers := make([]Receiver, len(c.Webhook.Endpoints))
	for i := range c.Webhook.Endpoints {
		e := &c.Webhook.Endpoints[i]
		var err error
		if receivers[i], err = e.receiver(); err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
		}
		receivers[i].Fingerprint = e.fingerprint(c.Webhook, c.EndpointEgress())
	}
	return receivers, nil
}

func (e *Endpoint) receiver() (Receiver, error) {
	r := Receiver{
		Endpoint: relay.Endpoint{
			Endpoint: tidings.Endpoint{
				Name: e.Name, URL: e.URL, Headers: make(http.Header), Patterns: e.patterns,
				Timeout: time.Duration(e.Timeout), MaxInFlight: e.MaxInFlight,
				Format: tidings.Format(e.Format), EventPrefix: e.EventPrefix,
				NoInfoHeaders: e.InfoHeaders != nil && !*e.InfoHeaders,
			},
			Disabled:  e.Enabled != nil && !*e.Enabled,
			Retry:     relay.Schedule{MaxAttempts: e.Retry.MaxAttempts, MaxAge: time.Duration(e.Retry.MaxAge)},
			RateLimit: e.RateLimit.PerSecond, Burst: e.RateLimit.Burst,
			Coalesce: tidings.Coalesce(e.Coalesce), Partitions: e.Partitions, History: relay.HistoryMode(e.History),
			CursorFrom: e.CursorFrom, Oldest: e.Start == startOldest,
		},
		HTTP: defaultHTTP(), MaxConnectionAge: time.Duration(e.MaxConnectionAge),
	}
	r.Since, _ = time.Parse(time.RFC3339, e.Start) // fails for newest and oldest
	for _, delay := range e.Retry.Schedule {
		r.Retry.Delays = append(r.Retry.Delays, time.Duration(delay))
	}
	for name, source := range e.Headers {
		value, err := source.Read()
		if err != nil {
			return r, err
		}
		r.Headers.Set(name, value)
	}
	if e.HTTP.config != nil {
		r.HTTP = *e.HTTP.config
	}
	if h := r.HTTP.HTTPHeaders; h != nil {
		for name := range h.Headers {
			r.Headers[http.CanonicalHeaderKey(name)] = []string{} // suppresses Tidings' own; the client sets it
		}
	}
	for _, source := range append([]SecretSource{e.Secret}, e.Secrets...) {
		if !source.Set() {
			continue
		}
		secret, err := source.Read()
		if err != nil {
			return r, err
		}
		r.Secrets = append(r.Secrets, secret)
	}
	return r, nil
}

// canonical returns the content of a node, independent of style and comments.
func canonical(node *yaml.Node) string {
	var value any
	if err := node.Decode(&value); err != nil {
		return ""
	}
	text, err := json.Marshal(value)
	if err != nil { // keys that aren't strings
		return fmt.Sprint(value)
	}
	return string(text)
}

// fingerprint returns a hash of everything that decides how the endpoint is
// reached: its settings, the files and variables they refer to, and the settings
// shared by all endpoints.
func (e *Endpoint) fingerprint(w Webhook, egress sender.Egress) string {
	contents := sha256.New()
	for _, source := range e.secrets() {
		value, _ := source.Read() // [Load] checked that it is readable
		fmt.Fprintln(contents, value)
	}
	e.contents = string(contents.Sum(nil))
	hash := sha256.New()
	fmt.Fprintln(hash, e.digest, w.Source, egress.Deny, egress.Allow, e.contents)
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// secrets returns all secrets of the endpoint.
func (e *Endpoint) secrets() []SecretSource {
	sources := append([]SecretSource{e.Secret}, e.Secrets...)
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		sources = append(sources, e.Headers[name])
	}
	if e.HTTP.config != nil {
		for _, file := range e.HTTP.files() {
			sources = append(sources, SecretSource{File: file})
		}
	}
	return sources
}

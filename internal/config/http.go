package config

import (
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/sender"
)

// decodeHTTP checks each value before Prometheus decodes it: the errors of Prometheus'
// decoder may quote a value, which may be a secret.
func (d *decoder) decodeHTTP(node *yaml.Node, h *HTTP, key string) {
	before := len(d.problems)
	d.checkHTTP(node, reflect.TypeFor[promconfig.HTTPClientConfig](), key)
	if len(d.problems) > before {
		return
	}
	cfg := defaultHTTP()
	var explicit struct {
		HTTP2 bool `yaml:"enable_http2"`
	}
	err := errors.Join(node.Decode(&cfg), node.Decode(&explicit))
	cfg.EnableHTTP2 = explicit.HTTP2 // Prometheus' default is true
	switch {
	case err == nil:
		h.config = &cfg
	case strings.HasPrefix(err.Error(), "yaml: "): // from the decoder
		d.problem(node, key, "expected the settings of Prometheus' http_config")
	case strings.HasPrefix(err.Error(), "setting header"):
		d.problem(node, key, "%v here; use the endpoint's headers", err)
	default: // from validation
		d.problem(node, key, "%v", err)
	}
}

func defaultHTTP() promconfig.HTTPClientConfig {
	c := promconfig.DefaultHTTPClientConfig
	c.EnableHTTP2 = false
	return c
}

// checkHTTP reports what can't be decoded into a type.
func (d *decoder) checkHTTP(node *yaml.Node, t reflect.Type, key string) {
	node = resolved(node)
	d.nodes[key] = node
	switch {
	case isNull(node), t.Kind() == reflect.Interface:
	case t.Kind() == reflect.Pointer:
		d.checkHTTP(node, t.Elem(), key)
	case t == reflect.TypeFor[promconfig.URL](): // a proxy's
		d.checkURL(node, key, "http", "https", "socks5", "socks5h")
	case t == reflect.TypeFor[promconfig.TLSVersion]():
		if _, ok := promconfig.TLSVersions[node.Value]; !ok {
			d.problem(node, key, "expected one of TLS10, TLS11, TLS12, TLS13")
		}
	case t == reflect.TypeFor[promconfig.Headers]():
		d.checkHTTPHeaders(node, reflect.TypeFor[promconfig.Header](), key)
	case t == reflect.TypeFor[promconfig.ProxyHeader]():
		d.checkHTTPHeaders(node, t.Elem(), key)
	case t.Kind() == reflect.Struct:
		d.checkHTTPKeys(node, t, key)
	case t.Kind() == reflect.Map:
		d.eachKey(node, key, func(name string, _, value *yaml.Node) { d.checkHTTP(value, t.Elem(), member(key, name)) })
	case t.Kind() == reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			d.problem(node, key, "expected a list")
			return
		}
		for _, item := range node.Content {
			d.checkHTTP(item, t.Elem(), key)
		}
	default:
		d.decodeScalar(node, reflect.New(t).Elem(), key)
	}
}

// multiline are the keys whose values are PEM.
var multiline = []string{"ca", "cert", "key", "client_certificate_key"}

func (d *decoder) checkHTTPKeys(node *yaml.Node, t reflect.Type, key string) {
	fields := fieldsOf(t)
	d.eachKey(node, key, func(name string, at, value *yaml.Node) {
		index, ok := fields[name]
		switch {
		case !ok:
			d.unknownKey(at, key, name, t)
		case name == "token_url":
			d.nodes[join(key, name)] = value
			d.checkURL(value, join(key, name), "http", "https")
		case value.Kind == yaml.ScalarNode && !slices.Contains(multiline, name) &&
			strings.ContainsFunc(value.Value, unicode.IsControl):
			d.problem(value, join(key, name), "contains a line break or other control character")
		default:
			d.checkHTTP(value, t.FieldByIndex(index).Type, join(key, name))
		}
	})
}

// checkHTTPHeaders reports headers that can't be sent.
func (d *decoder) checkHTTPHeaders(node *yaml.Node, t reflect.Type, key string) {
	d.eachKey(node, key, func(name string, at, value *yaml.Node) {
		if err := sender.CheckHeader(name, scalars(value)); err != nil {
			d.problem(at, member(key, name), "%v", err)
			return
		}
		d.checkHTTP(value, t, join(key, name))
	})
}

// scalars returns all scalar values in a node. It does not follow aliases of mappings
// and lists, which may contain themselves.
func scalars(node *yaml.Node) []string {
	if value := resolved(node); value.Kind == yaml.ScalarNode {
		return []string{value.Value}
	}
	var all []string
	for _, child := range node.Content {
		all = append(all, scalars(child)...)
	}
	return all
}

func (d *decoder) checkURL(node *yaml.Node, key string, schemes ...string) {
	node = resolved(node)
	if node.Kind != yaml.ScalarNode {
		d.problem(node, key, "expected a string")
	} else if _, err := sender.CheckURL(node.Value, schemes...); err != nil {
		d.problem(node, key, "%v", err)
	}
}

// checkPlainURL checks a URL, which must not contain a user name or password; advice
// says where to set them instead.
func (d *decoder) checkPlainURL(key, text, advice string) *url.URL {
	u, err := sender.CheckURL(text)
	switch {
	case err != nil:
		d.at(key, "%v", err)
		return nil
	case u.User != nil:
		d.at(key, "must not contain a user name or password; %s", advice)
		return nil
	}
	return u
}

package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Written is what was written about an endpoint, and where.
type Written struct {
	// Place is where the endpoint begins, such as "/etc/tidings.yaml:18".
	Place string
	// Settings are those that do not have their defaults, sorted by key.
	Settings []WrittenSetting
}

// WrittenSetting is the value of a setting, such as retry.schedule, and where it was
// written. Of a secret it says only that it is set.
type WrittenSetting struct {
	Key, Value string
	Secret     bool
	Origin     string
}

// Written returns what was written about an endpoint; nil if there is no such endpoint.
func (c *Config) Written(name string) *Written {
	for i := range c.Webhook.Endpoints {
		if e := &c.Webhook.Endpoints[i]; e.Name == name {
			return e.written
		}
	}
	return nil
}

// helmMark begins a file that the Helm chart wrote. Nobody changes such a file: what counts
// are the values, whose keys are the same.
const helmMark = "# Helm values"

// place returns where a node was written: its file and line, or the Helm value, environment
// variable or flag.
func (d *decoder) place(node *yaml.Node, key string) string {
	switch from := d.origins[node]; {
	case d.helm[from.name]:
		return "Helm value " + key
	case from.isFile:
		return fmt.Sprintf("%s:%d", from.name, node.Line)
	default:
		return from.name
	}
}

// written records where the settings of the endpoints were written.
func (d *decoder) written(endpoints []Endpoint) {
	for i := range endpoints {
		key := fmt.Sprintf("%s[%d]", endpointList, i)
		endpoints[i].written = new(Written)
		if node := d.nodes[key]; node != nil {
			endpoints[i].written.Place = d.place(node, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(d.nodes)) {
		node := d.nodes[key]
		rest, isEndpoint := strings.CutPrefix(key, endpointList+"[")
		index, name, isSetting := strings.Cut(rest, "].")
		i, err := strconv.Atoi(index)
		if !isEndpoint || !isSetting || err != nil || i >= len(endpoints) || isNull(node) ||
			strings.HasSuffix(name, "]") { // an item of a list
			continue
		}
		s := WrittenSetting{Key: name, Origin: d.place(node, key)}
		e := &endpoints[i]
		header, isHeader := strings.CutPrefix(name, "headers.")
		client, isClient := strings.CutPrefix(name, "http.")
		switch {
		case isHeader:
			s.add(e.Headers[header])
		case name == "secret":
			s.add(e.Secret)
		case name == "secrets":
			s.add(e.Secrets...)
		case isClient && node.Kind != yaml.MappingNode:
			s.Value, s.Secret = shownHTTP(client, node)
		case isClient || node.Kind == yaml.MappingNode: // its members are listed
			continue
		default:
			s.Value = shown(field(reflect.ValueOf(e).Elem(), name))
		}
		e.written.Settings = append(e.written.Settings, s)
	}
}

// add adds to the origin where secrets are read from.
func (s *WrittenSetting) add(secrets ...SecretSource) {
	s.Value, s.Secret = "set", true
	for _, secret := range secrets {
		if from := shown(reflect.ValueOf(secret)); from != s.Value {
			s.Origin += ", from " + from
		}
	}
}

// openHTTP are the settings of the HTTP client that are not secret, besides the names of
// files and whatever is true or false.
var openHTTP = map[string]bool{
	"proxy_url": true, "no_proxy": true, "token_url": true, "server_name": true, "min_version": true,
	"max_version": true,
}

// shownHTTP returns a setting of the HTTP client as text, and whether it may be secret.
func shownHTTP(key string, node *yaml.Node) (value string, secret bool) {
	name := key[strings.LastIndex(key, ".")+1:]
	if node.Kind != yaml.ScalarNode || strings.Contains(key, "headers.") ||
		!openHTTP[name] && node.Tag != "!!bool" && !strings.HasSuffix(name, "_file") {
		return "set", true
	}
	return plain(node.Value), false
}

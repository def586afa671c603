package config

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/tidings-dev/tidings"
)

// Change is a setting that differs between two configurations. It holds no secrets.
type Change struct {
	// Endpoint is the name of an endpoint, or its place in the list if it has no good
	// one; empty for other settings.
	Endpoint string
	// Key is the setting; empty where an endpoint as a whole is added or removed.
	Key string
	// Kind is added, removed or changed.
	Kind string
	// Before and After are the values; empty if there was none. After is also empty if
	// there is a problem with it.
	Before, After string
	// Problem says why the setting is refused.
	Problem string
}

const endpointList = "webhook.endpoints"

// Changes returns what differs from the configuration before, also if this one was
// refused and could only partly be read. It returns none if its files are not YAML.
func (c *Config) Changes(before *Config) []Change {
	if c.unread == nil {
		return nil
	}
	d := &differ{unread: c.unread, all: c.problems, problems: c.problems}
	d.complete = !isUnread(c.unread, endpointList) && !slices.ContainsFunc(c.problems, func(p Problem) bool {
		return p.Key == endpointList || p.Key == "webhook.endpoint_files" ||
			p.Key == "" && !slices.Contains(c.files, p.Source) // a file of endpoints
	})
	for _, key := range allSettings {
		if key != endpointList {
			d.compare(Change{Key: key}, key, setting(before, key), setting(c, key))
		}
	}
	d.endpoints(before.Webhook.Endpoints, c.Webhook.Endpoints)
	return d.changes
}

// differ collects changes.
type differ struct {
	unread   map[string]bool
	all      Problems
	problems Problems // those that are not shown yet
	complete bool     // all endpoints could be read, so that those not listed are removed
	changes  []Change
}

// endpointSettings are the keys of an endpoint's settings.
var endpointSettings = func() []string {
	keys := append(settings(reflect.TypeFor[Endpoint](), ""), "http")
	return slices.DeleteFunc(keys, func(key string) bool { return key == "name" })
}()

func (d *differ) endpoints(before, now []Endpoint) {
	old := make(map[string]*Endpoint)
	for i := range before {
		old[before[i].Name] = &before[i]
	}
	for i := range now {
		key := fmt.Sprintf("%s[%d]", endpointList, i)
		name := now[i].Name
		if name == "" || d.refused(key+".name") != "" || isUnread(d.unread, key+".name") || d.fromBadURL(&now[i], key) {
			name, d.complete = key, false
		}
		was, kind := old[name], "changed"
		if was == nil {
			was, kind = new(defaultEndpoint()), "added"
			d.changes = append(d.changes, Change{Endpoint: name, Kind: kind})
		}
		delete(old, name)
		left, right := reflect.ValueOf(was).Elem(), reflect.ValueOf(&now[i]).Elem()
		for _, k := range endpointSettings {
			d.compare(Change{Endpoint: name, Key: k, Kind: kind}, join(key, k), field(left, k), field(right, k))
		}
		for _, p := range d.problems { // of what is no setting, such as an unknown key
			if rest, ok := strings.CutPrefix(p.Key, key); ok && (rest == "" || strings.ContainsAny(rest[:1], ".[")) {
				d.changes = append(d.changes,
					Change{Endpoint: name, Key: strings.TrimPrefix(rest, "."), Kind: "changed", Problem: p.Message})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if d.complete {
			d.changes = append(d.changes, Change{Endpoint: name, Kind: "removed"})
		}
	}
}

// fromBadURL reports whether an endpoint is named for a URL that is refused.
func (d *differ) fromBadURL(e *Endpoint, key string) bool {
	return e.Name == (&tidings.Endpoint{URL: e.URL}).DefaultName() &&
		slices.ContainsFunc(d.all, func(p Problem) bool { return p.Key == key+".url" })
}

// compare adds a change if a setting differs. What could not be read is as before.
func (d *differ) compare(change Change, key string, before, now reflect.Value) {
	if change.Problem = d.refused(key); change.Problem == "" &&
		(isUnread(d.unread, key) || reflect.DeepEqual(before.Interface(), now.Interface())) {
		return
	}
	change.Before, change.After = shown(before), shown(now)
	switch {
	case change.Problem != "": // the value may be a secret in the wrong place
		change.After = ""
	case change.Endpoint == "" && now.Kind() == reflect.String && d.besides(key): // the same
		change.After = "set"
	case change.Before == change.After:
		change.After += " (another)"
	}
	if change.Kind == "" {
		change.Kind = "changed"
	}
	d.changes = append(d.changes, change)
}

// besides reports whether there is a problem with the mapping that holds a setting, or in
// it.
func (d *differ) besides(key string) bool {
	parent := func(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }
	return slices.ContainsFunc(d.all, func(p Problem) bool {
		return parent(p.Key) == parent(key) || p.Key == parent(key)
	})
}

// refused returns what is wrong with a setting, or with a part of it.
func (d *differ) refused(key string) (message string) {
	d.problems = slices.DeleteFunc(slices.Clone(d.problems), func(p Problem) bool {
		rest, ok := strings.CutPrefix(p.Key, key)
		ok = ok && (rest == "" || strings.ContainsAny(rest[:1], ".["))
		if ok && message == "" {
			message = p.Message
		}
		return ok
	})
	return message
}

// shown returns a setting as text, without secrets; empty if it has no value.
func shown(v reflect.Value) string {
	switch own := v.Interface().(type) {
	case SecretSource:
		switch {
		case own.File != "":
			return "file " + own.File
		case own.Env != "":
			return "variable " + own.Env
		case own.Set():
			return "set"
		}
		return ""
	case HTTP:
		if own.config == nil {
			return ""
		}
		return "set"
	case Duration:
		return model.Duration(time.Duration(own)).String()
	case Network:
		return own.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		return shown(v.Elem())
	case reflect.String:
		return plain(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int, reflect.Int64:
		if v.IsZero() {
			return ""
		}
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Float64:
		if v.IsZero() {
			return ""
		}
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	case reflect.Slice, reflect.Map:
		return shownAll(v)
	}
	return "set"
}

// shownAll returns a list or a mapping as text.
func shownAll(v reflect.Value) string {
	inner := v.Type().Elem()
	switch {
	case v.Len() == 0:
		return ""
	case inner.Kind() == reflect.Struct && inner != reflect.TypeFor[SecretSource]() && inner != reflect.TypeFor[Network]():
		if v.Len() == 1 {
			return "1 entry"
		}
		return fmt.Sprintf("%d entries", v.Len())
	}
	var items []string
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			items = append(items, shown(v.Index(i)))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	for _, key := range v.MapKeys() {
		items = append(items, key.String()+": "+shown(v.MapIndex(key)))
	}
	slices.Sort(items)
	return "{" + strings.Join(items, ", ") + "}"
}

// plain returns a text without the parts of a URL that may be secrets.
func plain(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "set"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

package config

import (
	"maps"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	promconfig "github.com/prometheus/common/config"

	"github.com/tidings-dev/tidings/sender"
)

// headerCheck reports headers that an endpoint can't set, and those set in more than
// one place, of which an arbitrary one would win.
type headerCheck struct {
	*decoder
	endpoint string            // its key
	from     map[string]string // the setting that sets a header, by canonical name
}

func (d *decoder) checkHeaders(e *Endpoint, key string) {
	c := &headerCheck{d, key, make(map[string]string)}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		at := member(key+".headers", name)
		value := d.readable(at, e.Headers[name])
		if !e.Headers[name].Set() {
			d.at(at, "is empty; set a value or remove the header")
		}
		c.check(at, "headers."+name, name, value)
	}
	h := e.HTTP.config
	if h == nil {
		return
	}
	if u, err := url.Parse(e.URL); err == nil && u.User != nil && c.from["Authorization"] == "" {
		c.from["Authorization"] = "the user and password of url" // headers override it, http does not
	}
	for setting, used := range map[string]bool{
		"http.authorization": h.Authorization != nil, "http.basic_auth": h.BasicAuth != nil,
		"http.oauth2": h.OAuth2 != nil,
	} { // Prometheus allows only one of them
		if used {
			c.once(key+"."+setting, setting, "Authorization")
		}
	}
	if h.HTTPHeaders != nil {
		for _, name := range slices.Sorted(maps.Keys(h.HTTPHeaders.Headers)) {
			at := "http.http_headers." + name
			c.check(key+"."+at, at, name, headerValues(h.HTTPHeaders.Headers[name])...)
		}
	}
	c.from = make(map[string]string) // the CONNECT request is a separate one
	for _, name := range slices.Sorted(maps.Keys(h.ProxyConnectHeader)) {
		at := "http.proxy_connect_header." + name
		var values []string
		for _, value := range h.ProxyConnectHeader[name] {
			values = append(values, string(value))
		}
		c.check(key+"."+at, at, name, values...)
	}
}

// check reports problems with a header; setting is where it is set.
func (c *headerCheck) check(at, setting, name string, values ...string) {
	if err := sender.CheckHeader(name, values); err != nil {
		c.at(at, "%v", err)
		return
	}
	c.once(at, setting, name)
}

func (c *headerCheck) once(at, setting, name string) {
	name = textproto.CanonicalMIMEHeaderKey(name)
	if first, taken := c.from[name]; taken {
		c.at(at, "header %s is already set by %s; set it in one place (names are case-insensitive)", name, first)
		return
	}
	c.from[name] = setting
}

// headerValues returns the values of a header, including those in files. It skips
// unreadable files, which are reported elsewhere.
func headerValues(h promconfig.Header) []string {
	values := slices.Clone(h.Values)
	for _, secret := range h.Secrets {
		values = append(values, string(secret))
	}
	for _, file := range h.Files {
		if value, err := (SecretSource{File: file}).Read(); err == nil {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

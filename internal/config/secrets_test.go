package config_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// canary is a secret, which must never be printed.
const canary = "hunter2canary"

// malformed returns malformed secrets, which settings reject or misinterpret.
func malformed(t *testing.T) map[string]string {
	pem := filepath.Join(t.TempDir(), "pem")
	text := "-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n"
	if err := os.WriteFile(pem, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CANARY", canary)
	quoted := func(text string) string { return fmt.Sprintf("%q", text) }
	return map[string]string{
		"text":       canary,
		"number":     "12" + canary,
		"line break": quoted(canary + "\n" + canary),
		"zero":       quoted(canary + "\x00"),
		"header":     quoted("Authorization: Bearer " + canary),
		"mapping":    "{" + canary + ": " + canary + "}",
		"mapping of a header": `{"X-Secret: ` + canary + `": "", "Authorization ` + canary +
			`": x, "` + canary + `:": {a: b}}`,
		"mapping, not scalars": `{"X-A": [` + canary + `], "X-B": {values: [` + canary + `, {` + canary +
			`: 1}], secrets: ` + canary + `}}`,
		"nested":                  "{a: {b: [" + canary + "]}}",
		"list":                    "[" + canary + "]",
		"list of lists":           "[[" + canary + "], {" + canary + ": x}]",
		"duplicates":              `{"` + canary + `": 1, "` + canary + `": 2}`,
		"anchor":                  "*" + canary,
		"anchored":                "&" + canary + " [*" + canary + "]",
		"tag":                     "!" + canary + " x",
		"tagged number":           "!!int " + canary,
		"binary":                  "!!binary " + canary + "!",
		"directive":               "%" + canary,
		"at":                      "@" + canary,
		"backtick":                "`" + canary,
		"open quote":              `"` + canary,
		"escape":                  `"\q` + canary + `"`,
		"colon":                   "a: " + canary + ": b",
		"URL":                     "ftp://user:" + canary + "@host",
		"URL without a host":      "https://user:" + canary + "@",
		"URL with @":              quoted("https://user:p@" + canary + "/x@host"),
		"URL with #":              quoted("https://user:p#" + canary + "@host"),
		"URL with @ and #":        quoted("https://user:p@" + canary + "/w#" + canary + "@host/hook"),
		"URL with /":              quoted("https://user:12/" + canary + "@host/hook"),
		"URL with ?":              quoted("https://user:12?" + canary + "@host/hook"),
		"URL with %":              quoted("https://user:%zz" + canary + "@host/hook"),
		"URL with :":              quoted("https://user:a:" + canary + "/@host/hook"),
		"URL with a space":        quoted("https://user:a b" + canary + "@host/hook"),
		"URL with a bracket":      quoted("https://user:[" + canary + "@host/hook"),
		"URL with a control":      quoted("https://user:" + canary + "\x7f@host/hook"),
		"database":                quoted("postgres://u:p@" + canary + "/w#rd@h/db"),
		"database with /":         quoted("postgres://u:12/" + canary + "@h/db"),
		"database with %":         quoted("postgres://u:%" + canary + "@h/db"),
		"database with a port":    quoted("postgres://u:p@h:" + canary + "/db"),
		"database, key and value": quoted("host=h password=" + canary),
		"proxy":                   quoted("socks4://user:" + canary + "@host"),
		"signing secret":          "whsec_" + canary,
		"signing key":             "whsk_" + canary,
		"PEM":                     quoted(text),
		"file":                    "{file: " + quoted(text) + "}",
		"file of PEM":             "{file: " + quoted(pem) + "}",
		"two keys":                "{file: x, env: " + canary + "}",
		"unknown key":             "{" + canary + ": x}",
		"variable":                "{env: CANARY}",
		"value for a variable":    "{env: " + quoted("p@"+canary) + "}",
		"size":                    canary + "MiB",
		"duration":                canary + "s",
		"network":                 "10.0.0.0/" + canary,
	}
}

// leaf is a setting and the YAML around it, with %s in place of its value.
type leaf struct{ key, around string }

// leaves returns all settings, including those in lists and mappings.
func leaves(tp reflect.Type, key, around string) []leaf {
	here := []leaf{{key, around}}
	within := func(t reflect.Type, name, text string) []leaf {
		return leaves(t, key+name, strings.Replace(around, "%s", text, 1))
	}
	switch {
	case tp.Kind() == reflect.Pointer:
		return leaves(tp.Elem(), key, around)
	case tp == reflect.TypeFor[config.HTTP]():
		return leaves(reflect.TypeFor[promconfig.HTTPClientConfig](), key, around)
	case tp == reflect.TypeFor[promconfig.URL](), hasUnmarshaler(tp):
		return here
	case tp == reflect.TypeFor[promconfig.Headers]():
		return append(here, within(reflect.TypeFor[promconfig.Header](), ".X-A", "{X-A: %s}")...)
	case tp.Kind() == reflect.Slice:
		return append(here, within(tp.Elem(), "[]", "[%s]")...)
	case tp.Kind() == reflect.Map:
		return append(here, within(tp.Elem(), ".X-A", "{X-A: %s}")...)
	case tp.Kind() != reflect.Struct:
		return here
	}
	all := here
	for f := range tp.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			all = append(all, leaves(f.Type, key, around)...)
		case name != "" && name != "-":
			text := "{" + name + ": %s}"
			if tp == reflect.TypeFor[config.Endpoint]() && name != "url" {
				text = "{url: 'https://example.com', " + name + ": %s}"
			}
			all = append(all, within(f.Type, "."+name, text)...)
		}
	}
	return all
}

func hasUnmarshaler(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) ||
		p.Implements(reflect.TypeFor[yaml.Unmarshaler]())
}

// public reports whether errors may print a setting's value: an event, file, endpoint or
// header.
func public(key, form string) bool {
	name := key[strings.LastIndexAny(key, ".")+1:]
	switch name {
	case "events", "events[]", "files", "files[]":
		return true
	case "name", "url":
		return form == "text"
	case "http_headers", "proxy_connect_header", "types", "tables", "parts":
		return form == "mapping" || form == "unknown key" || form == "duplicates"
	}
	return strings.HasSuffix(name, "_file")
}

// No problem quotes a setting's value, or anything that could be one, whatever its form
// or position.
func TestProblemsContainNoSecrets(t *testing.T) {
	forms := malformed(t)
	settings := leaves(reflect.TypeFor[config.Config](), "", "%s")
	if len(settings) < 150 {
		t.Fatalf("found only %d settings", len(settings))
	}
	problems, before := 0, config.Default()
	file := filepath.Join(t.TempDir(), "tidings.yaml")
	for i, setting := range settings {
		if strings.HasPrefix(setting.key, ".limits.") {
			continue // numbers, all alike
		}
		if !testtool.All() && i%4 > 0 {
			continue // slow
		}
		for form, value := range forms {
			if public(setting.key, form) {
				continue
			}
			text := strings.Replace(setting.around, "%s", value, 1)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(config.Input{Files: []string{file}, Relay: strings.HasPrefix(setting.key, ".sources")})
			if err == nil {
				if changes := fmt.Sprint(cfg.Changes(&before)); strings.Contains(changes, canary) && isSecret(setting.key) {
					t.Errorf("%s, %s: the changes tell it: %s", setting.key, form, changes)
				}
				printed, _ := json.Marshal(cfg)
				if all := fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, printed); strings.Contains(all, canary) &&
					isSecret(setting.key) {
					t.Errorf("%s, %s: the settings print the secret: %s", setting.key, form, text)
				}
				for _, e := range cfg.Webhook.Endpoints {
					if strings.Contains(e.Name, canary) &&
						(!strings.HasSuffix(setting.key, ".name") || strings.Contains(e.Name, "://")) {
						t.Errorf("%s, %s: an endpoint's name contains the secret: %s", setting.key, form, e.Name)
					}
				}
				continue
			}
			problems++
			if changes := fmt.Sprint(cfg.Changes(&before)); strings.Contains(changes, canary) ||
				strings.Contains(changes, "hunter2") {
				t.Errorf("%s, %s: the changes tell it: %s\n%s", setting.key, form, text, changes)
			}
			if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %s:\n%s\n%v", setting.key, form, text, err)
			}
		}
	}
	t.Logf("%d settings in %d forms: %d rejected", len(settings), len(forms), problems)
}

// isSecret reports whether a setting is a secret.
func isSecret(key string) bool {
	for _, name := range []string{
		"secret", "secrets[]", "token", "encryption_key", "access_key", "secret_key",
		"client_secret", ".headers.X-A", "database_url",
	} {
		if strings.HasSuffix(key, name) && !strings.Contains(key, ".http.") {
			return true
		}
	}
	return false
}

// The same, in environment variables and flags.
func TestProblemsOfVariablesAndFlagsContainNoSecrets(t *testing.T) {
	forms := malformed(t)
	for _, key := range config.Keys() {
		for form, value := range forms {
			if public(key, form) {
				continue
			}
			if text := ""; json.Unmarshal([]byte(value), &text) == nil {
				value = text
			}
			name := "TIDINGS_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
			for source, in := range map[string]config.Input{
				"variable": {Environ: []string{name + "=" + value}},
				"flag":     {Flags: map[string]string{key: value}},
			} {
				if _, err := config.Load(in); err != nil && strings.Contains(err.Error(), canary) {
					t.Errorf("%s %s, %s: %v", source, key, form, err)
				}
			}
		}
	}
}

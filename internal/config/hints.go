package config

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/vocabulary"
)

// otherNames lists other programs' names for our settings.
var otherNames = map[string][]string{
	"listen":        {"address", "addr", "bind", "host", "port"},
	"database_url":  {"database_uri", "dsn", "postgres", "postgres_url"},
	"webhook":       {"webhooks", "endpoint"},
	"events":        {"event", "filter", "patterns"},
	"max_in_flight": {"concurrency", "parallelism"},
	"secret":        {"signing_secret", "signature"},
}

// hint says where an unknown key of a mapping belongs or which setting was meant. It is
// empty if the key resembles no setting.
func (d *decoder) hint(key, name string, t reflect.Type) string {
	fields := fieldsOf(t)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		inner := t.FieldByIndex(fields[field]).Type
		if inner == reflect.TypeFor[HTTP]() {
			inner = reflect.TypeFor[promconfig.HTTPClientConfig]()
		}
		if inner.Kind() == reflect.Struct && fieldsOf(inner)[name] != nil {
			return fmt.Sprintf("%s belongs under %s", name, field)
		}
	}
	for setting, names := range otherNames {
		if fields[setting] != nil && slices.Contains(names, name) {
			return fmt.Sprintf("unknown key %q; the setting is called %s", name, setting)
		}
	}
	full, elsewhere := join(key, name), ""
	for _, setting := range allSettings {
		if setting == strings.ReplaceAll(full, ".", "_") || strings.ReplaceAll(setting, ".", "_") == full {
			return fmt.Sprintf("unknown key %q; the setting is %s", name, setting)
		}
		if parent, ok := strings.CutSuffix(setting, "."+name); ok && key == "" {
			if elsewhere != "" {
				return "" // ambiguous
			}
			elsewhere = fmt.Sprintf("%s belongs under %s", name, parent)
		}
	}
	return elsewhere
}

// unknownKey reports an unknown key. It quotes the key only if it belongs elsewhere or
// resembles a known key; otherwise it may be a misplaced secret.
func (d *decoder) unknownKey(at *yaml.Node, key, name string, t reflect.Type) {
	if hint := d.hint(key, name, t); hint != "" {
		d.problem(at, key, "%s", hint)
		return
	}
	known := slices.Sorted(maps.Keys(fieldsOf(t)))
	// A name with more than a third of its bytes wrong is closer to this than to any key.
	wrong := (len(name) + 2) / 3
	tooFar := strings.Repeat("\x00", wrong) + name[wrong:]
	nearest := vocabulary.Nearest(name, append(slices.Clone(known), tooFar))
	if nearest == tooFar || len(name) > 64 {
		d.problem(at, key, "unknown key; valid keys are %s", strings.Join(known, ", "))
		return
	}
	d.problem(at, key, "unknown key %q; did you mean %q?", name, nearest)
}

var (
	unquotedStar = regexp.MustCompile(`(?:^|[\[{,:]|- )\s*(\*[^\s,\]}]*)`)
	tabIndent    = regexp.MustCompile(`^ *\t`)
)

// syntaxHint looks for common mistakes. It returns the position, starting at 1, and what
// to do.
func syntaxHint(text []byte, message string, line int) (at, column int, hint string) {
	lines := bytes.Split(text, []byte("\n"))
	if strings.Contains(message, "alphabetic or numeric character") && line > 0 && line <= len(lines) {
		if found := unquotedStar.FindSubmatchIndex(lines[line-1]); found != nil {
			return line, found[2] + 1, `quote "*", as in ["*"]: in YAML, an unquoted * starts an alias`
		}
	}
	for i, l := range lines {
		if tab := tabIndent.FindIndex(l); tab != nil {
			return i + 1, tab[1], "indent with spaces, not tabs"
		}
	}
	if strings.HasPrefix(message, "did not find expected") {
		return brokenLine(lines, message), 1, ""
	}
	return line, 1, ""
}

// brokenLine returns the first line with which parsing fails; the YAML parser reports
// the first line of the block.
func brokenLine(lines [][]byte, message string) int {
	low, high := 1, len(lines)
	for low < high {
		middle := (low + high) / 2
		var node yaml.Node
		err := yaml.Unmarshal(bytes.Join(lines[:middle], []byte("\n")), &node)
		if err != nil && strings.Contains(err.Error(), message) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

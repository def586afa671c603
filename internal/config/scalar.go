package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/regular"
)

// Duration uses Prometheus' syntax: "30s", "5m", "7d".
type Duration time.Duration

// maxDuration is far below what time.Duration and databases can hold, so that a moment before
// now, or after, or a duration with some jitter, is always valid.
const maxDuration = 100 * 365 * day

// UnmarshalText parses a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := model.ParseDuration(string(text))
	if err != nil {
		return errors.New(`expected a duration such as "30s", "5m" or "7d"`)
	}
	if time.Duration(parsed) > maxDuration {
		return errors.New("must be at most 100y")
	}
	*d = Duration(parsed)
	return nil
}

// Size is a number of bytes, such as "512KiB", "100MiB", "1GiB" or "4096".
type Size int64

// maxSize is an exbibyte, which leaves room for sums.
const maxSize = 1 << 60

// UnmarshalText parses a size.
func (s *Size) UnmarshalText(text []byte) error {
	number, factor := string(text), int64(1)
	for unit, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, factor = strings.TrimSpace(n), bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 {
		return errors.New(`expected a size such as "512KiB", "100MiB" or "1GiB"`)
	}
	if n > maxSize/factor {
		return errors.New("must be at most 1048576TiB")
	}
	*s = Size(n * factor)
	return nil
}

// Network is a range of addresses, such as "10.0.0.0/8".
type Network struct{ netip.Prefix }

// UnmarshalText parses a network.
func (n *Network) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil {
		return errors.New(`expected a network, such as "10.0.0.0/8", "192.0.2.1/32" or "fd00::/8"`)
	}
	n.Prefix = prefix.Masked()
	return nil
}

// Secret is a string that prints as "<secret>".
type Secret string

// String hides the secret.
func (Secret) String() string { return "<secret>" }

// GoString hides the secret.
func (Secret) GoString() string { return "<secret>" }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("<secret>"), nil }

// SecretSource is a secret: a string, {file: PATH} or {env: NAME}.
type SecretSource struct {
	Value Secret
	File  string
	Env   string
}

// Set reports whether the secret is configured.
func (s SecretSource) Set() bool { return s.Value != "" || s.File != "" || s.Env != "" }

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// UnmarshalYAML decodes a string, or a mapping with the key file or env.
func (s *SecretSource) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		if unexpanded.MatchString(node.Value) {
			return errors.New("variables are not expanded; use {env: NAME}")
		}
		s.Value = Secret(node.Value)
		return nil
	}
	const expected = "expected a string, or {file: PATH}, or {env: NAME}"
	if node.Kind != yaml.MappingNode || len(node.Content) != 2 || node.Content[1].Kind != yaml.ScalarNode {
		return errors.New(expected)
	}
	value := node.Content[1].Value
	if value == "" {
		return errors.New(expected)
	}
	switch node.Content[0].Value {
	case "file":
		if strings.ContainsFunc(value, unicode.IsControl) {
			return errors.New("file expects a file's path, not its contents")
		}
		s.File = value
	case "env":
		if !variableName.MatchString(value) {
			return errors.New("env expects an environment variable's name, not its value")
		}
		s.Env = value
	default:
		return errors.New(expected)
	}
	return nil
}

// unexpanded matches variable references that shells and other programs would expand.
var unexpanded = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// variableOf returns the environment variable of a setting; for a list item, that of the
// list.
func variableOf(key string) string {
	key, _, _ = strings.Cut(key, "[")
	return "TIDINGS_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Read returns the secret. It strips trailing line breaks from files and variables.
func (s SecretSource) Read() (string, error) {
	switch {
	case s.File != "":
		data, err := regular.Read(s.File)
		if err != nil {
			return "", fmt.Errorf("secret file: %w", err)
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	case s.Env != "":
		value, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set", s.Env)
		}
		return strings.TrimRight(value, "\r\n"), nil
	}
	return string(s.Value), nil
}

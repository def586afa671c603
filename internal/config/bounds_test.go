package config_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/config"
)

// numbers calls do with the key and the type of each setting that is a number.
func numbers(t reflect.Type, key string, do func(key string, t reflect.Type)) {
	switch {
	case t == reflect.TypeFor[config.Duration](), t.Kind() == reflect.Int64, t.Kind() == reflect.Int,
		t.Kind() == reflect.Float64:
		do(key, t)
	case t.Kind() == reflect.Slice:
		numbers(t.Elem(), key+"[0]", do)
	case t.Kind() == reflect.Struct:
		for f := range t.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
				numbers(f.Type, strings.TrimPrefix(key+"."+name, "."), do)
			}
		}
	}
}

// setting returns a file with one setting.
func setting(key, value string) string {
	for _, part := range slices.Backward(strings.Split(key, ".")) {
		name, isList := strings.CutSuffix(part, "[0]")
		if fields, ok := strings.CutPrefix(value, "{"); ok && isList {
			value = `{url: "http://127.0.0.1/", ` + fields
		}
		if isList {
			value = "[" + value + "]"
		}
		value = "{" + name + ": " + value + "}"
	}
	return value
}

// No number means nothing, or something else than it says.
func TestNumbersHaveBounds(t *testing.T) {
	zeroes := map[string]bool{"shutdown_delay": true, "contexts.expire_after": true, "tracing.sample_ratio": true}
	tested := 0
	numbers(reflect.TypeFor[config.Config](), "", func(key string, kind reflect.Type) {
		bad := []string{"0"}
		if zeroes[key] {
			bad = nil
		}
		switch {
		case kind == reflect.TypeFor[config.Duration]():
			bad = append(bad, "-1s", "101y", "1000y")
		case kind == reflect.TypeFor[config.Size]():
			bad = append(bad, "-1", "1048577TiB", "9223372036854775807", "99999999999999999999")
		case kind.Kind() == reflect.Int:
			bad = append(bad, "-1", "6.5", ".nan", ".inf", "2147483648", "9223372036854775807", "99999999999999999999")
		default:
			bad = append(bad, "-1", ".nan", ".inf", "-.inf", "1e300")
			if !zeroes[key] {
				bad = append(bad, "1e-300")
			}
		}
		for _, value := range bad {
			tested++
			_, err := config.Load(config.Input{
				Files: []string{write(t, setting(key, value))}, Relay: strings.HasPrefix(key, "sources."),
			})
			if err == nil || !strings.Contains(err.Error(), ": "+key+": ") {
				t.Errorf("%s: %s is accepted: %v", key, value, err)
			}
		}
	})
	if tested < 200 {
		t.Errorf("%d numbers were tested", tested)
	}
	for _, good := range []string{ // the last is how Helm writes a million
		setting("webhook.endpoints[0].rate_limit.per_second", "0.001"), setting("contexts.expire_after", "100y"),
		setting("tracing.sample_ratio", "0"), setting("webhook.endpoints[0].retry.max_attempts", "1"),
		setting("limits.files", "1e+06"),
	} {
		if _, err := config.Load(config.Input{Files: []string{write(t, good)}}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

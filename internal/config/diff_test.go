package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

// What differs is told key by key, whether the new settings are refused or not, and never
// with a secret.
func TestChanges(t *testing.T) {
	const before = `
webhook:
  retention: 7d
  endpoints:
    - {name: billing, url: "https://user:pw@example.com/a?token=x", secret: whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0, retry: {max_attempts: 7}}
    - {name: old, url: https://example.com/old}
    - {name: same, url: https://example.com/same, headers: {X-Key: one}}
`
	load := func(text string) (config.Config, error) {
		return config.Load(config.Input{Files: []string{write(t, text)}})
	}
	old, err := load(before)
	if err != nil {
		t.Fatal(err)
	}
	same := "    - {name: same, url: https://example.com/same, headers: {X-Key: one}}\n"
	for name, test := range map[string]struct{ after, want string }{
		"nothing": {before, ""},
		"settings": {
			strings.NewReplacer("7d", "3d", "max_attempts: 7", "max_age: 1h", "token=x", "token=y", "pw", "other").
				Replace(before),
			`changed webhook.retention: 1w, 3d
changed billing retry.max_age: 0s, 1h
changed billing retry.max_attempts: 7, 
changed billing url: https://example.com/a, https://example.com/a (another)`,
		},
		"endpoints": {
			"webhook:\n  endpoints:\n" + same + "    - {name: new, url: https://example.com/new, events: [provider.*]}\n",
			`added new
added new events: , [provider.*]
added new url: , https://example.com/new
removed billing
removed old`,
		},
		"secrets": {
			strings.NewReplacer("whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "whsec_b3RoZXIxb3RoZXIxb3RoZXIxb3RoZXIx",
				"X-Key: one", "X-Key: two, X-More: {env: HOME}").Replace(before),
			`changed billing secret: set, set (another)
changed same headers: {X-Key: set}, {X-Key: set, X-More: variable HOME}`,
		},
		"refused": {
			strings.NewReplacer("max_attempts: 7", "shedule: [5s]", "7d", "whsec_canary").Replace(before) +
				"    - {name: new, url: https://example.com/new, timeout: whsec_canary, http: {basic_auth: {password: whsec_canary}}}\n",
			`changed webhook.retention: 1w, ! expected a duration such as "30s", "5m" or "7d"
changed billing retry.max_attempts: 7, 
changed billing retry: , ! unknown key "shedule"; did you mean "schedule"?
added new
added new timeout: 15s, ! expected a duration such as "30s", "5m" or "7d"
added new url: , https://example.com/new
added new http: , set`,
		},
		"a key":      {"webhok: {}", "removed billing\nremoved old\nremoved same"},
		"not a list": {"webhook: {endpoints: whsec_canary}", ""},
		"not YAML":   {"webhook: [", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := load(test.after)
			var lines []string
			for _, c := range cfg.Changes(&old) {
				line := strings.Join(strings.Fields(c.Kind+" "+c.Endpoint+" "+c.Key), " ")
				if c.Key != "" {
					line += fmt.Sprintf(": %s, %s", c.Before, c.After)
				}
				if c.Problem != "" {
					line += "! " + c.Problem
				}
				lines = append(lines, line)
			}
			if diff := cmp.Diff(test.want, strings.Join(lines, "\n")); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

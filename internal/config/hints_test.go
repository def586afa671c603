package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

// Typos, and settings as other programs name or write them.
func TestHints(t *testing.T) {
	t.Parallel()
	const endpoint = "webhook:\n  endpoints:\n    - url: https://h/x\n      secret: " +
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n      "
	for _, test := range []struct{ text, want string }{
		{
			endpoint + "events: [*]",
			`FILE:5:16: not valid YAML: quote "*", as in ["*"]: in YAML, an unquoted * starts an alias`,
		},
		{
			endpoint + "events: [provider.*, *.deleted]",
			`FILE:5:28: not valid YAML: quote "*", as in ["*"]: in YAML, an unquoted * starts an alias`,
		},
		{
			endpoint + "events: provider.*",
			`FILE:5:15: webhook.endpoints[0].events: expected a list; write one value in brackets, as in ["*"]`,
		},
		{
			endpoint + "events: []",
			"FILE:5:15: webhook.endpoints[0].events: is empty, so the endpoint would get no events; omit it for " +
				"all events",
		},
		{
			endpoint + "timeout: 15",
			`FILE:5:16: webhook.endpoints[0].timeout: expected a duration such as "30s", "5m" or "7d"`,
		},
		{
			endpoint + "max_in_flight: 010",
			"FILE:5:22: webhook.endpoints[0].max_in_flight: expected a whole number without leading zeros",
		},
		{
			endpoint + "max_attempts: 3\n      bearer_token: x\n      tls_config: {}\n      burst: 2\n      " +
				"concurrency: 2",
			"FILE:5:7: webhook.endpoints[0]: max_attempts belongs under retry\n" +
				"FILE:6:7: webhook.endpoints[0]: bearer_token belongs under http\n" +
				"FILE:7:7: webhook.endpoints[0]: tls_config belongs under http\n" +
				"FILE:8:7: webhook.endpoints[0]: burst belongs under rate_limit\n" +
				`FILE:9:7: webhook.endpoints[0]: unknown key "concurrency"; the setting is called max_in_flight`,
		},
		{
			endpoint + "headers: {X-A: ''}",
			"FILE:5:22: webhook.endpoints[0].headers.X-A: is empty; set a value or remove the header",
		},
		{
			endpoint + "headers: {X-A: 'Bearer ${TOKEN}'}",
			"FILE:5:22: webhook.endpoints[0].headers.X-A: variables are not expanded; use {env: NAME}",
		},
		{endpoint + "  events: ['*']", "FILE:5:1: not valid YAML: mapping values are not allowed in this context"},
		{
			"webhook:\n  endpoints:\n    - url: https://h/x\n     events: ['*']\n",
			"FILE:4:1: not valid YAML: did not find expected '-' indicator",
		},
		{
			"webhook:\n  endpoints:\n    - url:http://h/x",
			`FILE:3:7: webhook.endpoints[0]: expected a mapping; add a space after "url:"`,
		},
		{"webhook:\n\tendpoints: []", "FILE:2:1: not valid YAML: indent with spaces, not tabs"},
		{"listen: :80\n---\nlisten: :81", "FILE:2:1: a second YAML document begins here; a file holds one"},
		{
			"listen: ${LISTEN}",
			"FILE:1:9: listen: variables are not expanded here; set TIDINGS_LISTEN instead, or write the value",
		},
		{"listen: 127.0.0.1:99999", "FILE:1:9: listen: the port must be at most 65535"},
		{"endpoints: []", "FILE:1:1: endpoints belongs under webhook"},
		{
			"log_level: debug\nport: 80\ndatabase: {url: x}\nretention: 1d",
			`FILE:1:1: unknown key "log_level"; the setting is log.level` + "\n" +
				`FILE:2:1: unknown key "port"; the setting is called listen` + "\n" +
				`FILE:3:12: database: unknown key "url"; the setting is database_url` + "\n" +
				"FILE:4:1: retention belongs under webhook",
		},
		{"webhok: {}", `FILE:1:1: unknown key "webhok"; did you mean "webhook"?`},
		{
			"webhook: {endpoints: [{url: ' https://h', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}]}",
			"FILE:1:29: webhook.endpoints[0].url: begins or ends with white space",
		},
		{
			"webhook: {endpoints: [{url: 'https://h:70000'}]}",
			"FILE:1:29: webhook.endpoints[0].url: the port must be at most 65535",
		},
		{
			"webhook: {endpoints: [{url: 'http://169.254.169.254/'}]}",
			"FILE:1:29: webhook.endpoints[0].url: 169.254.169.254 is a link-local or metadata address, which is " +
				"always refused",
		},
		{
			"webhook: {endpoints: [{url: 'https://h', http: {proxy_url: 'proxy:3128'}}]}",
			"FILE:1:60: webhook.endpoints[0].http.proxy_url: the URL must begin with http:// or https:// or " +
				"socks5:// or socks5h://",
		},
		{
			"listen: nonsense\nwebhook: {endpoints: [{url: 'https://h', timeout: 0s, colour: x}]}",
			`FILE:1:9: listen: expected HOST:PORT, such as "127.0.0.1:8333" or ":8333"` + "\n" +
				"FILE:2:51: webhook.endpoints[0].timeout: must be more than 0 and at most 1h\n" +
				"FILE:2:55: webhook.endpoints[0]: unknown key; valid keys are coalesce, cursor_from, enabled, " +
				"event_prefix, events, format, headers, history, http, info_headers, max_connection_age, " +
				"max_in_flight, name, partitions, rate_limit, retry, secret, secrets, start, timeout, url",
		},
	} {
		_, err := loadText(t, test.text, false)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s\n(-want +got):\n%s", test.text, diff)
		}
	}
}

func TestMergeKeys(t *testing.T) {
	t.Parallel()
	cfg, err := loadText(t, `
x-common: &common
  timeout: 5s
  max_in_flight: 3
x-slow: &slow {<<: *common, timeout: 50s, rate_limit: &rate {per_second: 2}}
webhook:
  endpoints:
    - {url: https://a/x, <<: *common}
    - {url: https://b/x, <<: [*slow, *common], max_in_flight: 4}
    - url: https://c/x
      rate_limit: {<<: *rate, burst: 7}
`, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, e := range cfg.Webhook.Endpoints {
		got = append(got, e.Timeout, e.MaxInFlight, e.RateLimit.PerSecond, e.RateLimit.Burst)
	}
	want := []any{
		config.Duration(5 * time.Second), 3, 0., 0, config.Duration(50 * time.Second), 4, 2., 0,
		config.Duration(15 * time.Second), 16, 2., 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"x-a: &a [*a]\nlog: *a": "expected a mapping",
		"webhook: {<<: 3}":      "<< expects a mapping",
	} {
		if _, err := loadText(t, text, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	const forged = "FILE:1:24: webhook.endpoints[0]: the receiver can't tell webhooks from forgeries; set secret or " +
		"a header such as Authorization"
	const plain = "FILE:1:30: webhook.endpoints[0].url: plain HTTP to a public host lets others on the network read " +
		"and change webhooks; use https"
	const beyond = "FILE:1:66: webhook.endpoints[0].max_in_flight: all endpoints together have at most 512 requests " +
		"under way (webhook.max_connections); raise that, or lower this"
	for endpoint, want := range map[string]string{
		"url: 'https://example.com/x'":                                       forged,
		"url: 'http://example.com/x', headers: {Authorization: Bearer x}":    strings.Replace(plain, ":30", ":29", 1),
		"url: 'http://crm.shop.svc/x', headers: {X-Key: x}":                  "",
		"url: 'http://localhost/x', http: {basic_auth: {username: a}}":       "",
		"url: 'http://10.0.0.1/x', enabled: false":                           "",
		"url: 'http://localhost/x', max_in_flight: 513":                      beyond,
		"url: 'http://8.8.8.8/x', enabled: false":                            "",
		"url: 'https://u:p@h/x'":                                             "",
		"url: 'https://h/x', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "",
	} {
		cfg, err := loadText(t, "webhook: {endpoints: [{"+endpoint+"}]}", false)
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		got := cfg.Warnings().Error()
		if i := strings.Index(got, "tidings.yaml"); i >= 0 {
			got = "FILE" + got[i+len("tidings.yaml"):]
		}
		if strings.ReplaceAll(got, ":23:", ":24:") != want {
			t.Errorf("%s: %q, want %q", endpoint, got, want)
		}
	}
}

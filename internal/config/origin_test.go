package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

// Each setting of an endpoint says where it was written, and no secret is shown.
func TestOriginsOfSettings(t *testing.T) {
	folder := t.TempDir()
	files := map[string]string{
		"token":     "secret-token",
		"more.yaml": "- url: https://b.example/\n  name: more\n  format: cloudevents\n",
		"tidings.yaml": `x-retry: &retry
  schedule: [5s, 1m]
webhook:
  endpoint_files: [` + folder + `/more.yaml]
  endpoints:
    - url: https://a.example/hook?key=secret-key
      name: a
      timeout:
      headers:
        X-Key: secret-value
        X-Token: {file: ` + folder + `/token}
      secrets:
        - {env: TIDINGS_TEST_SIGNING}
        - whsec_c2VjcmV0LXNpZ25pbmcta2V5LW51bWJlcg==
      events:
        - provider.*
      retry: *retry
      http:
        proxy_url: http://user:secret-proxy@proxy.example:3128
        enable_http2: true
        oauth2: {client_id: id, client_secret: secret-oauth, token_url: 'https://login.example/?q=secret-query'}
        tls_config: {server_name: a.internal}
`,
		"helm.yaml": `# Helm values of release web
{"webhook": {"endpoints": [{"url": "https://c.example", "name": "c"}]}}`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TIDINGS_TEST_SIGNING", "whsec_c2VjcmV0LXNpZ25pbmcta2V5LW51bWJlcg==")
	for name, tt := range map[string]struct {
		in   config.Input
		want map[string]string
	}{
		"files": {config.Input{Files: []string{folder + "/tidings.yaml"}}, map[string]string{
			"a": `FOLDER/tidings.yaml:6
events = [provider.*], FOLDER/tidings.yaml:16
headers.X-Key = set (secret), FOLDER/tidings.yaml:10
headers.X-Token = set (secret), FOLDER/tidings.yaml:11, from file FOLDER/token
http.enable_http2 = true, FOLDER/tidings.yaml:20
http.oauth2.client_id = set (secret), FOLDER/tidings.yaml:21
http.oauth2.client_secret = set (secret), FOLDER/tidings.yaml:21
http.oauth2.token_url = https://login.example/, FOLDER/tidings.yaml:21
http.proxy_url = http://proxy.example:3128, FOLDER/tidings.yaml:19
http.tls_config.server_name = a.internal, FOLDER/tidings.yaml:22
name = a, FOLDER/tidings.yaml:7
retry.schedule = [5s, 1m], FOLDER/tidings.yaml:2
secrets = set (secret), FOLDER/tidings.yaml:13, from variable TIDINGS_TEST_SIGNING
url = https://a.example/hook, FOLDER/tidings.yaml:6`,
			"more": `FOLDER/more.yaml:1
format = cloudevents, FOLDER/more.yaml:3
name = more, FOLDER/more.yaml:2
url = https://b.example/, FOLDER/more.yaml:1`,
		}},
		"variable": {config.Input{
			Environ: []string{"TIDINGS_WEBHOOK_ENDPOINTS=[{url: 'https://a.example', name: a}]"},
		}, map[string]string{"a": `environment variable TIDINGS_WEBHOOK_ENDPOINTS
name = a, environment variable TIDINGS_WEBHOOK_ENDPOINTS
url = https://a.example, environment variable TIDINGS_WEBHOOK_ENDPOINTS`}},
		"helm": {config.Input{Files: []string{folder + "/helm.yaml"}}, map[string]string{"c": `Helm value webhook.endpoints[0]
name = c, Helm value webhook.endpoints[0].name
url = https://c.example, Helm value webhook.endpoints[0].url`}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Load(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			for endpoint, want := range tt.want {
				w := cfg.Written(endpoint)
				lines := []string{w.Place}
				for _, s := range w.Settings {
					secret := map[bool]string{true: " (secret)"}[s.Secret]
					lines = append(lines, fmt.Sprintf("%s = %s%s, %s", s.Key, s.Value, secret, s.Origin))
				}
				got := strings.ReplaceAll(strings.Join(lines, "\n"), folder, "FOLDER")
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", endpoint, diff)
				}
			}
			if cfg.Written("other") != nil {
				t.Error("an unknown endpoint has settings")
			}
		})
	}
}

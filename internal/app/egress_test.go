package app_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/auth"
)

// User-supplied URLs have their own egress rule: webhooks may go to loopback, but
// agents, MCP servers and model providers may not. The user learns only that; the log
// has the details.
func TestUserURLs(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["egress"] = object{}
		w := newWorld(t, settings)
		_, port, _ := strings.Cut(strings.TrimPrefix(w.agent.url, "http://"), ":")
		for _, base := range []string{
			w.agent.url, "http://localhost:" + port, "http://0.0.0.0:" + port,
			"http://[::ffff:127.0.0.1]:" + port,
		} {
			connector := w.call("ann", "POST", "/connectors", object{"url": base + "/mcp"}).id()
			for path, a := range map[string]answer{
				"agent":   w.try("developer", "POST", "/providers", object{"location": base}),
				"preview": w.try("developer", "POST", "/providers/preview", object{"location": base}),
				"model provider": w.try("admin", "POST", "/model_providers",
					object{"type": "openai", "base_url": base + "/v1", "api_key": "k"}),
				"MCP server": w.try("ann", "POST", "/connectors/"+connector+"/connect", nil),
			} {
				if a.status != 400 && a.status != 502 || !strings.Contains(a.text, "egress.user_urls.allow_networks") ||
					strings.Contains(a.text, "127.0.0.1") {
					t.Errorf("%s at %s: %d %s", path, base, a.status, a.text)
				}
			}
		}
		for _, want := range []string{
			"127.0.0.1 is not a public address", `msg="the agent card could not be fetched"`,
			`msg="the MCP server can't be used"`, `msg="the models could not be listed"`,
		} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if n := w.agent.asked.Load(); n > 0 {
			t.Errorf("%d requests reached the agent", n)
		}
		w.mark() // webhooks arrive
	})
}

// Errors about user-supplied URLs reveal nothing of the server's answer.
func TestUserURLsRevealNothing(t *testing.T) {
	w := newWorld(t, map[string]any{})
	internal := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/redirect"):
			http.Redirect(rw, r, "http://"+r.Host+"/internal", http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/internal"):
			fmt.Fprint(rw, `{"name":"internal document","data":[{"id":"internal document"}]}`)
		default:
			rw.WriteHeader(http.StatusTeapot)
			fmt.Fprint(rw, "internal document")
		}
	}))
	t.Cleanup(internal.Close)
	for _, path := range []string{"/redirect", "/teapot"} {
		connector := w.call("ann", "POST", "/connectors", object{"url": internal.URL + path}).id()
		for kind, a := range map[string]answer{
			"agent": w.try("developer", "POST", "/providers", object{"location": internal.URL + path}),
			"model provider": w.try("admin", "POST", "/model_providers",
				object{"type": "anthropic", "base_url": internal.URL + path, "api_key": "model-key"}),
			"MCP server": w.try("ann", "POST", "/connectors/"+connector+"/connect", nil),
		} {
			if a.status != 400 && a.status != 502 || strings.Contains(a.text, "internal document") ||
				strings.Contains(strings.ToLower(a.text), "teapot") || strings.Contains(a.text, "418") {
				t.Errorf("%s at %s: %d %s", kind, path, a.status, a.text)
			}
		}
	}
	if !strings.Contains(w.log.String(), "418 I'm a teapot") {
		t.Error("the log does not contain the answer")
	}
	if strings.Contains(w.log.String(), "model-key") {
		t.Error("the log contains the key")
	}
}

// A reload changes the egress rule, but not whether authentication is required.
func TestReloadOfEgress(t *testing.T) {
	t.Parallel()
	agent := newAgent(t)
	p := newProcess(t, map[string]any{})
	text, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	var base map[string]any
	if err := json.Unmarshal(text, &base); err != nil {
		t.Fatal(err)
	}
	p.start()
	reload := func(more map[string]any) {
		t.Helper()
		all := maps.Clone(base)
		maps.Copy(all, more)
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if status, answer, err := p.call("POST", "/webhooks/reload", nil); err != nil || status >= 300 {
			t.Fatalf("reload: %d %v %v", status, answer, err)
		}
	}
	wants := func(want int) {
		t.Helper()
		status, answer, err := p.call("POST", "/providers/preview", map[string]any{"location": agent.url})
		if err != nil || status != want {
			t.Errorf("preview: %d %v %v, want %d", status, answer, err, want)
		}
	}
	wants(400)
	allowed := map[string]any{"user_urls": map[string]any{"allow_networks": []any{"127.0.0.0/8"}}}
	reload(map[string]any{"egress": allowed})
	wants(200)
	allowed["deny_networks"] = []any{"127.0.0.1/32"}
	reload(map[string]any{"egress": allowed})
	wants(400)

	for range 2 {
		reload(map[string]any{"auth": map[string]any{
			"disabled": true,
			"tokens": []any{map[string]any{
				"sha256": auth.Hash("token"),
				"user":   "crash@example.com", "role": "admin",
			}},
		}})
	}
	response, err := client.Get("http://" + p.address + "/api/v1/users/me")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token after a reload: %d, want 401", response.StatusCode)
	}
	wants(400)
}

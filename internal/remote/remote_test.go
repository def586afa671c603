package remote_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/remote"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/sender"
)

// loopback is the rule of a laptop.
func loopback() sender.Egress {
	return sender.Egress{PublicOnly: true, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

func newClient(t testing.TB, egress sender.Egress) *remote.Client {
	c := remote.New(egress, "Tidings/test")
	t.Cleanup(func() { c.Close() })
	return c
}

// reasonOf is what a user learns of an error.
func reasonOf(err error) resource.RemoteReason {
	if e, ok := errors.AsType[*resource.RemoteError](err); ok {
		return e.Reason
	}
	if err != nil {
		return resource.RemoteReason("not a RemoteError: " + err.Error())
	}
	return ""
}

// Each kind of model provider is asked in its own way.
func TestModels(t *testing.T) {
	const key = "hidden-key"
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.RawQuery != "" && r.URL.Path != "/ml/v1/foundation_model_specs":
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/v1/models" && r.Header.Get("Authorization") == "Bearer "+key:
			fmt.Fprint(w, `{"object":"list","data":[{"id":"gpt"},{"id":"models/gemini"}]}`)
		case r.URL.Path == "/v1/models" && r.Header.Get("X-Api-Key") == key && r.Header.Get("Anthropic-Version") != "":
			fmt.Fprint(w, `{"data":[{"id":"claude","type":"model"}]}`)
		case r.URL.Path == "/api/tags":
			fmt.Fprint(w, `{"models":[{"name":"llama:8b"}]}`)
		case r.URL.Path == "/ml/v1/foundation_model_specs" && r.URL.Query().Has("version"):
			fmt.Fprint(w, `{"resources":[{"model_id":"ibm/granite"}]}`)
		case r.URL.Path == "/list/models":
			fmt.Fprint(w, `[{"id":"bare"}]`)
		case r.URL.Path == "/many/models":
			fmt.Fprint(w, `[{}`+strings.Repeat(`,{}`, 10_000)+`]`)
		case r.URL.Path == "/html/models":
			fmt.Fprint(w, "<html>")
		case r.URL.Path == "/other/models":
			fmt.Fprint(w, `{"error":"none"}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer provider.Close()
	c := newClient(t, loopback())
	for _, test := range []struct {
		kind, path, key string
		want            []string
		reason          resource.RemoteReason
	}{
		{"openai", "/v1", key, []string{"gpt", "gemini"}, ""},
		{"openai", "/v1/", key, []string{"gpt", "gemini"}, ""},
		{"openai", "/v1?secret=of-another-path", key, []string{"gpt", "gemini"}, ""},
		{"openai", "/v1#", key, []string{"gpt", "gemini"}, ""},
		{"anthropic", "/v1", key, []string{"claude"}, ""},
		{"ollama", "/v1", key, []string{"llama:8b"}, ""},
		{"ollama", "", key, []string{"llama:8b"}, ""},
		{"watsonx", "", key, []string{"ibm/granite"}, ""},
		{"other", "/list", key, []string{"bare"}, ""},
		{"openai", "/v1", "wrong", nil, resource.RemoteUnauthorized},
		{"openai", "/many", key, nil, resource.RemoteUnusable},
		{"openai", "/html", key, nil, resource.RemoteUnusable},
		{"openai", "/other", key, nil, resource.RemoteUnusable},
	} {
		got, err := c.Models(t.Context(), resource.ModelSource{Type: test.kind, BaseURL: provider.URL + test.path, APIKey: test.key})
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.kind, test.path, diff)
		}
		if got := reasonOf(err); got != test.reason {
			t.Errorf("%s %s: reason %q, want %q", test.kind, test.path, got, test.reason)
		}
	}
}

func TestAgentCard(t *testing.T) {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good/.well-known/agent-card.json":
			fmt.Fprint(w, `{"name":"Echo"}`)
		case "/nameless/.well-known/agent-card.json":
			fmt.Fprint(w, `{"name":""}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer agent.Close()
	c := newClient(t, loopback())
	if card, err := c.Fetch(t.Context(), agent.URL+"/good/?x=1#y"); err != nil || string(card) != `{"name":"Echo"}` {
		t.Errorf("card = %s, %v", card, err)
	}
	for path, want := range map[string]resource.RemoteReason{"/nameless": resource.RemoteUnusable, "/none": resource.RemoteRefuses} {
		if _, err := c.Fetch(t.Context(), agent.URL+path); reasonOf(err) != want {
			t.Errorf("%s: reason %q, want %q", path, reasonOf(err), want)
		}
	}
}

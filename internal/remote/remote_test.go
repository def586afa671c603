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

func newClient(t *testing.T, egress sender.Egress) *remote.Client {
	c := remote.New(egress, "Tidings/test")
	t.Cleanup(func() { c.Close() })
	return c
}

// Each kind of model provider is asked in its own way.
func TestModels(t *testing.T) {
	const key = "hidden-key"
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
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
		case r.URL.Path == "/large/models":
			fmt.Fprint(w, `"`+strings.Repeat("x", 2<<20)+`"`)
		case r.URL.Path == "/html/models":
			fmt.Fprint(w, "<html>")
		case r.URL.Path == "/other/models":
			fmt.Fprint(w, `{"error":"none"}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer provider.Close()
	c := newClient(t, sender.Egress{})
	for _, test := range []struct {
		kind, path, key string
		want            []string
		err             string
	}{
		{"openai", "/v1", key, []string{"gpt", "gemini"}, ""},
		{"openai", "/v1/", key, []string{"gpt", "gemini"}, ""},
		{"anthropic", "/v1", key, []string{"claude"}, ""},
		{"ollama", "/v1", key, []string{"llama:8b"}, ""},
		{"watsonx", "", key, []string{"ibm/granite"}, ""},
		{"other", "/list", key, []string{"bare"}, ""},
		{"openai", "/v1", "wrong", nil, "401 Unauthorized"},
		{"openai", "/large", key, nil, "more than 1 MiB"},
		{"openai", "/html", key, nil, "not JSON"},
		{"openai", "/other", key, nil, "not a list of models"},
	} {
		got, err := c.Models(t.Context(), resource.ModelSource{Type: test.kind, BaseURL: provider.URL + test.path, APIKey: test.key})
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.kind, test.path, diff)
		}
		switch {
		case test.err == "" && err != nil:
			t.Errorf("%s %s: %v", test.kind, test.path, err)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "hidden")):
			t.Errorf("%s %s: error = %v, want one with %q and no key", test.kind, test.path, err, test.err)
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
	c := newClient(t, sender.Egress{})
	if card, err := c.Fetch(t.Context(), agent.URL+"/good/?x=1#y"); err != nil || string(card) != `{"name":"Echo"}` {
		t.Errorf("card = %s, %v", card, err)
	}
	for path, want := range map[string]string{"/nameless": "no name", "/none": "404 Not Found"} {
		if _, err := c.Fetch(t.Context(), agent.URL+path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want one with %q", path, err, want)
		}
	}
	denied := newClient(t, sender.Egress{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	_, err := denied.Fetch(t.Context(), agent.URL+"/good")
	if _, ok := errors.AsType[*sender.BlockedError](err); !ok {
		t.Errorf("a denied network: error = %v", err)
	}
}

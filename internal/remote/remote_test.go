package remote_test

import (
	"encoding/json"
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

// loopback is an egress rule that allows loopback addresses.
func loopback() sender.Egress {
	return sender.Egress{PublicOnly: true, Private: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("::1/128"),
	}}
}

func newClient(t testing.TB, egress sender.Egress) *remote.Client {
	c := remote.New(egress, "Tidings/test")
	t.Cleanup(func() { c.Close() })
	return c
}

// reasonOf returns the reason that a user is given for an error.
func reasonOf(err error) resource.RemoteReason {
	if e, ok := errors.AsType[*resource.RemoteError](err); ok {
		return e.Reason
	}
	if err != nil {
		return resource.RemoteReason("not a RemoteError: " + err.Error())
	}
	return ""
}

// Each type of model provider has its own requests.
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
		got, err := c.Models(t.Context(),
			resource.ModelSource{Type: test.kind, BaseURL: provider.URL + test.path, APIKey: test.key})
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.kind, test.path, diff)
		}
		if got := reasonOf(err); got != test.reason {
			t.Errorf("%s %s: reason %q, want %q", test.kind, test.path, got, test.reason)
		}
	}
}

// cardOf returns a complete agent card.
func cardOf(description string) string {
	return fmt.Sprintf(`{"capabilities":{},"defaultInputModes":["text"],"defaultOutputModes":["text"],"description":%q,`+
		`"name":"Echo","protocolVersion":"0.3.0","skills":[],"url":"http://echo","version":"1"}`, description)
}

func TestAgentCard(t *testing.T) {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good/.well-known/agent-card.json":
			fmt.Fprint(w, cardOf("Says it again."))
		case "/nameless/.well-known/agent-card.json":
			fmt.Fprint(w, strings.Replace(cardOf(""), "Echo", "", 1))
		default:
			http.NotFound(w, r)
		}
	}))
	defer agent.Close()
	c := newClient(t, loopback())
	if card, err := c.Fetch(t.Context(), agent.URL+"/good/?x=1#y"); err != nil ||
		string(card) != cardOf("Says it again.") {
		t.Errorf("card = %s, %v", card, err)
	}
	for path, want := range map[string]resource.RemoteReason{
		"/nameless": resource.RemoteUnusable,
		"/none":     resource.RemoteRefuses,
	} {
		if _, err := c.Fetch(t.Context(), agent.URL+path); reasonOf(err) != want {
			t.Errorf("%s: reason %q, want %q", path, reasonOf(err), want)
		}
	}
}

// A checked card is readable by A2A clients: it has no nulls and all required
// members.
func TestCheckAgentCard(t *testing.T) {
	for name, test := range map[string]struct{ given, want, problem string }{
		"complete": {cardOf("a"), cardOf("a"), ""},
		"nulls, and no protocol version": {
			`{"name":"n","description":"","url":"u","version":"1","capabilities":{"streaming":null,"extensions":[null,{"uri":"x","params":{"a":null}}]},
				"defaultInputModes":[],"defaultOutputModes":[],"skills":[{"id":"s","name":"s","description":"","tags":[],"examples":null}],"iconUrl":null,"later":1e400}`,
			`{"capabilities":{"extensions":[{"params":{"a":null},"uri":"x"}]},"defaultInputModes":[],` +
				`"defaultOutputModes":[],"description":"","later":1e400,` +
				`"name":"n","protocolVersion":"0.3.0","skills":[{"description":"","id":"s","name":"s",` +
				`"tags":[]}],"url":"u","version":"1"}`, "",
		},
		"no object": {`[]`, "", "not an A2A agent card"},
		"null":      {`null`, "", "name is missing"},
		"no URL":    {strings.Replace(cardOf("a"), `"url"`, `"URL"`, 1), "", "url is missing"},
		"null for a list": {
			strings.Replace(cardOf("a"), `"skills":[]`, `"skills":null`, 1),
			"", "skills is missing",
		},
		"a number for a name": {strings.Replace(cardOf("a"), `"Echo"`, `5`, 1), "", "not an A2A agent card"},
		"a skill without tags": {strings.Replace(cardOf("a"), `"skills":[]`,
			`"skills":[{"id":"s","name":"s","description":"d"}]`, 1), "", "skills.tags is missing"},
		"an extension without URI": {strings.Replace(cardOf("a"), `"capabilities":{}`,
			`"capabilities":{"extensions":[{}]}`, 1), "", "capabilities.extensions.uri is missing"},
		"a provider without URL": {strings.Replace(cardOf("a"), `"url":"http://echo"`,
			`"url":"u","provider":{"organization":"o"}`, 1), "", "provider.url is missing"},
	} {
		got, err := new(remote.Client).Check(json.RawMessage(test.given))
		if string(got) != test.want || (err == nil) != (test.problem == "") || err != nil &&
			!strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: %s, %v; want %s, %q", name, got, err, test.want, test.problem)
		}
	}
}

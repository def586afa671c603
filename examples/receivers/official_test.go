package receivers_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// webhook is a request that arrived.
type webhook struct {
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// sent returns a webhook as the relay sends it, signed with a secret.
func sent(t *testing.T, signedWith string) webhook {
	t.Helper()
	e := anEvent()
	e.ResourceID = `7 <é&">`
	got, _ := arrived(t, tidings.Endpoint{Secrets: []string{signedWith}}, tidings.Attempt{Event: e, Number: 1},
		http.StatusNoContent)
	return got
}

// The official libraries of Standard Webhooks accept what the relay sends, and
// nothing else.
func TestOfficialLibraries(t *testing.T) {
	for name, verify := range map[string]func(t *testing.T, w webhook) bool{
		"go": func(t *testing.T, w webhook) bool {
			library, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{}
			for name, value := range w.Headers {
				header.Set(name, value)
			}
			return library.Verify([]byte(w.Body), header) == nil
		},
		"node": verifyWithNode,
	} {
		t.Run(name, func(t *testing.T) {
			if !verify(t, sent(t, secret)) {
				t.Error("refused what the relay sends")
			}
			if verify(t, sent(t, other)) {
				t.Error("accepted another secret")
			}
			w := sent(t, secret)
			w.Body = strings.Replace(w.Body, "updated", "deleted", 1)
			if verify(t, w) {
				t.Error("accepted an altered body")
			}
		})
	}
}

func verifyWithNode(t *testing.T, w webhook) bool {
	t.Helper()
	libraries, err := filepath.Abs("../../bin/node-standardwebhooks")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(libraries); err != nil {
		testtool.Missing(t, "standardwebhooks for Node.js")
	}
	cmd := exec.CommandContext(t.Context(), testtool.Path(t, "node"), "-e", `
		const { Webhook } = require("standardwebhooks");
		const w = JSON.parse(require("fs").readFileSync(0, "utf8"));
		try {
			new Webhook(process.argv[1]).verify(w.body, w.headers);
			console.log("accepted");
		} catch (e) { console.log("refused: " + e.message); }`, secret)
	cmd.Env = append(os.Environ(), "NODE_PATH="+libraries)
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(string(text))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.HasPrefix(string(out), "accepted")
}

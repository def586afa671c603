package receivers_test

import (
	"bytes"
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
	out := node(t, "node-standardwebhooks", `
		const { Webhook } = require("standardwebhooks");
		try {
			new Webhook(input.secret).verify(input.webhook.body, input.webhook.headers);
			console.log("accepted");
		} catch (e) { console.log("refused: " + e.message); }`, map[string]any{"secret": secret, "webhook": w})
	return strings.HasPrefix(out, "accepted")
}

// node runs a program, which finds libraries of bin and its input as the variable input.
func node(t *testing.T, libraries, program string, input any) (out string) {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("../../bin", libraries))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); err != nil {
		testtool.Missing(t, "bin/"+libraries)
	}
	cmd := exec.CommandContext(t.Context(), testtool.Path(t, "node"), "-e",
		`const input = JSON.parse(require("fs").readFileSync(0, "utf8"));`+program)
	cmd.Env = append(os.Environ(), "NODE_PATH="+folder)
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = bytes.NewReader(text)
	answer, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	return string(answer)
}

// The OpenAPI and AsyncAPI documents are valid, and so are the schemas, by which the
// bodies that the relay sends are valid, but nothing that lacks a member.
func TestDocumentsAreValid(t *testing.T) {
	golden := func(name string) json.RawMessage {
		text, err := os.ReadFile("../../internal/httpapi/testdata/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	schemas, bodies := make(map[tidings.Format]json.RawMessage), make(map[tidings.Format]json.RawMessage)
	for _, format := range tidings.Formats() {
		schemas[format] = golden("schemas_" + string(format))
		got, _ := arrived(t, tidings.Endpoint{Format: format}, tidings.Attempt{Event: anEvent()}, http.StatusNoContent)
		bodies[format] = json.RawMessage(got.Body)
	}
	out := node(t, "node-validators/node_modules", `
		const show = (what, errors) => console.log(what + ": " + JSON.stringify(errors));
		const make = (file, options) => {
			const { default: Ajv } = require(file), ajv = new Ajv(options);
			require("ajv-formats").default(ajv);
			return ajv;
		};
		const { schemasWithoutId } = require("@asyncapi/specs");
		const asyncapi = make("ajv", {strict: false}).compile(schemasWithoutId[input.asyncapi.asyncapi]);
		if (!asyncapi(input.asyncapi)) show("asyncapi.json", asyncapi.errors);
		for (const [format, schema] of Object.entries(input.schemas)) {
			const valid = make("ajv/dist/2020", {strict: true, allErrors: true}).compile(schema), body = input.bodies[format];
			if (!valid(body)) show("a body in the format " + format, valid.errors);
			for (const member of Object.keys(body)) {
				const {[member]: _, ...rest} = body;
				if (schema.required.includes(member) && valid(rest)) show(format, "is valid without " + member);
			}
			if (schema.required.length < 3) show(format, "requires too little");
		}
		import(require.resolve("@seriousme/openapi-schema-validator")).then(async ({ Validator }) => {
			const result = await new Validator().validate(input.openapi);
			if (!result.valid) show("openapi.json", result.errors);
			console.log("checked OpenAPI " + result.valid);
		});`, map[string]any{
		"openapi": golden("openapi"), "asyncapi": golden("asyncapi"), "schemas": schemas, "bodies": bodies,
	})
	if want := "checked OpenAPI true\n"; out != want {
		t.Errorf("%.4000s", out)
	}
}

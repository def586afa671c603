package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/operator"
)

var update = flag.Bool("update", false, "write the golden file")

func handler() http.Handler {
	return httpapi.New(httpapi.Options{
		Resources: resource.New(nil, resource.Outside{}, resource.Options{}), Logger: slog.Default(),
		Version: "1.0.0", Metrics: http.NotFoundHandler(), Webhooks: operator.New(nil, operator.Options{}),
		Events: resource.Types(),
	})
}

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d", path, w.Code)
	}
	return w
}

// The golden file shows every change to the API.
func TestOpenAPI(t *testing.T) {
	var document bytes.Buffer
	if err := json.Indent(&document, get(t, "/api/v1/openapi.json").Body.Bytes(), "", "  "); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(golden, append(document.Bytes(), '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), document.String()); diff != "" {
		t.Errorf("the API has changed; if this is intended, run go test ./internal/httpapi -update (-want +got):\n%s", diff)
	}
}

// The API reference lists every operation with an example, every event and every
// schema; its links lead somewhere, and it loads nothing from elsewhere.
func TestDocs(t *testing.T) {
	answer := get(t, "/api/v1/docs")
	page := answer.Body.String()
	if csp := answer.Header().Get("Content-Security-Policy"); csp != console.Policy {
		t.Errorf("Content-Security-Policy is %q", csp)
	}
	var document struct {
		Paths map[string]map[string]struct{ Summary, OperationID string }
	}
	if err := json.Unmarshal(get(t, "/api/v1/openapi.json").Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	for path, operations := range document.Paths {
		for method, o := range operations {
			for _, part := range []string{
				"<b>" + strings.ToUpper(method) + "</b> " + path + "</code>", `id="` + o.OperationID + `"`, o.Summary,
			} {
				if !strings.Contains(page, html.EscapeString(part)) && !strings.Contains(page, part) || o.Summary == "" {
					t.Errorf("the page lacks %s %s: %q", method, path, part)
				}
			}
		}
	}
	if n := strings.Count(page, "curl "); n < len(document.Paths) {
		t.Errorf("%d lines of curl", n)
	}
	for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if n := strings.Count(page, `id="`+link[1]+`"`); n != 1 {
			t.Errorf("%d elements have the id %s", n, link[1])
		}
	}
	for _, part := range []string{
		"provider.created, provider.updated, provider.deleted", "webhook-signature", "/api/v1/schemas/thin.json",
		"application/cloudevents&#43;json",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %s", part)
		}
	}
	for _, bad := range []string{`="http`, "@import", "<style", " style=", "<script>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
}

// Every list and map in a request has a limit that is checked before its
// elements are, and the schemas contain nothing that the check of bodies
// ignores.
func TestEveryListAndMapIsBounded(t *testing.T) {
	var document struct {
		Paths map[string]map[string]struct {
			Parameters  []struct{ Schema map[string]any }
			RequestBody struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(get(t, "/api/v1/openapi.json").Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	known := []string{
		"type", "properties", "additionalProperties", "required", "items", "minItems", "maxItems", "maxProperties",
		"minLength", "maxLength",
		"minimum", "maximum", "multipleOf", "pattern", "enum", "format", "default", "description",
		"examples", "contentEncoding",
	}
	seen := 0
	var walk func(where string, schema map[string]any)
	walk = func(where string, schema map[string]any) {
		seen++
		if ref, ok := schema["$ref"].(string); ok {
			walk(where, document.Components.Schemas[ref[strings.LastIndex(ref, "/")+1:]])
			return
		}
		for key := range schema {
			if !slices.Contains(known, key) {
				t.Errorf("%s: the check of bodies does not know %q", where, key)
			}
		}
		kinds := fmt.Sprint(schema["type"])
		if strings.Contains(kinds, "array") {
			if schema["maxItems"] == nil {
				t.Errorf("%s: list without maxItems", where)
			}
			walk(where+"[]", schema["items"].(map[string]any))
		}
		if strings.Contains(kinds, "object") && schema["additionalProperties"] != false {
			if schema["maxProperties"] == nil {
				t.Errorf("%s: map without maxProperties", where)
			}
			walk(where+".*", schema["additionalProperties"].(map[string]any))
		}
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			walk(where+"."+name, property.(map[string]any))
		}
	}
	for path, item := range document.Paths {
		for method, op := range item {
			for _, p := range op.Parameters {
				walk(method+" "+path, p.Schema)
			}
			if body, ok := op.RequestBody.Content["application/json"]; ok {
				walk(method+" "+path+" body", body.Schema)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d schemas were looked at", seen)
	}
}

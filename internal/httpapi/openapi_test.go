package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/resource"
)

var update = flag.Bool("update", false, "write the golden file")

func handler() http.Handler {
	return httpapi.New(httpapi.Options{
		Resources: resource.New(nil, resource.Outside{}, resource.Options{}), Logger: slog.Default(),
		Version: "1.0.0", Metrics: http.NotFoundHandler(),
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

// A change of what goes over the wire shows in the golden file.
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
		t.Errorf("the API changed; if that is meant: go test ./internal/httpapi -update (-want +got):\n%s", diff)
	}
}

// The page to read holds every operation, and needs nothing from elsewhere.
func TestDocs(t *testing.T) {
	page := get(t, "/api/v1/docs").Body.String()
	var document struct {
		Paths map[string]map[string]struct{ Summary string }
	}
	if err := json.Unmarshal(get(t, "/api/v1/openapi.json").Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	for path, operations := range document.Paths {
		for method, o := range operations {
			if !strings.Contains(page, strings.ToUpper(method)+"</b> "+path+"</code> ") || o.Summary == "" {
				t.Errorf("the page lacks %s %s %q", method, path, o.Summary)
			}
		}
	}
	for _, elsewhere := range []string{"src=", `href="http`, "@import"} {
		if strings.Contains(page, elsewhere) {
			t.Errorf("the page needs something from elsewhere: %s", elsewhere)
		}
	}
}

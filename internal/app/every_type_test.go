package app_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/resource"
)

// TestEveryType reports what a registered type lacks outside of internal/resource, and
// which file it belongs in.
func TestEveryType(t *testing.T) {
	read := func(file string) []byte {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var document struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(read("../httpapi/testdata/openapi.json"), &document); err != nil {
		t.Fatal(err)
	}
	docs, quotas := string(read("../../docs/resources.md")), app.Quotas(new(config.Limits)).Resources
	for _, typ := range resource.New(nil, resource.Outside{}, resource.Options{}).All() {
		if document.Paths[typ.URL]["get"] == nil {
			t.Errorf("%s: add the route GET %s, to which its events lead, and its other routes "+
				"(internal/httpapi/routes.go); "+
				"then run go test ./internal/httpapi -update", typ.Type, typ.URL)
		}
		if !strings.Contains(docs, "\n| `"+string(typ.Type)+"` |") {
			t.Errorf("%s: add a row that says when its events are created to the table in docs/resources.md", typ.Type)
		}
		if quotas[typ.Type].Setting == "" && !typ.Unlimited {
			t.Errorf("%s: add its quota to quotas (internal/app/limits.go) and its setting to Limits "+
				"(internal/config/config.go), "+
				"or set Unlimited in its kind (internal/resource/%s.go)", typ.Type, typ.Type)
		}
		if resourceURLs[string(typ.Type)] != strings.Replace(typ.URL, "{id}", "%s", 1) {
			t.Errorf("%s: add its URL to resourceURLs (internal/app/events_test.go)", typ.Type)
		}
		tested := false
		for _, way := range ways {
			tested = tested || strings.HasPrefix(way.name, string(typ.Type)+":")
		}
		if !tested {
			t.Errorf("%s: add each way in which it changes, with its events, to ways "+
				"(internal/app/events_test.go)", typ.Type)
		}
	}
}

package httpapi_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
)

// The golden files show every change to what receivers get.
func TestWebhookDocuments(t *testing.T) {
	paths := []string{"asyncapi.json"}
	for _, format := range tidings.Formats() {
		paths = append(paths, "schemas/"+string(format)+".json")
	}
	for _, path := range paths {
		got := get(t, "/api/v1/"+path).Body.String()
		golden := "testdata/" + strings.ReplaceAll(path, "/", "_")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s has changed; if this is intended, run go test ./internal/httpapi -update (-want +got):\n%s",
				path, diff)
		}
		if strings.Contains(got, "null,") && path != "asyncapi.json" {
			t.Errorf("%s has a member that is not described", path)
		}
	}
}

// The schemas of the thin format name the six members of the contract.
func TestThinSchemaHasTheSixMembers(t *testing.T) {
	var schema struct {
		Required   []string
		Properties map[string]struct{ Description string }
	}
	if err := json.Unmarshal(get(t, "/api/v1/schemas/thin.json").Body.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	want := []string{"event", "resource_id", "resource_type", "resource_url", "timestamp", "user_id"}
	if !slices.Equal(schema.Required, want) || len(schema.Properties) != len(want) {
		t.Errorf("required %q, %d properties", schema.Required, len(schema.Properties))
	}
	for name, p := range schema.Properties {
		if p.Description == "" {
			t.Errorf("%s is not described", name)
		}
	}
}

package receivers_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
)

// The code in docs/receiving.md is that of the receivers that are tested, and its
// examples of webhooks are those of the schemas.
func TestDocumentShowsTheTestedFiles(t *testing.T) {
	text, err := os.ReadFile("../../docs/receiving.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(text)
	from := regexp.MustCompile("(?s)<!-- from (\\S+) -->\n```[a-z]+\n(.*?)\n```")
	blocks := from.FindAllStringSubmatch(document, -1)
	if n := strings.Count(document, "```python") + strings.Count(document, "```go"); n != len(blocks) || n == 0 {
		t.Errorf("%d blocks of code, of which %d name a file", n, len(blocks))
	}
	for _, b := range blocks {
		file, err := os.ReadFile(filepath.Join("../..", b[1]))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(file), b[2]) {
			t.Errorf("this is not in %s:\n%s", b[1], b[2])
		}
	}
	shown := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindAllStringSubmatch(document, -1)
	for i, format := range tidings.Formats() {
		var schema struct{ Examples []any }
		file, err := os.ReadFile("../../internal/httpapi/testdata/schemas_" + string(format) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(file, &schema); err != nil {
			t.Fatal(err)
		}
		var example any
		if err := json.Unmarshal([]byte(shown[i][1]), &example); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(schema.Examples[0], example); diff != "" {
			t.Errorf("%s (-schema +document):\n%s", format, diff)
		}
	}
}

package app_test

import (
	"encoding/json"
	"fmt"
	"mime"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"
)

// documented is an operation in the OpenAPI document.
type documented struct {
	method  string
	path    *regexp.Regexp
	fixed   int // number of path segments that are not parameters; the best match has the most
	answers map[string]*jsonschema.Resolved
}

// contract is the OpenAPI document, against which every answer in every test is checked.
var contract = sync.OnceValues(func() (operations []*documented, err error) {
	text, err := os.ReadFile("../httpapi/testdata/openapi.json")
	if err != nil {
		return nil, err
	}
	var document struct {
		Components struct {
			Schemas map[string]json.RawMessage
		}
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), "#/components/schemas/", "#/$defs/")),
		&document); err != nil {
		return nil, err
	}
	compiled := make(map[string]*jsonschema.Resolved)
	compile := func(schema json.RawMessage) (*jsonschema.Resolved, error) {
		if s := compiled[string(schema)]; s != nil {
			return s, nil
		}
		whole, err := json.Marshal(map[string]any{
			"$defs": document.Components.Schemas,
			"allOf": []json.RawMessage{schema},
		})
		if err != nil {
			return nil, err
		}
		var s jsonschema.Schema
		if err := json.Unmarshal(whole, &s); err != nil {
			return nil, err
		}
		compiled[string(schema)], err = s.Resolve(nil)
		return compiled[string(schema)], err
	}
	parameter := regexp.MustCompile(`\\\{[^}]*\\\}`)
	for path, methods := range document.Paths {
		pattern := parameter.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`)
		for method, operation := range methods {
			o := &documented{
				method: strings.ToUpper(method), path: regexp.MustCompile("^" + pattern + "$"),
				fixed:   strings.Count(path, "/") - strings.Count(path, "{"),
				answers: make(map[string]*jsonschema.Resolved),
			}
			for status, response := range operation.Responses {
				for _, media := range []string{"application/json", "application/problem+json"} {
					if schema := response.Content[media].Schema; schema != nil {
						if o.answers[status+" "+media], err = compile(schema); err != nil {
							return nil, fmt.Errorf("%s %s %s: %w", method, path, status, err)
						}
					}
				}
			}
			operations = append(operations, o)
		}
	}
	return operations, nil
})

// keepsContract returns an error if a JSON answer does not match the OpenAPI document. It
// ignores undocumented paths.
func keepsContract(method, path string, a answer) error {
	operations, err := contract()
	if err != nil {
		return err
	}
	path, _, _ = strings.Cut(path, "?")
	var found *documented
	for _, o := range operations {
		if o.method == method && o.path.MatchString(path) && (found == nil || o.fixed > found.fixed) {
			found = o
		}
	}
	media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	if found == nil || !strings.HasSuffix(media, "json") || strings.HasSuffix(path, "/content") ||
		strings.HasSuffix(path, "/text_content") {
		return nil
	}
	schema := found.answers[strconv.Itoa(a.status)+" "+media]
	if schema == nil {
		return fmt.Errorf("the document has no %d %s", a.status, media)
	}
	var value any
	if json.Unmarshal([]byte(a.text), &value) != nil && json.Valid([]byte(a.text)) {
		return nil // a number that a float64 can't hold
	}
	return schema.Validate(value)
}

package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// curl returns a command that makes a request; URL, TOKEN and the path's parameters are
// shell variables.
func (a *api) curl(path string, op *huma.Operation) string {
	variable := func(name string) string { return "$" + strings.ToUpper(name) }
	var query []string
	for _, p := range op.Parameters {
		switch {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", variable(p.Name))
		case p.In == "query" && p.Required:
			query = append(query, p.Name+"="+variable(p.Name))
		}
	}
	line := "curl"
	if op.Method != http.MethodGet && (op.Method != http.MethodPost || op.RequestBody == nil) {
		line += " -X " + op.Method
	}
	line += ` -H "Authorization: Bearer $TOKEN"`
	if op.RequestBody != nil {
		if media := op.RequestBody.Content["application/json"]; media != nil {
			body := media.Example
			if body == nil {
				body = a.example(media.Schema, 0)
			}
			line += ` -H "Content-Type: application/json" -d '` + compact(body) + `'`
		} else {
			line += " -F file=@FILE"
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	return line + ` "$URL` + path + `"`
}

// example returns a value with the required members of a schema.
func (a *api) example(s *huma.Schema, depth int) any {
	if s.Ref != "" {
		s = a.Huma.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
	}
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case s.Default != nil:
		return s.Default
	case len(s.Enum) > 0:
		return s.Enum[0]
	case depth > 4:
		return nil
	}
	switch s.Type {
	case huma.TypeObject:
		o := make(map[string]any)
		for _, name := range s.Required {
			o[name] = a.example(s.Properties[name], depth+1)
		}
		return o
	case huma.TypeArray:
		return []any{a.example(s.Items, depth+1)}
	case huma.TypeInteger, huma.TypeNumber:
		return 1
	case huma.TypeBoolean:
		return true
	case huma.TypeString:
		switch s.Format {
		case "uuid":
			return exampleEvent().ResourceID
		case "date-time":
			return exampleEvent().Time
		case "uri":
			return "https://example.com"
		}
		return "…"
	}
	return map[string]any{}
}

func compact(v any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // of strings, numbers, lists and maps
	}
	return strings.TrimSpace(text.String())
}

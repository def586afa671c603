package httpapi

import (
	"bytes"
	_ "embed" // docs.html
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsPage string

type documented struct {
	Method, Path, Summary string
	Parameters            []*huma.Param
	Body                  string // the schema's name
}

// docs serves the human-readable API reference, a self-contained page.
func (a *api) docs() http.HandlerFunc {
	sections := make(map[string][]documented)
	for path, item := range a.Huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				d := documented{
					Method: op.Method, Path: path, Summary: op.Summary,
					Parameters: op.Parameters, Body: bodyName(op),
				}
				sections[op.Tags[0]] = append(sections[op.Tags[0]], d)
			}
		}
	}
	for _, s := range sections {
		slices.SortFunc(s, func(a, b documented) int {
			return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
		})
	}
	var page bytes.Buffer
	t := template.Must(template.New("docs").Parse(docsPage))
	if err := t.Execute(&page, map[string]any{
		"Sections": sections, "Version": a.Version, "Document": root + "/openapi.json",
		"Schemas": a.Huma.OpenAPI().Components.Schemas.Map(),
	}); err != nil {
		panic(err) // the template is built in
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write(page.Bytes()) // the client may be gone
	}
}

func bodyName(op *huma.Operation) string {
	if op.RequestBody == nil {
		return ""
	}
	for _, media := range op.RequestBody.Content {
		if media.Schema == nil {
			continue
		}
		ref := media.Schema.Ref
		if media.Schema.Items != nil {
			ref = media.Schema.Items.Ref
		}
		return ref[strings.LastIndex(ref, "/")+1:]
	}
	return ""
}

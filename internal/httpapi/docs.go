package httpapi

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings/internal/console"
)

// reference is the API reference: the OpenAPI document for people.
type reference struct {
	Version, Root, Console string
	Sections               []docSection
	Common                 []docAnswer // responses that every operation may give
	Events                 []docEvents
	Hook                   docOperation
	Formats                []docFormat
	Schemas                []docSchema
}

type docSection struct {
	Tag        string
	Operations []docOperation
}

type docOperation struct {
	ID, Method, Path, Summary, About string
	Parameters                       []docMember
	Bodies                           []docMember // by media type
	Answers                          []docAnswer
	Curl                             string
}

// docMember is a parameter, or a member of an object.
type docMember struct {
	Name, In, About string
	Required        bool
	Type            docType
}

// docType is a type: words, perhaps with the name of a schema between them.
type docType struct {
	Before, Schema, After string
	Enum                  []string
	Default               string
}

type docAnswer struct {
	Status, About string
	Type          docType
}

type docEvents struct{ Type, Events string }

type docFormat struct{ Name, ContentType, Example string }

type docSchema struct {
	Name    string
	Members []docMember
}

// docs serves the API reference.
func (a *api) docs() http.HandlerFunc {
	document := a.Huma.OpenAPI()
	v := &reference{Version: a.Version, Root: root, Console: consolePath + "/"}
	sections, used, operations := make(map[string][]docOperation), make(map[string]int), 0
	for path, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				sections[op.Tags[0]] = append(sections[op.Tags[0]], a.describe(path, op))
				operations++
				for status := range op.Responses {
					used[status]++
				}
			}
		}
	}
	for status, n := range used {
		if n == operations && status >= "400" {
			code, _ := strconv.Atoi(status) // a status
			v.Common = append(v.Common, docAnswer{Status: status, About: http.StatusText(code)})
		}
	}
	slices.SortFunc(v.Common, func(x, y docAnswer) int { return strings.Compare(x.Status, y.Status) })
	common := func(answer docAnswer) bool {
		return slices.ContainsFunc(v.Common, func(c docAnswer) bool { return c.Status == answer.Status })
	}
	for _, tag := range slices.Sorted(maps.Keys(sections)) {
		all := sections[tag]
		slices.SortFunc(all, func(x, y docOperation) int {
			return cmp.Or(strings.Compare(x.Path, y.Path), strings.Compare(x.Method, y.Method))
		})
		for i := range all {
			all[i].Answers = slices.DeleteFunc(all[i].Answers, common)
		}
		v.Sections = append(v.Sections, docSection{tag, all})
	}
	for _, typ := range a.Events.Names() {
		names := make([]string, 0, len(a.Events.Actions(typ)))
		for _, action := range a.Events.Actions(typ) {
			names = append(names, string(typ)+"."+string(action))
		}
		v.Events = append(v.Events, docEvents{string(typ), strings.Join(names, ", ")})
	}
	v.Hook = a.describe("", document.Webhooks["webhook"].Post)
	v.Formats = webhookFormats()
	for _, name := range slices.Sorted(maps.Keys(document.Components.Schemas.Map())) {
		if schema := document.Components.Schemas.Map()[name]; len(schema.Properties) > 0 {
			v.Schemas = append(v.Schemas, docSchema{name, members(schema)})
		}
	}
	page := &console.Page{
		Title: "API", Base: consolePath + "/", Version: a.Version, Now: time.Now(), Zone: time.UTC, Alone: true, Body: v,
	}
	return console.Static("api", page)
}

// describe returns an operation as the reference shows it.
func (a *api) describe(path string, op *huma.Operation) docOperation {
	d := docOperation{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, About: op.Description}
	for _, p := range op.Parameters {
		d.Parameters = append(d.Parameters, docMember{
			p.Name, p.In, cmp.Or(p.Description, p.Schema.Description), p.Required, typeOf(p.Schema),
		})
	}
	if op.RequestBody != nil {
		for _, media := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			schema := op.RequestBody.Content[media].Schema
			d.Bodies = append(d.Bodies, docMember{
				Name: media, About: schema.Description, Required: op.RequestBody.Required, Type: typeOf(schema),
			})
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		answer := docAnswer{Status: status, About: op.Responses[status].Description}
		for _, media := range op.Responses[status].Content {
			if media.Schema != nil {
				answer.Type = typeOf(media.Schema)
			}
		}
		d.Answers = append(d.Answers, answer)
	}
	d.Curl = a.curl(path, op)
	return d
}

func members(schema *huma.Schema) (all []docMember) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		s := schema.Properties[name]
		all = append(all, docMember{
			Name: name, About: s.Description, Required: slices.Contains(schema.Required, name), Type: typeOf(s),
		})
	}
	return all
}

// typeOf returns the type of a schema in words.
func typeOf(s *huma.Schema) docType {
	if s.Ref != "" {
		return docType{Schema: s.Ref[strings.LastIndex(s.Ref, "/")+1:]}
	}
	t := docType{Before: cmp.Or(s.Format, s.Type)}
	if s.Format == "int64" || s.Format == "int32" || s.Format == "double" || s.Format == "float" {
		t.Before = s.Type
	}
	if s.Items != nil {
		t = typeOf(s.Items)
		t.Before = strings.TrimSuffix("list of "+t.Before, " ")
	}
	if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
		t = typeOf(of)
		t.Before = strings.TrimSuffix("map to "+t.Before, " ")
	}
	if s.Nullable {
		t.After = "or null"
	}
	for _, value := range s.Enum {
		t.Enum = append(t.Enum, fmt.Sprint(value))
	}
	if s.Default != nil {
		t.Default = fmt.Sprint(s.Default)
	}
	return t
}

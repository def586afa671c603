package httpapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

const namePattern = `[a-z][a-z0-9_]{0,62}`

// described are the members of webhooks, in any format, by name.
func described() map[string]*huma.Schema {
	text := func(limit int, about string) *huma.Schema {
		one := 1
		return &huma.Schema{Type: huma.TypeString, MinLength: &one, MaxLength: &limit, Description: about}
	}
	with := func(s *huma.Schema, change func(s *huma.Schema)) *huma.Schema { change(s); return s }
	pattern := func(s *huma.Schema, p string) *huma.Schema {
		return with(s, func(s *huma.Schema) { s.Pattern = "^" + p + "$" })
	}
	at := &huma.Schema{
		Type: huma.TypeString, Format: "date-time",
		Description: "When the change was made: RFC 3339 in UTC, up to six decimals.",
	}
	event := pattern(text(127, "The event: resource type, a dot, and action."), namePattern+`\.`+namePattern)
	resource := text(576, "Resource type, a slash, and resource id. Events with the same value arrive in order.")
	zero := float64(0)
	number := func(about string) *huma.Schema {
		return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &zero, Description: about}
	}
	id := text(256, "The webhook-id: the same in every attempt.")
	return map[string]*huma.Schema{
		"event": event, "timestamp": at, "time": at, "id": id, "subject": resource, "partitionkey": resource,
		"type":          text(512, "The event, after the prefix that the operator configured."),
		"resource_type": pattern(text(63, "The kind of resource, such as provider."), namePattern),
		"resource_id":   text(512, "The id of the resource; unique within its type."),
		"resource_url":  text(2048, "Where to read the resource: an http or https URL, or a path that begins with /."),
		"user_id": with(text(512, "The user who made the change; null if there is none."), func(s *huma.Schema) {
			s.Nullable = true
		}),
		"sequence":         number("The position in the log."),
		"resource_version": number("The version of the resource after the change."),
		"specversion":      {Type: huma.TypeString, Enum: []any{"1.0"}, Description: "The CloudEvents version."},
		"source":           {Type: huma.TypeString, Format: "uri-reference", Description: "The server."},
		"datacontenttype":  {Type: huma.TypeString, Enum: []any{"application/json"}, Description: "The type of data."},
	}
}

// webhookSchema returns the schema of webhooks in a format, and their
// Content-Type. The members are those that the sender writes.
func webhookSchema(format tidings.Format) (schema *huma.Schema, contentType string) {
	body, contentType, err := sender.Encode(tidings.Endpoint{Format: format}, exampleEvent(), sender.Options{})
	if err != nil {
		panic(err) // the formats are built in
	}
	var example map[string]any
	if err := json.Unmarshal(body, &example); err != nil {
		panic(err)
	}
	schema = objectSchema(example)
	schema.Title, schema.Examples = "Webhook in the format "+string(format), []any{example}
	return schema, contentType
}

// webhookFormats returns an example of each format, for the API reference.
func webhookFormats() (all []docFormat) {
	for _, format := range tidings.Formats() {
		schema, contentType := webhookSchema(format)
		text, err := json.MarshalIndent(schema.Examples[0], "", "  ")
		if err != nil {
			panic(err) // it was decoded from JSON
		}
		all = append(all, docFormat{string(format), contentType, string(text)})
	}
	return all
}

// objectSchema describes an object with all members of the example, and perhaps others.
func objectSchema(example map[string]any) *huma.Schema {
	known := described()
	o := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, AdditionalProperties: true}
	for name, value := range example {
		switch member := value.(type) {
		case map[string]any:
			o.Properties[name] = objectSchema(member)
		case string:
			o.Properties[name] = known[name]
			if name == "sequence" { // of CloudEvents
				o.Properties[name] = &huma.Schema{
					Type: huma.TypeString, Pattern: "^[0-9]{20}$",
					Description: "The position in the log, with leading zeros.",
				}
			}
		default:
			o.Properties[name] = known[name]
		}
		o.Required = append(o.Required, name)
	}
	slices.Sort(o.Required)
	return o
}

func exampleEvent() tidings.Event {
	return tidings.Event{
		ID: "01a215ad-0cc8-7765-8084-0218e85ffac9", Sequence: 4711, ResourceVersion: 3, Type: "provider",
		Action: tidings.Updated, ResourceID: "0b6f8d8e-6f4c-4c0f-9f0e-2f6a3a1c9d55",
		ResourceURL: root + "/providers/0b6f8d8e-6f4c-4c0f-9f0e-2f6a3a1c9d55",
		UserID:      "7d0e3c52-98a4-4d5b-8a55-0d1c3a2b4e6f",
		Time:        time.Date(2026, 3, 26, 12, 0, 0, 123456000, time.UTC),
	}
}

// webhookHeaders are the headers of webhooks; the informational ones may be missing.
func webhookHeaders() []*huma.Param {
	header := func(name, about string, required bool, schema huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: "header", Description: about, Required: required, Schema: &schema}
	}
	text, number := huma.Schema{Type: huma.TypeString}, huma.Schema{Type: huma.TypeInteger, Format: "int64"}
	return []*huma.Param{
		header("webhook-id", "Identifies the event: the same in every attempt.", true, text),
		header("webhook-timestamp", "When the attempt was made, in Unix seconds.", true, number),
		header("webhook-signature", "Signatures of Standard Webhooks, separated by spaces; left out if the endpoint "+
			"has no secret.", false, text),
		header("tidings-sequence", "The position in the log; not signed.", false, number),
		header("tidings-attempt", "1, 2, …; not signed.", false, number),
		header("tidings-resource-version", "The version of the resource after the change; not signed.", false, number),
		header("tidings-replay", "1 if an operator resent the event; not signed.", false, text),
	}
}

// describeWebhooks adds the webhooks to the OpenAPI document, and serves JSON
// Schema files of the formats and an AsyncAPI document.
func (a *api) describeWebhooks() {
	content := make(map[string]*huma.MediaType)
	messages, refs := map[string]any{}, map[string]any{}
	var operation []any
	for _, format := range tidings.Formats() {
		schema, contentType := webhookSchema(format)
		if other := content[contentType]; other != nil {
			content[contentType] = &huma.MediaType{Schema: &huma.Schema{OneOf: []*huma.Schema{other.Schema, schema}}}
		} else {
			content[contentType] = &huma.MediaType{Schema: schema}
		}
		name := string(format)
		messages[name] = map[string]any{
			"name": name, "title": schema.Title, "contentType": contentType, "payload": schema,
			"headers": headerSchema(),
		}
		refs[name] = map[string]any{"$ref": "#/components/messages/" + name}
		operation = append(operation, map[string]any{"$ref": "#/channels/webhook/messages/" + name})
		a.serveJSON("/schemas/"+name+".json", "application/schema+json", schemaFile(name, schema))
	}
	a.Huma.OpenAPI().Webhooks = map[string]*huma.PathItem{"webhook": {Post: &huma.Operation{
		OperationID: "receiveWebhook", Summary: "What an endpoint receives; it must answer 2xx",
		Description: "The endpoint's format decides which body it gets. See docs/receiving.md.",
		Parameters:  webhookHeaders(),
		RequestBody: &huma.RequestBody{Required: true, Content: content},
		Responses: map[string]*huma.Response{
			"2XX": {Description: "Received."},
			"401": {Description: "The signature is invalid: counts as a failure of the endpoint."},
			"410": {Description: "The endpoint wants no more webhooks and is disabled."},
			"413": {Description: "The event becomes a dead letter at once."},
			"429": {Description: "Too many requests: with Retry-After, nothing is sent for that long."},
		},
	}}}
	a.serveJSON("/asyncapi.json", "application/json", map[string]any{
		"asyncapi": "3.0.0",
		"info": map[string]any{
			"title": "Webhooks of Tidings", "version": a.Version,
			"description": "Every change of a resource is announced by a webhook, in order for each resource, at least once.",
		},
		"defaultContentType": "application/json",
		"channels": map[string]any{"webhook": map[string]any{
			"address": nil, "description": "The URL of an endpoint.", "messages": refs,
		}},
		"operations": map[string]any{"deliver": map[string]any{
			"action": "send", "channel": map[string]any{"$ref": "#/channels/webhook"}, "messages": operation,
			"bindings": map[string]any{"http": map[string]any{"method": "POST", "bindingVersion": "0.3.0"}},
		}},
		"components": map[string]any{"messages": messages},
	})
}

func headerSchema() *huma.Schema {
	o := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, AdditionalProperties: true}
	for _, h := range webhookHeaders() {
		h.Schema.Description = h.Description
		o.Properties[h.Name] = h.Schema
		if h.Required {
			o.Required = append(o.Required, h.Name)
		}
	}
	return o
}

// schemaFile makes a schema a document of its own.
func schemaFile(name string, schema *huma.Schema) map[string]any {
	text, err := json.Marshal(schema)
	if err != nil {
		panic(err)
	}
	var file map[string]any
	if err := json.Unmarshal(text, &file); err != nil {
		panic(err)
	}
	file["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	file["$id"] = root + "/schemas/" + name + ".json"
	return file
}

// serveJSON serves a constant document to everybody.
func (a *api) serveJSON(path, contentType string, document any) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		panic(err)
	}
	a.mux.HandleFunc("GET "+root+path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(text.String())) // the client may be gone
	})
}

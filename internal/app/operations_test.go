package app_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"mime/multipart"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Helpers for tests of all operations of the OpenAPI document.

// slot is a place in a request that takes a resource's id.
type slot struct {
	in   string // path, query or body
	name string
	kind string // of resource
}

// call is an operation of the OpenAPI document, with its slots for ids.
type call struct {
	method, path, id string
	multipart        bool
	slots            []slot
	parameters       []parameter
	body             *schema // nil if the operation takes no body
	responses        map[string]response
}

// The kinds of resources that ids refer to: of path parameters, by the path's first
// segment; of other parameters and members, by name.
var (
	pathKinds = map[string]string{
		"connectors": "connector", "contexts": "context", "files": "file", "model_providers": "model_provider",
		"provider_builds": "provider_build", "providers": "provider", "user_feedback": "user_feedback",
		"users": "user", "vector_stores": "vector_store", "replays": "replay", "parked": "parked_change",
	}
	namedKinds = map[string]string{
		"context_id": "context", "provider_id": "provider", "from_id": "history", "item_id": "history",
		"document_id": "document",
		"location":    "location", "name": "endpoint", "event": "event",
	}
	// External ids refer to nothing in Tidings.
	external = map[string]bool{"task_id": true}
)

// schema is a JSON schema of a part of a request.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any    // a name, or a list of names
	Format, Pattern      string
	Enum                 []any
	Minimum, Maximum     *float64
	MultipleOf           *float64
	MinLength, MaxLength *int
	MinItems, MaxItems   *int
	MaxProperties        *int
	Items                *schema
	Properties           map[string]*schema
	AdditionalProperties any
	Required             []string
}

// parameter is a parameter of an operation.
type parameter struct {
	In, Name string
	Required bool
	Schema   *schema
}

// response is a response of an operation, by media type.
type response struct{ Content map[string]any }

// document is the OpenAPI document of a running server.
type document struct {
	Paths map[string]map[string]struct {
		OperationID string
		Parameters  []parameter
		RequestBody struct {
			Content map[string]struct{ Schema *schema }
		}
		Responses map[string]response
	}
	Components struct{ Schemas map[string]*schema }
}

// resolve follows a reference.
func (d *document) resolve(s *schema) *schema {
	for s != nil && s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

func (w *world) document() *document {
	w.Helper()
	d := new(document)
	text := w.request("", "GET", "/api/v1/openapi.json", nil, nil).text
	if err := json.Unmarshal([]byte(text), d); err != nil || len(d.Paths) == 0 {
		w.Fatalf("%v: %.1000s", err, text)
	}
	return d
}

// calls returns all operations of the OpenAPI document, sorted by path. It fails the test
// for unknown ids and bodies, so that no new route is forgotten.
func (w *world) calls() (list []call) {
	w.Helper()
	d := w.document()
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			operation := d.Paths[path][method]
			path := strings.TrimPrefix(path, "/api/v1")
			c := call{
				method: strings.ToUpper(method), path: path, id: operation.OperationID,
				parameters: operation.Parameters, responses: operation.Responses,
			}
			add := func(in, name, format string) {
				kind := namedKinds[name]
				segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
				switch {
				case name == "id" && in == "path" && segments[0] == "webhooks":
					kind = pathKinds[segments[1]]
				case name == "id" && in == "path":
					kind = pathKinds[segments[0]]
				case name == "page_token" && strings.HasSuffix(path, "/history"):
					kind = "history"
				case name == "page_token" || name == "after_cursor":
					kind = pathKinds[segments[0]]
				case in != "path" && format != "uuid" || external[name]:
					return
				}
				if kind == "" {
					w.Errorf("%s takes an id that this test does not know: %s %q", c.id, in, name)
				}
				c.slots = append(c.slots, slot{in, name, kind})
			}
			for _, p := range operation.Parameters {
				add(p.In, p.Name, p.Schema.Format)
			}
			for kind, content := range operation.RequestBody.Content {
				c.multipart = c.multipart || kind == "multipart/form-data"
				c.body = d.resolve(content.Schema)
				for _, name := range slices.Sorted(maps.Keys(c.body.Properties)) {
					add("body", name, c.body.Properties[name].Format)
				}
			}
			if _, ok := bodies[c.id]; !ok && c.body != nil && !c.multipart {
				w.Errorf("%s takes a body that this test does not know", c.id)
			}
			list = append(list, c)
		}
	}
	return list
}

// bodies are valid bodies of operations, without ids.
var bodies = map[string]func(w *world) any{
	"addHistory":          func(*world) any { return message("hello") },
	"addVectorStoreItems": func(*world) any { return []any{} },
	"publishEvents":       func(*world) any { return object{"event": "published.told", "resource_id": "1"} },
	"connect":             func(*world) any { return object{} },
	"createConnector":     func(*world) any { return object{"url": "https://example.com/" + uuid.NewString()} },
	"createContext":       func(*world) any { return object{} },
	"createModelProvider": func(w *world) any {
		return object{"type": "openai", "base_url": w.agent.url + "/" + uuid.NewString() + "/v1", "api_key": "k"}
	},
	"createProvider":          func(w *world) any { return object{"location": w.agent.url + "/" + uuid.NewString()} },
	"createProviderBuild":     func(*world) any { return object{"location": "https://github.com/org/repo"} },
	"createUserFeedback":      func(*world) any { return opinion("", "") },
	"createVectorStore":       func(*world) any { return object{"name": "s", "dimension": 1, "model_id": "m"} },
	"extractFile":             func(*world) any { return object{} },
	"matchModels":             func(*world) any { return object{"capability": "llm"} },
	"previewProvider":         func(w *world) any { return object{"location": w.agent.url + "/" + uuid.NewString()} },
	"previewProviderBuild":    func(*world) any { return object{"location": "https://github.com/org/repo"} },
	"replaceContext":          func(*world) any { return object{} },
	"pauseEndpoint":           func(*world) any { return object{"comment": "why"} },
	"discardParked":           func(*world) any { return object{"endpoint": "receiver", "all": true, "comment": "c"} },
	"retryParked":             func(*world) any { return object{"endpoint": "receiver"} },
	"planReplay":              func(*world) any { return object{"endpoint": "receiver", "all": true} },
	"replay":                  func(*world) any { return object{"endpoint": "receiver", "all": true} },
	"searchVectorStore":       func(*world) any { return object{"query_vector": []int{1}} },
	"updateConfiguration":     func(*world) any { return object{} },
	"updateContextMetadata":   func(*world) any { return object{"metadata": object{"a": "b"}} },
	"updateModelProvider":     func(*world) any { return object{"name": "renamed"} },
	"updateProvider":          func(*world) any { return object{"origin": "elsewhere"} },
	"updateProviderBuild":     func(*world) any { return object{} },
	"updateProviderVariables": func(*world) any { return object{"variables": object{"A": "2"}} },
	"updateUser":              func(*world) any { return object{"role": "user"} },
	"updateVariables":         func(*world) any { return object{"variables": object{"A": "2"}} },
}

// ask makes a request with an id in each slot.
func (w *world) ask(as string, c call, ids map[slot]string, header ...string) answer {
	w.Helper()
	path, query, body := c.path, []string{}, any(nil)
	if newBody, ok := bodies[c.id]; ok {
		body = newBody(w)
	}
	for _, s := range c.slots {
		switch s.in {
		case "path":
			path = strings.ReplaceAll(path, "{"+s.name+"}", ids[s])
		case "query":
			if ids[s] != "" {
				query = append(query, s.name+"="+ids[s])
			}
		case "body":
			if ids[s] != "" {
				body.(object)[s.name] = ids[s]
			}
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	if !c.multipart {
		return w.try(as, c.method, path, body, header...)
	}
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	part, err := form.CreateFormFile("file", "a.txt")
	if err == nil {
		_, err = io.WriteString(part, "text")
	}
	if err != nil || form.Close() != nil {
		w.Fatal(err)
	}
	return w.request(as, c.method, "/api/v1"+path, &b, map[string]string{"Content-Type": form.FormDataContentType()})
}

// owned creates a user's resources on demand, one of each kind.
type owned struct {
	*world
	who, developer string
	ids            map[string]string
	// silent is an endpoint that never answers, so that replays to it do not end; it
	// may be empty.
	silent string
}

func (o *owned) id(kind string) string {
	o.Helper()
	if id, ok := o.ids[kind]; ok {
		return id
	}
	unique := kind + "-" + uuid.NewString()
	id := ""
	switch kind {
	case "connector":
		id = o.call(o.who, "POST", "/connectors", object{"url": o.agent.url + "/mcp?" + unique}).id()
		o.call(o.who, "POST", "/connectors/"+id+"/connect", nil)
	case "context":
		id = o.call(o.who, "POST", "/contexts", object{}).id()
	case "history":
		id = o.call(o.who, "POST", "/contexts/"+o.id("context")+"/history", message("hi")).id()
	case "file":
		id = o.upload(o.who, "").id()
		o.call(o.who, "POST", "/files/"+id+"/extraction", nil)
	case "vector_store":
		id = o.call(o.who, "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
	case "document":
		id = "a-document"
		o.call(o.who, "PUT", "/vector_stores/"+o.id("vector_store"), []any{object{
			"document_id": id, "document_type": "external", "model_id": "m", "text": "t", "embedding": []int{1},
		}})
	case "user_feedback":
		id = o.call(o.who, "POST", "/user_feedback", opinion(o.id("provider"), o.id("context"))).id()
	case "provider":
		id = o.call(o.developer, "POST", "/providers", object{"location": o.agent.url + "/" + unique}).id()
	case "location":
		id = strings.NewReplacer(":", "%3A", "/", "%2F").Replace(o.agent.url + "/" + unique)
		o.call(o.developer, "POST", "/providers", object{"location": o.agent.url + "/" + unique})
	case "provider_build":
		id = o.call(o.developer, "POST", "/provider_builds",
			object{"location": "https://github.com/org/" + unique}).id()
	case "model_provider":
		id = o.call("admin", "POST", "/model_providers", object{
			"type": "openai", "base_url": o.agent.url + "/" + unique + "/v1", "api_key": "k",
		}).id()
	case "user":
		id = o.user("newcomer")
	case "endpoint":
		id = "receiver"
	case "event":
		id = "1"
	case "parked_change": // that another replica works on
		id = o.heldChange()
	case "replay":
		replay := object{"endpoint": "receiver", "all": true}
		if o.silent != "" {
			replay = object{"endpoint": o.silent, "event": "1"}
		}
		id = o.call("admin", "POST", "/webhooks/replays", replay).id()
	default:
		o.Fatalf("no resource of kind %q", kind)
	}
	o.ids[kind] = id
	o.made++
	return id
}

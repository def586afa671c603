package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// slot is a place of a request that takes the id of a resource.
type slot struct {
	in   string // path, query or body
	name string
	kind string // of the resource that it names
}

// call is an operation of the OpenAPI document, with the places for ids.
type call struct {
	method, path, id string
	multipart        bool
	slots            []slot
}

// kinds are the types behind path parameters, by the path's first segment, and
// behind other parameters and members, by name.
var (
	pathKinds = map[string]string{
		"connectors": "connector", "contexts": "context", "files": "file", "model_providers": "model_provider",
		"provider_builds": "provider_build", "providers": "provider", "user_feedback": "user_feedback",
		"users": "user", "vector_stores": "vector_store", "replays": "replay",
	}
	namedKinds = map[string]string{
		"context_id": "context", "provider_id": "provider", "from_id": "history", "item_id": "history", "document_id": "document",
		"location": "location", "name": "endpoint", "event": "event",
	}
	// External ids name nothing that Tidings keeps.
	external = map[string]bool{"task_id": true}
)

// calls reads the operations that take an id out of the OpenAPI document. An id
// that this test does not know fails it, so that no new route is forgotten.
func (w *world) calls() (list []call) {
	w.Helper()
	type schema struct {
		Ref        string `json:"$ref"`
		Type       any
		Format     string
		Properties map[string]schema
	}
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				In, Name string
				Schema   schema
			}
			RequestBody struct {
				Content map[string]struct{ Schema schema }
			}
		}
		Components struct{ Schemas map[string]schema }
	}
	text := w.request("", "GET", "/api/v1/openapi.json", nil, nil).text
	if err := json.Unmarshal([]byte(text), &document); err != nil || len(document.Paths) == 0 {
		w.Fatalf("%v: %.1000s", err, text)
	}
	for _, path := range slices.Sorted(maps.Keys(document.Paths)) {
		for method, operation := range document.Paths[path] {
			path := strings.TrimPrefix(path, "/api/v1")
			c := call{method: strings.ToUpper(method), path: path, id: operation.OperationID}
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
				body := document.Components.Schemas[strings.TrimPrefix(content.Schema.Ref, "#/components/schemas/")]
				for _, name := range slices.Sorted(maps.Keys(body.Properties)) {
					add("body", name, body.Properties[name].Format)
				}
			}
			if _, ok := bodies[c.id]; !ok && len(c.slots) > 0 && operation.RequestBody.Content != nil && !c.multipart {
				w.Errorf("%s takes a body that this test does not know", c.id)
			}
			if len(c.slots) > 0 {
				list = append(list, c)
			}
		}
	}
	return list
}

// bodies are valid bodies of the operations that have one.
var bodies = map[string]func() any{
	"connect":                 func() any { return object{} },
	"extractFile":             func() any { return object{} },
	"addHistory":              func() any { return message("hello") },
	"addVectorStoreItems":     func() any { return []any{} },
	"createContext":           func() any { return object{} },
	"createUserFeedback":      func() any { return opinion("", "") },
	"createVectorStore":       func() any { return object{"name": "s", "dimension": 1, "model_id": "m"} },
	"replaceContext":          func() any { return object{} },
	"searchVectorStore":       func() any { return object{"query_vector": []int{1}} },
	"updateContextMetadata":   func() any { return object{"metadata": object{"a": "b"}} },
	"updateModelProvider":     func() any { return object{"name": "renamed"} },
	"updateProvider":          func() any { return object{"origin": "elsewhere"} },
	"updateProviderBuild":     func() any { return object{} },
	"updateProviderVariables": func() any { return object{"variables": object{"A": "2"}} },
	"updateUser":              func() any { return object{"role": "user"} },
}

// ask makes a request with an id in each slot.
func (w *world) ask(as string, c call, ids map[slot]string, header ...string) answer {
	w.Helper()
	path, query, body := c.path, []string{}, any(nil)
	if make, ok := bodies[c.id]; ok {
		body = make()
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

// owned makes resources that belong to somebody, one of each kind, when first
// asked for.
type owned struct {
	*world
	who, developer string
	ids            map[string]string
	made           int
}

func (o *owned) id(kind string) string {
	o.Helper()
	if id, ok := o.ids[kind]; ok {
		return id
	}
	o.made++
	unique := fmt.Sprintf("%s-%s-%d", o.who, kind, o.made)
	id := ""
	switch kind {
	case "connector":
		id = o.call(o.who, "POST", "/connectors", object{"url": "https://example.com/" + unique}).id()
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
		id = o.call(o.developer, "POST", "/provider_builds", object{"location": "https://github.com/org/" + unique}).id()
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
	case "replay":
		id = o.call("admin", "POST", "/webhooks/replays", object{"endpoint": "receiver", "events": []any{}, "dead": true}).id()
	default:
		o.Fatalf("no resource of kind %q", kind)
	}
	o.ids[kind] = id
	return id
}

// random is an id of a kind that names nothing.
func random(kind string) string {
	switch kind {
	case "location":
		return "https%3A%2F%2Fnowhere.example%2F" + uuid.NewString()
	case "event":
		return "999999999"
	}
	return uuid.NewString()
}

// mayReach reports whether a caller may know of resources of a kind that are not
// their own.
func mayReach(as, kind string) bool {
	switch kind {
	case "provider", "location", "model_provider":
		return true
	case "provider_build":
		return roles[as] != "user"
	case "user", "user_feedback", "endpoint", "event", "replay":
		return roles[as] == "admin"
	}
	return false
}

// strange are the callers that own nothing of ann's and the developer's.
var strange = []string{"bob", "leaver", "admin"}

// TestStrangersLearnNothing compares, for every operation and every id that it
// takes, what a stranger is answered about a resource with what they are
// answered about a random id.
func TestStrangersLearnNothing(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		victim := &owned{world: w, who: "ann", developer: "developer", ids: map[string]string{}}
		for _, as := range strange {
			self := &owned{world: w, who: as, developer: "admin", ids: map[string]string{}}
			if roles[as] == "developer" {
				self.developer = as
			}
			for _, c := range w.calls() {
				for _, s := range c.slots {
					for _, header := range preconditions(c) {
						w.compare(as, c, s, victim, self, header)
					}
				}
			}
		}
	})
}

// preconditions are headers that make the answer depend on a resource's state.
func preconditions(c call) [][]string {
	if c.method == http.MethodGet {
		return [][]string{nil, {"If-None-Match", `"1"`}, {"Range", "bytes=0-0"}}
	}
	return [][]string{nil, {"If-Match", `"1"`}, {"If-Match", `"99"`}}
}

// compare fills one slot with an id of the victim's and with a random one, and
// the others with what makes the request succeed if that id is let through.
func (w *world) compare(as string, c call, s slot, victim, self *owned, header []string) {
	w.Helper()
	ids := make(map[slot]string)
	for _, other := range c.slots {
		switch {
		case other == s:
			ids[other] = victim.id(s.kind)
		case other.in == "query" && other.name != "from_id":
			ids[other] = "" // left out, so that it does not decide the answer
		case s.in == "path": // what is in the victim's resource
			ids[other] = victim.id(other.kind)
		default:
			ids[other] = self.id(other.kind)
		}
	}
	theirs := w.ask(as, c, ids, header...)
	ids[s] = random(s.kind)
	nobodys := w.ask(as, c, ids, header...)
	about := fmt.Sprintf("%s as %s, %s in %s, %q", c.id, as, s.name, s.in, header)
	if theirs.status < 400 {
		if !mayReach(as, s.kind) {
			w.Errorf("%s: a stranger gets through: %d %s", about, theirs.status, theirs.text)
		}
		if c.method != http.MethodGet {
			clear(victim.ids)
			clear(self.ids)
		}
		return
	}
	if roles[as] == "admin" && mayReach(as, s.kind) {
		return // they may see it, and are told what is wrong with the request
	}
	theirs.header.Del("Date")
	nobodys.header.Del("Date")
	if theirs.status != nobodys.status || theirs.text != nobodys.text || fmt.Sprint(theirs.header) != fmt.Sprint(nobodys.header) {
		w.Errorf("%s:\ntheirs   %d %v %s\nnobody's %d %v %s", about,
			theirs.status, theirs.header, theirs.text, nobodys.status, nobodys.header, nobodys.text)
	}
	if theirs.status < 400 || theirs.status >= 500 {
		w.Errorf("%s: %d %s", about, theirs.status, theirs.text)
	}
}

// TestStrangersWaitForNoLock: a request about a resource that somebody else is
// changing at this moment is answered as fast as one about nothing. It would
// tell by its time, and hold the owner's row.
func TestStrangersWaitForNoLock(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		url, ok := settings["database_url"].(string)
		if !ok {
			t.Skip("SQLite has one writer, whatever it writes")
		}
		w := newWorld(t, settings)
		victim := &owned{world: w, who: "ann", developer: "developer", ids: map[string]string{}}
		self := &owned{world: w, who: "bob", developer: "leaver", ids: map[string]string{}}
		private := func(s slot) bool { return !mayReach("bob", s.kind) && pathKinds[s.kind+"s"] != "" }
		w.user("bob")
		for _, c := range w.calls() {
			for _, s := range c.slots {
				victim.id(s.kind)
				self.id(s.kind)
			}
		}
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"connectors", "contexts", "files", "vector_stores", "user_feedback"} {
			if _, err := tx.Exec(t.Context(), "SELECT * FROM tidings."+table+" WHERE created_by = $1 FOR UPDATE", w.user("ann")); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range w.calls() {
			for _, s := range c.slots {
				if private(s) {
					w.compare("bob", c, s, victim, self, nil)
				}
			}
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

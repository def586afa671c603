package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
)

// fired is an expected event: its name, its resource's id and its user.
type fired struct {
	event, id, user string
}

var resourceURLs = map[string]string{
	"configuration": "/api/v1/configurations/system", "connector": "/api/v1/connectors/%s",
	"context": "/api/v1/contexts/%s",
	"file":    "/api/v1/files/%s", "model_provider": "/api/v1/model_providers/%s", "provider": "/api/v1/providers/%s",
	"provider_build": "/api/v1/provider_builds/%s", "user": "/api/v1/users/%s",
	"user_feedback": "/api/v1/user_feedback/%s",
	"vector_store":  "/api/v1/vector_stores/%s",
}

// body returns the expected webhook body, byte by byte.
func (e fired) body(at string) []byte {
	kind, _, _ := strings.Cut(e.event, ".")
	url := resourceURLs[kind]
	if strings.Contains(url, "%s") {
		url = fmt.Sprintf(url, e.id)
	}
	user := "null"
	if e.user != "" {
		user = `"` + e.user + `"`
	}
	return fmt.Appendf(nil,
		`{"event":"%s","resource_type":"%s","resource_id":"%s","resource_url":"%s","user_id":%s,"timestamp":"%s"}`,
		e.event, kind, e.id, url, user, at)
}

// expect compares the webhooks since the mark with the expected ones.
func (w *world) expect(want ...fired) {
	w.Helper()
	got := w.since()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			w.Errorf("missing: %+v", want[i])
		case i >= len(want):
			w.Errorf("unexpected: %s", got[i].body)
		default:
			var sent struct{ Timestamp string }
			if err := json.Unmarshal(got[i].body, &sent); err != nil {
				w.Fatal(err)
			}
			if body := want[i].body(sent.Timestamp); !bytes.Equal(body, got[i].body) {
				w.Errorf("event %d:\n got %s\nwant %s", i, got[i].body, body)
			}
			at, err := time.Parse(time.RFC3339Nano, sent.Timestamp)
			if err != nil || at.Format(tidings.TimeLayout) != sent.Timestamp ||
				at.Before(w.begun.Add(-time.Second)) || at.After(time.Now()) {
				w.Errorf("timestamp %q is wrong", sent.Timestamp)
			}
		}
	}
}

type object = map[string]any

// ways lists every way in which a resource changes, with the events it must fire. Each row
// creates what it needs before the mark.
var ways = []struct {
	name string
	do   func(w *world) []fired
}{
	{"user: first sight", func(w *world) []fired {
		id := w.user("newcomer")
		return []fired{{"user.created", id, id}}
	}},
	{"user: two concurrent first calls", func(w *world) []fired {
		ids := make(chan string, 2)
		for range 2 {
			go func() { ids <- w.try("newcomer2", "GET", "/users/me", nil).id() }()
		}
		a, b := <-ids, <-ids
		if a != b {
			w.Errorf("two users: %s and %s", a, b)
		}
		return []fired{{"user.created", a, a}}
	}},
	{"user: role", func(w *world) []fired {
		id, admin := w.user("bob"), w.user("admin")
		w.mark()
		w.call("admin", "PATCH", "/users/"+id, object{"role": "developer"})
		w.call("admin", "PATCH", "/users/"+id, object{"role": "developer"}) // changes nothing
		return []fired{{"user.updated", id, admin}}
	}},
	{"user: variables", func(w *world) []fired {
		id := w.user("ann")
		w.mark()
		w.call("ann", "PUT", "/variables", object{"variables": object{"A": "1"}})
		w.call("ann", "PUT", "/variables", object{"variables": object{"A": "1", "B": nil}}) // changes nothing
		w.call("ann", "PUT", "/variables", object{"variables": object{"A": nil}})
		return []fired{{"user.updated", id, id}, {"user.updated", id, id}}
	}},
	{"user: deleted with everything they own", func(w *world) []fired {
		bob, admin := w.user("bob"), w.user("admin")
		if w.call("admin", "PATCH", "/users/"+bob, object{"role": "user"}); w.Failed() {
			return nil
		}
		context := w.call("bob", "POST", "/contexts", object{}).id()
		inContext := w.upload("bob", "?context_id="+context).id()
		file := w.upload("bob", "").id()
		store := w.call("bob", "POST", "/vector_stores", object{"name": "s", "dimension": 2, "model_id": "m"}).id()
		connector := w.call("bob", "POST", "/connectors", object{"url": w.agent.url + "/mcp"}).id()
		provider := w.call("admin", "POST", "/providers", object{"location": w.agent.url + "/bob"}).id()
		feedback := w.call("bob", "POST", "/user_feedback", opinion(provider, context)).id()
		w.mark()
		w.call("admin", "DELETE", "/users/"+bob, nil)
		return []fired{
			{"file.deleted", inContext, admin},
			{"context.deleted", context, admin},
			{"file.deleted", file, admin},
			{"vector_store.deleted", store, admin},
			{"connector.deleted", connector, admin},
			{"user_feedback.deleted", feedback, admin},
			{"user.deleted", bob, admin},
		}
	}},
	{"user: a developer deleted, with providers and builds", func(w *world) []fired {
		id, admin := w.user("leaver"), w.user("admin")
		provider := w.call("leaver", "POST", "/providers", object{"location": w.agent.url + "/leaver"}).id()
		build := w.call("leaver", "POST", "/provider_builds", object{"location": "https://github.com/org/leaver"}).id()
		w.call("leaver", "PATCH", "/provider_builds/"+build, object{"provider_id": provider})
		w.call("leaver", "PUT", "/variables", object{"variables": object{"A": "1"}})
		context := w.call("ann", "POST", "/contexts", object{"provider_id": provider}).id()
		w.mark()
		w.call("admin", "DELETE", "/users/"+id, nil)
		return []fired{
			{"provider_build.deleted", build, admin},
			{"context.updated", context, admin},
			{"provider.deleted", provider, admin},
			{"user.deleted", id, admin},
		}
	}},
	{"provider: created", func(w *world) []fired {
		dev := w.user("developer")
		w.mark()
		w.call("developer", "POST", "/providers/preview", object{"location": w.agent.url + "/created"}) // keeps nothing
		id := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/created"}).id()
		if again := w.try("developer", "POST", "/providers",
			object{"location": w.agent.url + "/created"}); again.status != 409 {
			w.Errorf("the same location again: %d", again.status)
		}
		return []fired{{"provider.created", id, dev}}
	}},
	{"provider: patched", func(w *world) []fired {
		dev := w.user("developer")
		id := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/patched"}).id()
		w.mark()
		w.call("developer", "PATCH", "/providers/"+id, object{"origin": "here"})
		w.call("developer", "PATCH", "/providers/"+id, object{"origin": "here"}) // changes nothing
		w.call("developer", "PATCH", "/providers/"+id, object{"location": w.agent.url + "/moved"})
		return []fired{{"provider.updated", id, dev}, {"provider.updated", id, dev}}
	}},
	{"provider: variables", func(w *world) []fired {
		dev := w.user("developer")
		id := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/variables"}).id()
		w.mark()
		w.call("developer", "PUT", "/providers/"+id+"/variables", object{"variables": object{"KEY": "1"}})
		w.call("developer", "PUT", "/providers/"+id+"/variables",
			object{"variables": object{"KEY": "1"}}) // changes nothing
		return []fired{{"provider.updated", id, dev}}
	}},
	{"provider: deleted, with its feedback; contexts and builds lose it", func(w *world) []fired {
		dev, admin := w.user("developer"), w.user("admin")
		id := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/deleted"}).id()
		context := w.call("ann", "POST", "/contexts", object{"provider_id": id}).id()
		build := w.call("developer", "POST", "/provider_builds",
			object{"location": "https://github.com/org/deleted"}).id()
		w.call("developer", "PATCH", "/provider_builds/"+build, object{"provider_id": id})
		feedback := w.call("ann", "POST", "/user_feedback", opinion(id, context)).id()
		w.mark()
		w.call("admin", "DELETE", "/providers/"+id, nil)
		return []fired{
			{"user_feedback.deleted", feedback, admin},
			{"context.updated", context, admin},
			{"provider_build.updated", build, dev},
			{"provider.deleted", id, admin},
		}
	}},
	{"provider_build: created, each status, deleted", func(w *world) []fired {
		dev, admin := w.user("developer"), w.user("admin")
		w.mark()
		w.call("developer", "POST", "/provider_builds/preview",
			object{"location": "https://github.com/org/repo"}) // records nothing
		id := w.call("developer", "POST", "/provider_builds", object{"location": "https://github.com/org/repo"}).id()
		for _, status := range []string{"in_progress", "in_progress", "build_completed", "completed"} {
			w.call("admin", "PATCH", "/provider_builds/"+id, object{"status": status})
		}
		if back := w.try("admin", "PATCH", "/provider_builds/"+id,
			object{"status": "in_progress"}); back.status != 409 {
			w.Errorf("a completed build was changed: %d", back.status)
		}
		w.call("admin", "DELETE", "/provider_builds/"+id, nil)
		return []fired{
			{"provider_build.created", id, dev},
			{"provider_build.updated", id, dev},
			{"provider_build.updated", id, dev},
			{"provider_build.updated", id, dev},
			{"provider_build.deleted", id, admin},
		}
	}},
	{"provider_build: failed", func(w *world) []fired {
		dev := w.user("developer")
		id := w.call("developer", "POST", "/provider_builds", object{"location": "https://github.com/org/failed"}).id()
		w.mark()
		if a := w.try("developer", "PATCH", "/provider_builds/"+id, object{"status": "failed"}); a.status != 422 {
			w.Errorf("failed without a message: %d", a.status)
		}
		w.call("developer", "PATCH", "/provider_builds/"+id,
			object{"status": "failed", "error_message": "no Dockerfile"})
		return []fired{{"provider_build.updated", id, dev}}
	}},
	{"context: created, put, metadata", func(w *world) []fired {
		ann := w.user("ann")
		w.mark()
		id := w.call("ann", "POST", "/contexts", object{"metadata": object{"a": "1"}}).id()
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"a": "1"}}) // changes nothing
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"a": "2"}})
		w.call("ann", "PATCH", "/contexts/"+id+"/metadata", object{"metadata": object{"a": nil, "b": "3"}})
		w.call("ann", "PATCH", "/contexts/"+id+"/metadata", object{"metadata": object{"a": nil}}) // changes nothing
		return []fired{{"context.created", id, ann}, {"context.updated", id, ann}, {"context.updated", id, ann}}
	}},
	{"context: history", func(w *world) []fired {
		ann := w.user("ann")
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.mark()
		item := w.call("ann", "POST", "/contexts/"+id+"/history", message("Hello")).id()
		w.call("ann", "POST", "/contexts/"+id+"/history", message("Again"))
		w.call("ann", "GET", "/contexts/"+id+"/history", nil)
		w.call("ann", "DELETE", "/contexts/"+id+"/history?from_id="+item, nil)
		return []fired{{"context.updated", id, ann}, {"context.updated", id, ann}, {"context.updated", id, ann}}
	}},
	{"context: deleted, with its files and vector stores", func(w *world) []fired {
		ann := w.user("ann")
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.call("ann", "POST", "/contexts/"+id+"/history", message("Hello"))
		file := w.upload("ann", "?context_id="+id).id()
		text := extracted(w.call("ann", "POST", "/files/"+file+"/extraction", nil))
		store := w.call("ann", "POST", "/vector_stores?context_id="+id,
			object{"name": "s", "dimension": 2, "model_id": "m"}).id()
		w.mark()
		w.call("ann", "DELETE", "/contexts/"+id, nil)
		return []fired{
			{"file.deleted", text, ann},
			{"file.deleted", file, ann},
			{"vector_store.deleted", store, ann},
			{"context.deleted", id, ann},
		}
	}},
	{"file: uploaded, deleted", func(w *world) []fired {
		ann := w.user("ann")
		w.mark()
		id := w.upload("ann", "").id()
		w.call("ann", "DELETE", "/files/"+id, nil)
		return []fired{{"file.created", id, ann}, {"file.deleted", id, ann}}
	}},
	{"file: extraction, again, deleted", func(w *world) []fired {
		ann := w.user("ann")
		id := w.upload("ann", "").id()
		w.mark()
		text := extracted(w.call("ann", "POST", "/files/"+id+"/extraction", nil))
		w.call("ann", "POST", "/files/"+id+"/extraction", nil) // already extracted
		w.call("ann", "DELETE", "/files/"+id+"/extraction", nil)
		return []fired{
			{"file.created", text, ann},
			{"file.updated", id, ann},
			{"file.deleted", text, ann},
			{"file.updated", id, ann},
		}
	}},
	{"file: extracted text deleted, source deleted", func(w *world) []fired {
		ann := w.user("ann")
		id := w.upload("ann", "").id()
		text := extracted(w.call("ann", "POST", "/files/"+id+"/extraction", nil))
		w.mark()
		w.call("ann", "DELETE", "/files/"+text, nil)
		again := extracted(w.call("ann", "POST", "/files/"+id+"/extraction", nil))
		w.call("ann", "DELETE", "/files/"+id, nil)
		return []fired{
			{"file.updated", id, ann},
			{"file.deleted", text, ann},
			{"file.created", again, ann},
			{"file.updated", id, ann},
			{"file.deleted", again, ann},
			{"file.deleted", id, ann},
		}
	}},
	{"vector_store: created, items, document, search, deleted", func(w *world) []fired {
		ann := w.user("ann")
		w.mark()
		id := w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 2, "model_id": "m"}).id()
		item := object{
			"document_id": "d", "document_type": "external", "model_id": "m", "text": "t",
			"embedding": []float64{1, 0},
		}
		w.call("ann", "PUT", "/vector_stores/"+id, []any{item})
		w.call("ann", "PUT", "/vector_stores/"+id, []any{}) // adds nothing
		w.call("ann", "POST", "/vector_stores/"+id+"/search", object{"query_vector": []float64{1, 1}})
		wrong := object{
			"document_id": "d", "document_type": "external", "model_id": "m", "text": "t",
			"embedding": []float64{1},
		}
		if a := w.try("ann", "PUT", "/vector_stores/"+id, []any{item, wrong}); a.status != 422 {
			w.Errorf("wrong dimension: %d", a.status)
		}
		w.call("ann", "DELETE", "/vector_stores/"+id+"/documents/d", nil)
		w.call("ann", "DELETE", "/vector_stores/"+id, nil)
		return []fired{
			{"vector_store.created", id, ann},
			{"vector_store.updated", id, ann},
			{"vector_store.updated", id, ann},
			{"vector_store.deleted", id, ann},
		}
	}},
	{"model_provider: created, patched, deleted", func(w *world) []fired {
		admin := w.user("admin")
		w.mark()
		id := w.call("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "k1"}).id()
		w.call("admin", "PATCH", "/model_providers/"+id, object{"name": "Models"})
		w.call("admin", "PATCH", "/model_providers/"+id, object{"name": "Models", "api_key": "k1"}) // changes nothing
		w.call("admin", "PATCH", "/model_providers/"+id, object{"api_key": "k2"})
		if a := w.try("admin", "PATCH", "/model_providers/"+id, object{"api_key": "wrong-key"}); a.status != 400 {
			w.Errorf("wrong key: %d %s", a.status, a.text)
		}
		w.call("admin", "DELETE", "/model_providers/"+id, nil)
		return []fired{
			{"model_provider.created", id, admin},
			{"model_provider.updated", id, admin},
			{"model_provider.updated", id, admin},
			{"model_provider.deleted", id, admin},
		}
	}},
	{"configuration: put", func(w *world) []fired {
		admin := w.user("admin")
		w.call("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "k1"})
		id := w.call("ann", "GET", "/configurations/system", nil).id()
		w.mark()
		w.call("admin", "PUT", "/configurations/system", object{"default_llm_model": "openai:gpt-4o"})
		w.call("admin", "PUT", "/configurations/system",
			object{"default_llm_model": "openai:gpt-4o"}) // changes nothing
		w.call("admin", "PUT", "/configurations/system", object{})
		return []fired{{"configuration.updated", id, admin}, {"configuration.updated", id, admin}}
	}},
	{"connector: created, connected, disconnected, deleted", func(w *world) []fired {
		ann := w.user("ann")
		w.mark()
		id := w.call("ann", "POST", "/connectors", object{"url": w.agent.url + "/mcp"}).id()
		for _, do := range []string{"connect", "connect", "disconnect", "disconnect"} { // the second changes nothing
			w.call("ann", "POST", "/connectors/"+id+"/"+do, nil)
		}
		w.call("ann", "DELETE", "/connectors/"+id, nil)
		return []fired{
			{"connector.created", id, ann},
			{"connector.updated", id, ann},
			{"connector.updated", id, ann},
			{"connector.deleted", id, ann},
		}
	}},
	{"connector: can't connect", func(w *world) []fired {
		locked := w.call("ann", "POST", "/connectors", object{"url": w.agent.url + "/locked"}).id()
		closed := w.call("ann", "POST", "/connectors", object{"url": "http://127.0.0.1:1/mcp"}).id()
		w.mark()
		if a := w.try("ann", "POST", "/connectors/"+locked+"/connect", nil); a.status != 502 ||
			!strings.Contains(a.text, "denied access") {
			w.Errorf("server that requires authorization: %d %s", a.status, a.text)
		}
		if a := w.try("ann", "POST", "/connectors/"+closed+"/connect", nil); a.status != 504 {
			w.Errorf("unreachable server: %d %s", a.status, a.text)
		}
		return nil
	}},
	{"user_feedback: created, deleted", func(w *world) []fired {
		ann := w.user("ann")
		provider := w.call("admin", "POST", "/providers", object{"location": w.agent.url + "/feedback"}).id()
		context := w.call("ann", "POST", "/contexts", object{}).id()
		w.mark()
		id := w.call("ann", "POST", "/user_feedback", opinion(provider, context)).id()
		w.call("ann", "DELETE", "/user_feedback/"+id, nil)
		return []fired{{"user_feedback.created", id, ann}, {"user_feedback.deleted", id, ann}}
	}},
	{"nothing: refused and failed calls", func(w *world) []fired {
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.user("admin")
		w.user("developer")
		w.mark()
		for _, refused := range []struct {
			as, method, path string
			body             any
			status           int
		}{
			{"", "POST", "/contexts", object{}, 401},
			{"nobody", "POST", "/contexts", object{}, 401},
			{"ann", "POST", "/providers", object{"location": w.agent.url}, 403},
			{"admin", "DELETE", "/contexts/" + id, nil, 404},
			{"developer", "POST", "/providers", object{"location": "http://127.0.0.1:1"}, 400},
			{"ann", "POST", "/contexts", object{"metadata": object{"": "x"}}, 422},
			{"ann", "POST", "/contexts", object{"provider_id": id}, 404},
			{
				"ann", "POST", "/vector_stores?context_id=" + w.user("ann"),
				object{"name": "s", "dimension": 2, "model_id": "m"},
				404,
			},
			{"ann", "POST", "/vector_stores", object{"name": "s", "dimension": 10000, "model_id": "m"}, 422},
			{"ann", "POST", "/user_feedback", opinion(id, id), 404},
			{"admin", "DELETE", "/users/" + w.user("admin"), nil, 409},
			{"admin", "PATCH", "/users/" + w.user("admin"), object{"role": "user"}, 409},
			{"admin", "PATCH", "/users/" + strings.ToUpper(w.user("admin")), object{"role": "user"}, 409},
			{
				"admin", "POST", "/model_providers",
				object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "wrong-key"},
				400,
			},
		} {
			if a := w.try(refused.as, refused.method, refused.path, refused.body); a.status != refused.status {
				w.Errorf("%s %s as %q: %d %s; want %d", refused.method, refused.path, refused.as,
					a.status, a.text, refused.status)
			}
		}
		return nil
	}},
}

func opinion(provider, context string) object {
	return object{
		"provider_id": provider, "task_id": "00000000-0000-4000-8000-000000000001",
		"context_id": context, "rating": 1, "message": "good",
	}
}

func message(text string) object {
	return object{"role": "user", "messageId": "m", "parts": []any{object{"kind": "text", "text": text}}}
}

func extracted(a answer) string {
	return a.body["extracted_files"].([]any)[0].(object)["file_id"].(string)
}

func TestEveryWayFiresItsEvents(t *testing.T) { databases(t, testEveryWay) }

func testEveryWay(t *testing.T, settings map[string]any) {
	w := newWorld(t, settings)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			w.T = t
			w.mark()
			w.expect(way.do(w)...)
		})
		w.T = t
	}
}

func TestJobsFireTheirEvents(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["providers"] = object{"check_interval": "50ms"}
		settings["contexts"] = object{"expire_after": "200ms"}
		w := newWorld(t, settings)
		ann, dev := w.user("ann"), w.user("developer")
		w.mark()
		provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url}).id()
		context := w.call("ann", "POST", "/contexts", object{}).id()
		file := w.upload("ann", "?context_id="+context).id()
		w.agent.away.Store(true)
		w.eventually("provider.updated", provider)
		w.agent.away.Store(false)
		w.eventually("file.deleted", file)
		if state := w.call("ann", "GET", "/contexts/"+context, nil); state.id() != context {
			t.Error("the context expired with its file")
		}
		got := make(map[string]int)
		for _, a := range w.since() {
			var e tidings.Event
			if err := e.UnmarshalJSON(a.body); err != nil {
				t.Fatal(err)
			}
			got[e.Name()+" "+e.ResourceID+" "+e.UserID]++
		}
		if n := got["file.deleted "+file+" "+ann]; n != 1 {
			t.Errorf("the file expired %d times, want once, with its owner as user: %v", n, got)
		}
		if n := got["provider.updated "+provider+" "+dev]; n < 1 || n > 2 {
			t.Errorf("agent went offline and online: %d events with its owner as user, want 1 or 2: %v", n, got)
		}
		if len(got) != 5 { // these and three created ones
			t.Errorf("other events: %v", got)
		}
	})
}

// A model provider is offline while its models can't be listed. These changes have no
// user.
func TestModelProvidersAreChecked(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["model_providers"] = object{"check_interval": "50ms"}
		w := newWorld(t, settings)
		id := w.call("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "k"}).id()
		for _, away := range []bool{true, false} {
			w.mark()
			w.agent.away.Store(away)
			w.eventually("model_provider.updated", id)
			w.expect(fired{"model_provider.updated", id, ""})
			want := map[bool]string{true: "offline", false: "online"}[away]
			w.wants(w.try("ann", "GET", "/model_providers/"+id, nil), 200, `"state":"`+want+`"`)
		}
	})
}

// eventually waits for a webhook.
func (w *world) eventually(event, id string) {
	w.Helper()
	deadline := time.After(testTimeout)
	for {
		w.mu.Lock()
		for position, a := range w.arrived {
			if position > w.marked && bytes.Contains(a.body, []byte(event)) && bytes.Contains(a.body, []byte(id)) {
				w.mu.Unlock()
				return
			}
		}
		w.mu.Unlock()
		select {
		case <-w.answered:
		case <-deadline:
			w.Fatalf("no %s of %s arrived; log:\n%s", event, id, w.log)
		}
	}
}

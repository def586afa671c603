package app_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// sdkFields lists the fields that the official Python and TypeScript SDKs of the Agent
// Stack require in answers.
//
// "a string" is required and not null, "a string|null" is required but may be null, and
// "a string?" is optional and may be null. "a[]" is every element of a list. A type is one
// of [types] or a list of allowed values.
var sdkFields = map[string][]string{
	"page": {"items list", "total_count int", "has_more bool", "next_page_token string|null"},
	"provider": {
		"id string", "source string", "origin string", "created_at time", "updated_at time", "created_by uuid",
		"last_active_at time", "auto_stop_timeout duration", "managed bool", "type managed,unmanaged",
		"state missing,starting,ready,running,error,online,offline", "env list", "env[].name string",
		"env[].required bool", "env[].description string?", "version_info object?", "registry string?",
		"last_error object?", "missing_configuration list?", "agent_card.name string", "agent_card.description string",
		"agent_card.url string", "agent_card.version string", "agent_card.protocolVersion string",
		"agent_card.capabilities object", "agent_card.defaultInputModes list", "agent_card.defaultInputModes[] string",
		"agent_card.defaultOutputModes list", "agent_card.defaultOutputModes[] string", "agent_card.skills list",
		"agent_card.skills[].id string", "agent_card.skills[].name string", "agent_card.skills[].description string",
		"agent_card.skills[].tags list", "agent_card.iconUrl absent", "agent_card.provider absent",
	},
	"variables": {"variables object"},
	"provider_build": {
		"id string", "created_at time", "created_by string",
		"status missing,in_progress,build_completed,completed,failed",
		"source.host string", "source.org string", "source.repo string", "source.version string",
		"source.version_type head,tag", "source.commit_hash string", "source.path string?", "destination string",
		"provider_origin string", "on_complete.type no_action,add_provider,update_provider",
		"build_configuration object?", "provider_id string?", "error_message string?",
	},
	"context": {
		"id string", "created_at time", "updated_at time", "last_active_at time", "created_by string",
		"provider_id string|null", "metadata object|null",
	},
	"history": {"id uuid", "context_id uuid", "created_at time", "kind message,artifact", "data object"},
	"file": {
		"id string", "filename string", "content_type string", "file_size_bytes int", "created_at time",
		"created_by string", "file_type user_upload,extracted_text", "parent_file_id string?",
	},
	"extraction": {
		"id string", "file_id string", "status pending,in_progress,completed,failed,cancelled", "created_at time",
		"started_at time?", "finished_at time?", "error_message string?", "extracted_files list",
		"extracted_files[].file_id string", "extracted_files[].format markdown,vendor_specific_json|null",
	},
	"vector_store": {
		"id string", "name string?", "model_id string", "dimension int", "created_at time", "last_active_at time",
		"created_by string", "stats.usage_bytes int", "stats.num_documents int",
	},
	"document": {"id string", "vector_store_id string", "file_id string?", "usage_bytes int?", "created_at time"},
	"found": {
		"score number", "item.id string", "item.document_id string", "item.document_type platform_file,external?",
		"item.model_id string", "item.text string", "item.embedding list", "item.embedding[] number",
		"item.metadata object?",
	},
	"model_provider": {
		"id string", "name string?", "description string?", "type openai,anthropic,voyage",
		"base_url url", "created_at time",
		"capabilities list", "capabilities[] llm,embedding", "state online,offline",
	},
	"match": {"model_id string", "score number"},
	"configuration": {
		"id string", "updated_at time", "created_by string", "default_llm_model string?",
		"default_embedding_model string?",
	},
	"connector": {
		"id uuid", "url url", "state created,auth_required,connected,disconnected", "auth_request object|null",
		"disconnect_reason string|null", "metadata object|null", "created_at time?",
		"updated_at time?", "created_by uuid?",
	},
	"preset": {"url url", "metadata object|null"},
	"user":   {"id string", "role admin,developer,user", "email string", "created_at time"},
	"user_feedback": {
		"id uuid", "provider_id uuid", "task_id uuid", "context_id uuid", "rating int",
		"message string", "comment string?",
		"comment_tags list?", "created_at time", "agent_name string",
	},
	"problem": {"detail string", "status int"},
}

var isDuration = regexp.MustCompile(`^PT(\d+M)?(\d+S)?$`).MatchString

// types report whether a value is of a type.
var types = map[string]func(v any) bool{
	"string": func(v any) bool { _, ok := v.(string); return ok },
	"bool":   func(v any) bool { _, ok := v.(bool); return ok },
	"number": func(v any) bool { _, ok := v.(float64); return ok },
	"int":    func(v any) bool { n, ok := v.(float64); return ok && n == float64(int64(n)) },
	"list":   func(v any) bool { _, ok := v.([]any); return ok },
	"object": func(v any) bool { _, ok := v.(object); return ok },
	"uuid":   func(v any) bool { s, _ := v.(string); return uuid.Validate(s) == nil && len(s) == 36 },
	"time": func(v any) bool {
		s, _ := v.(string)
		_, err := time.Parse(time.RFC3339Nano, s)
		return err == nil
	},
	"duration": func(v any) bool { s, _ := v.(string); return isDuration(s) && s != "PT" },
	"url": func(v any) bool {
		s, _ := v.(string)
		u, err := url.Parse(s)
		return err == nil && u.IsAbs()
	},
	"absent": func(any) bool { return false },
}

// accept reports an error for each field of a value that an SDK would reject.
func (w *world) accept(kind string, value any) {
	w.Helper()
	for _, field := range sdkFields[kind] {
		path, typ, _ := strings.Cut(field, " ")
		present, optional := strings.CutSuffix(typ, "|null")
		bare, left := strings.CutSuffix(present, "?")
		values, found := dig(value, strings.Split(path, "."))
		if !found && !left && bare != "absent" {
			w.Errorf("%s lacks %s", kind, path)
		}
		for _, v := range values {
			is, known := types[bare]
			switch {
			case v == nil && (optional || left):
			case known && !is(v):
				w.Errorf("%s: %s = %v, want %s", kind, path, v, typ)
			case !known && !slices.Contains(strings.Split(bare, ","), fmt.Sprint(v)):
				w.Errorf("%s: %s = %v, want one of %s", kind, path, v, typ)
			}
		}
	}
}

// dig returns the values at a path, and whether the path exists.
func dig(value any, path []string) (values []any, found bool) {
	if len(path) == 0 {
		return []any{value}, true
	}
	name, each := strings.CutSuffix(path[0], "[]")
	members, _ := value.(object)
	member, ok := members[name]
	if !each {
		if !ok {
			return nil, false
		}
		return dig(member, path[1:])
	}
	list, _ := member.([]any)
	for _, element := range list {
		deeper, in := dig(element, path[1:])
		if !in {
			return nil, false
		}
		values = append(values, deeper...)
	}
	return values, true
}

// sdk makes a request like an SDK, with the body that an SDK sends, and checks that the
// answer is of a kind. An empty kind means an empty answer, "null" the body null, and "a
// page" a list of a.
func (w *world) sdk(as, method, path, body string, status int, kind string) answer {
	w.Helper()
	var raw any
	if body != "" {
		raw = json.RawMessage(body)
	}
	a := w.try(as, method, path, raw)
	if a.status != status {
		w.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.text, status)
	}
	of, isPage := strings.CutSuffix(kind, " page")
	switch {
	case kind == "" || kind == "null":
		if text := strings.TrimSpace(a.text); text != kind {
			w.Errorf("%s %s: body %q, want %q", method, path, text, kind)
		}
	case isPage:
		w.accept("page", a.body)
		if len(items(a)) == 0 {
			w.Errorf("%s %s: nothing to check", method, path)
		}
		for _, item := range items(a) {
			w.accept(of, item)
		}
	default:
		w.accept(kind, a.body)
	}
	return a
}

// TestSDKs makes requests exactly like the official SDKs, and checks that the SDKs would
// accept the answers.
func TestSDKs(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["connectors"] = object{"presets": []any{object{
			"url":      "https://mcp.example.com",
			"metadata": object{"name": "Example"},
		}}}
		w := newWorld(t, settings)
		for name, test := range map[string]func(*world){
			"providers": sdkProviders, "builds": sdkBuilds, "contexts": sdkContexts, "files": sdkFiles,
			"vector stores": sdkVectorStores, "models": sdkModels, "connectors": sdkConnectors,
			"users": sdkUsers, "feedback": sdkFeedback, "errors": sdkErrors,
		} {
			t.Run(name, func(t *testing.T) {
				w.T = t
				test(w)
			})
			w.T = t
		}
	})
}

func sdkProviders(w *world) {
	full := card("Weather")
	maps.Copy(full, object{ // pydantic writes omitted fields as null
		"iconUrl": nil, "provider": nil, "security": nil,
		"skills": []any{object{"id": "s", "name": "S", "description": "", "tags": []any{}, "examples": nil}},
		"capabilities": object{"streaming": true, "pushNotifications": nil, "extensions": []any{object{
			"uri": "https://a2a-extensions.agentstack.beeai.dev/ui/agent-detail/v1", "description": nil,
			"params": object{"interaction_mode": nil, "variables": []any{
				object{"name": "API_KEY", "description": "A key.", "required": true}, object{"name": "REGION"},
			}},
		}}},
	})
	delete(full, "protocolVersion")
	text, err := json.Marshal(full)
	if err != nil {
		w.Fatal(err)
	}
	made := w.sdk("developer", "POST", "/providers", fmt.Sprintf(
		`{"location": %q, "agent_card": %s, "variables": {"A": "1"}, "auto_stop_timeout_sec": 90.0}`,
		w.agent.url+"/sdk", text), 201, "provider")
	if got := made.body["auto_stop_timeout"]; got != "PT1M30S" {
		w.Errorf("auto_stop_timeout = %v", got)
	}
	if env := made.body["env"].([]any); len(env) != 2 || env[0].(object)["required"] != true ||
		env[1].(object)["required"] != false {
		w.Errorf("env = %v", env)
	}
	id := made.id()
	w.sdk("developer", "POST", "/providers/preview",
		fmt.Sprintf(`{"location": %q, "agent_card": null}`, w.agent.url+"/preview"), 200, "provider")
	w.sdk("ann", "GET", "/providers", "", 200, "provider page")
	w.sdk("ann", "GET", "/providers?user_owned=false&origin="+url.QueryEscape(w.agent.url+"/sdk"),
		"", 200, "provider page")
	w.sdk("ann", "GET", "/providers/"+id, "", 200, "provider")
	w.sdk("ann", "GET", "/providers/by-location/"+url.PathEscape(w.agent.url+"/sdk"), "", 200, "provider")
	w.sdk("developer", "PATCH", "/providers/"+id, `{"auto_stop_timeout_sec": 1800.0}`, 200, "provider")
	w.sdk("developer", "PUT", "/providers/"+id+"/variables", `{"variables": {"B": "2", "C": null}}`, 201, "null")
	w.wants(w.sdk("developer", "GET", "/providers/"+id+"/variables", "", 200, "variables"), 200, `{"A":"1","B":"2"}`)
	// PATCH replaces the variables, or keeps them if they are omitted.
	version := w.sdk("developer", "PATCH", "/providers/"+id, `{"variables": {"B": "2", "D": "4"}}`, 200,
		"provider").body["version"]
	w.wants(w.try("developer", "GET", "/providers/"+id+"/variables", nil), 200, `{"variables":{"B":"2","D":"4"}}`)
	same := w.sdk("developer", "PATCH", "/providers/"+id, `{"variables": {"D": "4", "B": "2"}, "origin": null}`, 200,
		"provider")
	if same.body["version"] != version {
		w.Errorf("the same variables changed version %v to %v", version, same.body["version"])
	}
	w.wants(w.try("developer", "PATCH", "/providers/"+id, object{"variables": object{"B": nil}}), 422, "variables.B")
	w.sdk("developer", "PATCH", "/providers/"+id, `{"variables": {}}`, 200, "provider")
	w.wants(w.try("developer", "GET", "/providers/"+id+"/variables", nil), 200, `{"variables":{}}`)
	w.sdk("developer", "DELETE", "/providers/"+id, "", 204, "")
	for _, member := range []string{
		"name", "description", "url", "version", "capabilities", "defaultInputModes",
		"defaultOutputModes", "skills",
	} {
		lacking := card("Lacking")
		lacking[member] = nil
		a := w.try("developer", "POST", "/providers",
			object{"location": w.agent.url + "/lacking", "agent_card": lacking})
		w.wants(a, 422, "agent_card", member+" is missing")
	}
}

func sdkBuilds(w *world) {
	commit := strings.Repeat("0123456789", 4)
	made := w.sdk("developer", "POST", "/provider_builds",
		`{"location": "https://github.com/org/repo@v1#path=agents/a", "on_complete": {"type": "no_action"}, `+
			`"build_configuration": null}`, 201, "provider_build")
	if got := made.body["provider_origin"]; got != "git+https://github.com/org/repo#path=agents/a" {
		w.Errorf("provider_origin = %v", got)
	}
	w.sdk("developer", "POST", "/provider_builds/preview",
		`{"location": "git+https://github.com/org/repo", "on_complete": {"type": "no_action"}}`, 200, "provider_build")
	w.sdk("developer", "GET", "/provider_builds?order=asc&user_owned=true&limit=10&order_by=created_at", "",
		200, "provider_build page")
	reported := w.sdk("developer", "PATCH", "/provider_builds/"+made.id(), `{"status": "in_progress", "commit_hash": "`+
		commit+`", "version_type": "tag", "destination": "ghcr.io/org/repo:v1"}`, 200, "provider_build")
	w.wants(reported, 200, `"commit_hash":"`+commit+`"`, `"version_type":"tag"`, `"destination":"ghcr.io/org/repo:v1"`)
	w.sdk("developer", "GET", "/provider_builds/"+made.id(), "", 200, "provider_build")
	w.sdk("developer", "DELETE", "/provider_builds/"+made.id(), "", 204, "")
}

func sdkContexts(w *world) {
	id := w.sdk("ann", "POST", "/contexts", `{"metadata": {}}`, 201, "context").id()
	w.sdk("ann", "GET", "/contexts?limit=10&order=desc&order_by=updated_at&include_empty=true", "", 200, "context page")
	w.sdk("ann", "GET", "/contexts/"+id, "", 200, "context")
	w.sdk("ann", "PUT", "/contexts/"+id, `{"metadata": null}`, 200, "context")
	w.sdk("ann", "PATCH", "/contexts/"+id+"/metadata", `{"metadata": {"a": "1", "b": null}}`, 200, "context")
	added := w.sdk("ann", "POST", "/contexts/"+id+"/history",
		`{"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "Hi", `+
			`"metadata": null}], "taskId": null}`, 201, "null")
	w.sdk("ann", "GET", strings.TrimPrefix(added.header.Get("Location"), "/api/v1"), "", 200, "history")
	w.sdk("ann", "GET", "/contexts/"+id+"/history?order=asc&order_by=created_at&limit=5", "", 200, "history page")
	w.sdk("ann", "DELETE", "/contexts/"+id+"/history?from_id="+added.id(), "", 204, "")
	w.sdk("ann", "DELETE", "/contexts/"+id, "", 204, "")
}

func sdkFiles(w *world) {
	context := w.call("ann", "POST", "/contexts", object{}).id()
	in := "?context_id=" + context
	made := w.upload("ann", in)
	w.accept("file", made.body)
	w.sdk("ann", "GET", "/files"+in+"&order=asc&order_by=filename&limit=5", "", 200, "file page")
	w.sdk("ann", "GET", "/files/"+made.id()+in, "", 200, "file")
	w.sdk("ann", "POST", "/files/"+made.id()+"/extraction"+in,
		`{"settings": {"formats": ["markdown", "vendor_specific_json"]}}`, 201, "extraction")
	w.sdk("ann", "POST", "/files/"+made.id()+"/extraction"+in, "", 201, "extraction")
	w.sdk("ann", "GET", "/files/"+made.id()+"/extraction"+in, "", 200, "extraction")
	if text := w.try("ann", "GET", "/files/"+made.id()+"/text_content"+in, nil); text.status != 200 ||
		text.text != "# Notes" {
		w.Errorf("text: %d %s", text.status, text.text)
	}
	w.sdk("ann", "DELETE", "/files/"+made.id()+"/extraction"+in, "", 204, "")
	w.wants(w.try("ann", "POST", "/files/"+made.id()+"/extraction",
		object{"settings": object{"formats": []any{"vendor_specific_json"}}}), 422, "formats")
	w.sdk("ann", "DELETE", "/files/"+made.id()+in, "", 204, "")
}

func sdkVectorStores(w *world) {
	context := w.call("ann", "POST", "/contexts", object{}).id()
	in := "?context_id=" + context
	id := w.sdk("ann", "POST", "/vector_stores"+in, `{"name": "s", "dimension": 3, "model_id": "openai:e"}`,
		201, "vector_store").id()
	hex := strings.ReplaceAll(uuid.NewString(), "-", "") // the SDK's form of ids
	w.sdk("ann", "PUT", "/vector_stores/"+id+in, fmt.Sprintf(
		`[{"id": %q, "document_id": "d", "document_type": "external", "model_id": "platform", "text": "t", `+
			`"embedding": [0.5, 1e-3, 2], "metadata": null}]`, hex), 200, "vector_store")
	found := w.sdk("ann", "POST", "/vector_stores/"+id+"/search"+in, `{"query_vector": [0.5, 0.001, 2.0], "limit": 10}`,
		200, "found page")
	item := items(found)[0]["item"].(object)
	if got := fmt.Sprint(item["embedding"]); got != "[0.5 0.001 2]" {
		w.Errorf("embedding = %s", got)
	}
	if item["id"] != uuid.MustParse(hex).String() {
		w.Errorf("id = %v, want that of %s", item["id"], hex)
	}
	w.sdk("ann", "GET", "/vector_stores/"+id+"/documents"+in, "", 200, "document page")
	w.sdk("ann", "GET", "/vector_stores/"+id+in, "", 200, "vector_store")
	w.sdk("ann", "DELETE", "/vector_stores/"+id+"/documents/d"+in, "", 204, "")
	w.sdk("ann", "DELETE", "/vector_stores/"+id+in, "", 204, "")
}

func sdkModels(w *world) {
	// Before the first PUT, created_by is the caller.
	for _, as := range []string{"ann", "admin"} {
		if by := w.sdk(as, "GET", "/configurations/system", "", 200,
			"configuration").body["created_by"]; by != w.user(as) {
			w.Errorf("created_by = %v, want %s", by, as)
		}
	}
	made := w.sdk("admin", "POST", "/model_providers",
		fmt.Sprintf(`{"name": null, "description": null, "type": "openai", "base_url": %q,
		"watsonx_project_id": null, "watsonx_space_id": null, "api_key": "k"}`,
			w.agent.url+"/v1"), 201, "model_provider")
	for kind, want := range map[string]string{"anthropic": "[llm]", "voyage": "[embedding]"} {
		other := w.sdk("admin", "POST", "/model_providers",
			fmt.Sprintf(`{"type": %q, "base_url": %q, "api_key": "k"}`, kind, w.agent.url+"/"+kind+"/v1"), 201,
			"model_provider")
		if got := fmt.Sprint(other.body["capabilities"]); got != want {
			w.Errorf("capabilities of %s = %s", kind, got)
		}
		w.sdk("admin", "DELETE", "/model_providers/"+other.id(), "", 204, "")
	}
	w.sdk("ann", "GET", "/model_providers", "", 200, "model_provider page")
	w.sdk("ann", "GET", "/model_providers/"+made.id(), "", 200, "model_provider")
	w.sdk("ann", "POST", "/model_providers/match", `{"suggested_models": null, "capability": "llm"}`, 200, "match page")
	w.sdk("ann", "POST", "/model_providers/match",
		`{"suggested_models": ["gpt-4o"], "capability": "llm", "score_cutoff": 0.4}`, 200, "match page")
	w.sdk("admin", "PUT", "/configurations/system", `{"default_llm_model": null, "default_embedding_model": null}`, 200,
		"configuration")
	w.sdk("admin", "PUT", "/configurations/system",
		`{"default_llm_model": "openai:gpt-4o", "default_embedding_model": null}`, 200, "configuration")
	if by := w.sdk("ann", "GET", "/configurations/system", "", 200,
		"configuration").body["created_by"]; by != w.user("admin") {
		w.Errorf("created_by = %v, want the admin", by)
	}
	w.sdk("admin", "DELETE", "/model_providers/"+made.id(), "", 204, "")
}

func sdkConnectors(w *world) {
	w.sdk("ann", "GET", "/connectors/presets", "", 200, "preset page")
	made := w.sdk("ann", "POST", "/connectors", fmt.Sprintf(
		`{"url": %q, "client_id": null, "client_secret": null, "metadata": null, "match_preset": true}`,
		w.agent.url+"/mcp"), 201, "connector")
	w.sdk("ann", "GET", "/connectors", "", 200, "connector page")
	w.sdk("ann", "GET", "/connectors/"+made.id(), "", 200, "connector")
	w.sdk("ann", "POST", "/connectors/"+made.id()+"/connect", `{"redirect_url": null, "access_token": null}`, 200,
		"connector")
	w.sdk("ann", "POST", "/connectors/"+made.id()+"/connect", `{"redirect_url": "http://localhost:3000/callback"}`, 200,
		"connector")
	w.wants(w.try("ann", "POST", "/connectors/"+made.id()+"/connect", object{"access_token": "t"}), 422, "access_token")
	w.sdk("ann", "POST", "/connectors/"+made.id()+"/disconnect", "", 200, "connector")
	w.sdk("ann", "DELETE", "/connectors/"+made.id(), "", 204, "")
}

func sdkUsers(w *world) {
	w.sdk("ann", "GET", "/user", "", 200, "user")
	w.sdk("ann", "GET", "/users/me", "", 200, "user")
	w.sdk("admin", "GET", "/users?limit=40&email=ann", "", 200, "user page")
	w.sdk("ann", "PUT", "/variables", `{"variables": {"A": "1", "B": null}}`, 201, "null")
	w.wants(w.sdk("ann", "GET", "/variables", "", 200, "variables"), 200, `{"A":"1"}`)
}

func sdkFeedback(w *world) {
	provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/feedback"}).id()
	context := w.call("ann", "POST", "/contexts", object{}).id()
	body := fmt.Sprintf(`{"provider_id": %q, "task_id": %q, "context_id": %q, "rating": -1, "message": "m", `+
		`"comment": null, "comment_tags": ["slow"]}`,
		provider, uuid.NewString(), context)
	said := w.sdk("ann", "POST", "/user_feedback", body, 201, "null")
	list := w.sdk("ann", "GET", "/user_feedback?limit=50&provider_id="+provider, "", 200, "user_feedback page")
	if got := items(list)[0]; got["id"] != said.id() || got["agent_name"] != "Echo" {
		w.Errorf("feedback = %v, want %s about Echo", got, said.id())
	}
	w.sdk("ann", "GET", strings.TrimPrefix(said.header.Get("Location"), "/api/v1"), "", 200, "user_feedback")
}

func sdkErrors(w *world) {
	w.sdk("", "GET", "/contexts", "", http.StatusUnauthorized, "problem")
	w.sdk("ann", "GET", "/contexts/"+uuid.NewString(), "", http.StatusNotFound, "problem")
	w.sdk("ann", "POST", "/contexts", `{"metadata": 1}`, http.StatusUnprocessableEntity, "problem")
	w.sdk("ann", "POST", "/providers", `{"location": "http://x"}`, http.StatusForbidden, "problem")
}

package app_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// literals are JSON values to put in place of strings, and the status with which they
// are refused; 0 if that depends on the place.
var literals = []struct {
	raw     string
	refused int
	why     string
}{
	{`"\u0000"`, 422, "NUL"},
	{`"a\u0000b"`, 422, "NUL"},
	{`"\\\u0000"`, 422, "NUL"},
	{`"\ud800"`, 422, "surrogate"},
	{`"\ude00\ud83d"`, 422, "surrogate"},
	{"\"\xff\"", 400, "not valid UTF-8"},
	{"\"\xed\xa0\x80\"", 400, "not valid UTF-8"},
	{"\"\x00\"", 400, "not valid JSON"},
	{`"C:\\u0000"`, 0, ""},
	{`"\ud83d\ude00"`, 0, ""},
	{`"\u0001\u007f\ufffd"`, 0, ""},
	{`"' OR 1=1--"`, 0, ""},
	{`"\\' OR 1=1--"`, 0, ""},
	{`1e999`, 0, ""},
	{`-1E+400`, 0, ""},
	{`123456789012345678901234567890`, 0, ""},
	{`{"a":1,"a":"\\u0000"}`, 0, ""},
	{`[null,[1e999],""]`, 0, ""},
	{`null`, 0, ""},
	{`""`, 0, ""},
}

// TestTextOfBodies puts invalid and unusual text in place of each string and each name in
// each body. Refusals name the place, the server never fails, and the answers on both
// databases are the same.
func TestTextOfBodies(t *testing.T) {
	testtool.InAll(t)
	const mark = "\U0001F3AF"
	compareDatabases(t, func(o *owned, answers map[string]string) {
		for _, operation := range o.calls() {
			if operation.body == nil || operation.multipart {
				continue
			}
			if samples(o)[operation.id] == nil {
				o.Errorf("%s takes a body that this test does not know", operation.id)
				continue
			}
			for n := 0; ; n++ {
				var place string
				for _, literal := range literals {
					var body any
					body, place = marked(samples(o)[operation.id], mark, n)
					if place == "" {
						break
					}
					if strings.HasSuffix(place, "KEY") && literal.raw[0] != '"' {
						continue
					}
					text, err := json.Marshal(body)
					if err != nil {
						o.Fatal(err)
					}
					sent := strings.ReplaceAll(string(text), `"`+mark+`"`, literal.raw)
					path := "/api/v1" + operation.path
					for _, p := range operation.parameters {
						if p.In == "path" {
							path = strings.ReplaceAll(path, "{"+p.Name+"}", o.idFor(operation, p))
						}
					}
					a := o.request(o.who, operation.method, path, strings.NewReader(sent),
						map[string]string{"Content-Type": "application/json"})
					what := fmt.Sprintf("%s, %s: %.30q", operation.id, place, literal.raw)
					o.record(answers, what, a)
					if literal.refused != 0 && (a.status != literal.refused || !strings.Contains(a.text, literal.why)) {
						o.Errorf("%s: %d %s; want %d and %q", what, a.status, a.text, literal.refused, literal.why)
					}
					if member, _, _ := strings.Cut(place, ","); literal.refused == 422 &&
						!strings.Contains(a.text, `"location":"`+member) {
						o.Errorf("%s: the answer does not name the place: %s", what, a.text)
					}
					if a.status < 400 {
						clear(o.ids) // resources may have changed
					}
				}
				if place == "" {
					break
				}
			}
		}
	})
}

// marked returns a copy of a body in which a mark replaces the nth string or, in maps
// with arbitrary keys, the nth key. place says where; it is empty if there are fewer.
func marked(body any, mark string, n int) (copied any, place string) {
	var walk func(v any, at string) any
	walk = func(v any, at string) any {
		hit := func(suffix string) bool {
			if n--; n == -1 {
				place = at + suffix
			}
			return n == -1
		}
		switch v := v.(type) {
		case string:
			if hit("") {
				return mark
			}
		case []any:
			list := make([]any, len(v))
			for i := range v {
				list[i] = walk(v[i], fmt.Sprintf("%s[%d]", at, i))
			}
			return list
		case map[string]any:
			members := make(object)
			for _, name := range slices.Sorted(maps.Keys(v)) {
				if free := strings.HasSuffix(at, "metadata") || strings.HasSuffix(at, "variables"); free &&
					hit(", KEY") {
					members[mark] = v[name]
					continue
				}
				members[name] = walk(v[name], at+"."+name)
			}
			return members
		}
		return v
	}
	text, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil {
		return nil, ""
	}
	return walk(body, "body"), place
}

// samples returns bodies of all operations that take JSON, with every member.
func samples(o *owned) map[string]any {
	agent := card("Agent")
	agent["skills"] = []any{object{"id": "s", "name": "n", "description": "d", "tags": []string{"t"}}}
	provider := object{
		"location": o.agent.url + "/sample", "origin": "o", "agent_card": agent,
		"auto_stop_timeout_sec": 5, "variables": object{"A": "1"},
	}
	build := object{
		"location": "https://github.com/org/sample", "build_configuration": object{"dockerfile_path": "Dockerfile"},
		"on_complete": object{"type": "no_action"},
	}
	metadata := object{"metadata": object{"key": "value"}}
	return map[string]any{
		"publishEvents":       object{"event": "published.told", "resource_id": "1"},
		"updateConfiguration": object{"default_llm_model": "m", "default_embedding_model": "e"},
		"createConnector": object{
			"url": "https://example.com/sample", "client_id": "c", "client_secret": "s",
			"match_preset": true, "metadata": object{"key": "value"},
		},
		"connect":               object{"access_token": "t", "redirect_url": "https://example.com"},
		"extractFile":           object{"settings": object{"formats": []string{"markdown"}, "include_images": true}},
		"createContext":         object{"metadata": object{"key": "value"}, "provider_id": o.id("provider")},
		"replaceContext":        metadata,
		"updateContextMetadata": metadata,
		"addHistory": object{
			"role": "user", "messageId": "m",
			"parts": []any{object{"kind": "text", "text": "hello", "metadata": object{"key": "value"}}},
		},
		"createModelProvider": object{
			"type": "watsonx", "base_url": o.agent.url + "/sample/v1", "api_key": "k",
			"name": "n", "description": "d", "watsonx_project_id": "p",
		},
		"updateModelProvider": object{
			"base_url": o.agent.url + "/sample/v1", "api_key": "k",
			"name": "n", "description": "d",
		},
		"matchModels":             object{"capability": "llm", "suggested_models": []string{"m"}, "score_cutoff": 0.5},
		"createProviderBuild":     build,
		"previewProviderBuild":    build,
		"updateProviderBuild":     object{"status": "failed", "error_message": "e"},
		"createProvider":          provider,
		"previewProvider":         provider,
		"updateProvider":          provider,
		"updateProviderVariables": object{"variables": object{"A": "1"}},
		"updateVariables":         object{"variables": object{"A": "1"}},
		"createUserFeedback": object{
			"provider_id": o.id("provider"), "context_id": o.id("context"), "task_id": o.id("context"), "rating": 1,
			"message": "m", "comment": "c", "comment_tags": []string{"t"},
		},
		"updateUser":        object{"role": "user"},
		"createVectorStore": object{"name": "n", "dimension": 1, "model_id": "m"},
		"addVectorStoreItems": []any{object{
			"id": o.id("context"), "document_id": "d", "document_type": "external", "model_id": "m", "text": "t",
			"embedding": []int{1}, "metadata": object{"key": "value"},
		}},
		"pauseEndpoint":     object{"comment": "why", "until": "2026-03-26T12:00:00Z"},
		"searchVectorStore": object{"query_vector": []int{1}, "limit": 1},
		"discardParked":     parkedSelection(object{"all": false, "comment": "c"}),
		"retryParked":       parkedSelection(object{}),
		"replay":            replaySelection(),
		"planReplay":        replaySelection(),
	}
}

func parkedSelection(more object) object {
	body := object{
		"endpoint": "receiver", "dead": false, "reason": "http_422", "types": []string{"provider.*"},
		"resource": "provider/1", "event": "1", "count": 1, "dry_run": false,
	}
	maps.Copy(body, more)
	return body
}

func replaySelection() object {
	return object{
		"endpoint": "receiver", "dead": false, "missed": false, "all": false, "event": "1",
		"events": []string{"provider.*"}, "resource": "provider/1",
		"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z",
	}
}

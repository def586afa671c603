package app_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAPI tests what the API promises besides its events.
func TestAPI(t *testing.T) { databases(t, testAPI) }

func testAPI(t *testing.T, settings map[string]any) {
	tests := []struct {
		name string
		test func(w *world)
	}{
		{"paging while resources are added", testPaging},
		{"versions, ETag and If-Match", testVersions},
		{"problems name the field but not the value", testProblems},
		{"other users' resources are not found", testOwnership},
		{"files: content, ranges, names", testFiles},
		{"files: uploads over a limit leave nothing", testFileLimits},
		{"history: pages, title, deletion", testHistory},
		{"vector stores: nearest first, documents", testVectorStores},
		{"providers: id, state, location, variables", testProviders},
		{"models: keys hidden, matched by name", testModels},
		{"connectors: duplicates, presets", testConnectors},
		{"users: me, list, roles", testUsers},
	}
	settings["files"] = object{"max_size": "64KiB", "user_quota": "100KiB"}
	settings["connectors"] = object{"presets": []any{object{
		"url": "https://mcp.example.com", "client_id": "c",
		"client_secret": "preset-secret", "metadata": object{"name": "Example"},
	}}}
	settings["data_dir"] = t.TempDir()
	w := newWorld(t, settings)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.T = t
			test.test(w)
		})
		w.T = t
	}
	w.Run("deleted files leave no contents", func(t *testing.T) {
		w.T = t
		for _, user := range []string{"ann", "bob"} {
			w.call("admin", "DELETE", "/users/"+w.user(user), nil)
		}
		if left := contents(t, settings["data_dir"].(string)); len(left) > 0 {
			t.Errorf("contents left: %q", left)
		}
	})
	w.T = t
}

func contents(t *testing.T, dataDir string) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(filepath.Join(dataDir, "files")), ".",
		func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, path)
			}
			return err
		})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// wants fails the test unless an answer has the status and contains the texts.
func (w *world) wants(a answer, status int, texts ...string) {
	w.Helper()
	if a.status != status {
		w.Errorf("status = %d, want %d: %s", a.status, status, a.text)
	}
	for _, text := range texts {
		if !strings.Contains(a.text, text) {
			w.Errorf("answer lacks %q: %s", text, a.text)
		}
	}
}

func items(a answer) (list []object) {
	for _, item := range a.body["items"].([]any) {
		list = append(list, item.(object))
	}
	return list
}

func testPaging(w *world) {
	made := make(map[string]int)
	for range 7 {
		made[w.call("bob", "POST", "/contexts", object{}).id()] = 0
	}
	for _, order := range []string{"asc", "desc"} {
		token, pages := "", 0
		for {
			page := w.call("bob", "GET", "/contexts?limit=3&order="+order+token, nil)
			if total := page.body["total_count"]; pages == 0 && total != float64(len(made)) {
				w.Errorf("total_count = %v", total)
			}
			for _, item := range items(page) {
				if id := item["id"].(string); order == "asc" || made[id] > 0 {
					made[id]++
				}
			}
			pages++
			if order == "desc" { // inserts before and after the current page
				w.call("bob", "POST", "/contexts", object{})
			}
			if page.body["has_more"] != true {
				if page.body["next_page_token"] != nil {
					w.Error("the last page has a next_page_token")
				}
				break
			}
			token = "&page_token=" + page.body["next_page_token"].(string)
		}
		if pages != 3 {
			w.Errorf("%s: %d pages, want 3", order, pages)
		}
	}
	for id, n := range made {
		if n != 2 {
			w.Errorf("context %s was on %d pages, want 2", id, n)
		}
	}
	w.wants(w.try("bob", "GET", "/contexts?page_token=00000000-0000-4000-8000-000000000000", nil), 422, "page_token")
	w.wants(w.try("bob", "GET", "/contexts?order_by=created_by", nil), 422, "order_by")
	if n := len(items(w.call("bob", "GET", "/contexts?include_empty=false", nil))); n != 0 {
		w.Errorf("%d contexts have history, want none", n)
	}
}

func testVersions(w *world) {
	made := w.call("ann", "POST", "/contexts", object{})
	path, tag := "/contexts/"+made.id(), made.header.Get("ETag")
	if tag != `"1"` {
		w.Errorf("ETag = %s", tag)
	}
	put := func(value, match string) answer {
		return w.try("ann", "PUT", path, object{"metadata": object{"v": value}}, "If-Match", match)
	}
	w.wants(put("a", tag), 200, `"version":2`)
	w.wants(put("b", tag), 412, "version 2")
	w.wants(put("b", "2"), 422, "expected * or a single ETag")
	w.wants(put("b", `W/"2"`), 412)
	w.wants(put("b", "*"), 200, `"version":3`)
	same := put("b", `"3"`)
	w.wants(same, 200, `"version":3`)
	if same.body["updated_at"] == made.body["updated_at"] {
		w.Error("updated_at did not change")
	}
	w.wants(w.try("ann", "DELETE", path, nil, "If-Match", `"1"`), 412)
	w.wants(w.try("ann", "DELETE", path, nil, "If-Match", `"3"`), 204)
	w.wants(w.try("ann", "GET", path, nil), 404)
}

func testProblems(w *world) {
	for _, test := range []struct {
		as, method, path string
		body             any
		status           int
		text             string
	}{
		{"", "GET", "/users/me", nil, 401, "Authorization"},
		{"ann", "GET", "/users", nil, 403, "admin"},
		{"ann", "GET", "/contexts/no-id", nil, 422, "path.id"},
		{"ann", "GET", "/nowhere", nil, 404, "/api/v1/docs"},
		{"ann", "POST", "/users/me", nil, 405, "GET"},
		{"ann", "POST", "/contexts", object{"metadata": object{"a": strings.Repeat("x", 513)}}, 422, "metadata.a"},
		{"ann", "POST", "/contexts", object{"surprise": 1}, 422, "surprise"},
		{"ann", "POST", "/contexts", object{"metadata": object{"a": "\x00"}}, 422, "NUL"},
		{"ann", "GET", "/files?filename_search=%00", nil, 422, "NUL"},
		{"ann", "POST", "/contexts", object{"metadata": object{"a": strings.Repeat("x", 1<<20)}}, 413, ""},
		{"admin", "POST", "/model_providers", object{"api_key": []any{"secret-in-a-list"}}, 422, "body.api_key"},
		{
			"admin", "POST", "/provider_builds",
			object{"location": "https://user:secret-in-a-url@github.com/org/repo"},
			422, "location",
		},
	} {
		a := w.try(test.as, test.method, test.path, test.body)
		w.wants(a, test.status, test.text)
		if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
			w.Errorf("%s %s: Content-Type = %s", test.method, test.path, kind)
		}
		if strings.Contains(a.text, "secret-in") {
			w.Errorf("the answer contains a secret: %s", a.text)
		}
	}
	a := w.try("ann", "POST", "/contexts", object{}, "Sec-Fetch-Site", "cross-site")
	if a.status != http.StatusForbidden {
		w.Errorf("cross-site request: %d, want 403", a.status)
	}
}

func testOwnership(w *world) {
	context := w.call("ann", "POST", "/contexts", object{}).id()
	file := w.upload("ann", "").id()
	store := w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
	for _, as := range []string{"bob", "admin"} {
		for _, path := range []string{
			"/contexts/" + context, "/contexts/" + context + "/history", "/files/" + file,
			"/files/" + file + "/content",
			"/files/" + file + "/extraction", "/vector_stores/" + store, "/vector_stores/" + store + "/documents",
			"/files?context_id=" + context, "/vector_stores?context_id=" + context,
		} {
			w.wants(w.try(as, "GET", path, nil), 404)
		}
		for _, path := range []string{"/contexts/" + context, "/files/" + file, "/vector_stores/" + store} {
			w.wants(w.try(as, "DELETE", path, nil), 404)
		}
		w.wants(w.try(as, "POST", "/contexts/"+context+"/history", message("x")), 404)
		w.wants(w.tryUpload(as, "?context_id="+context, "a.txt", "text/plain", strings.NewReader("x")), 404)
		w.wants(w.try(as, "POST", "/files/"+file+"/extraction", nil), 404)
		w.wants(w.try(as, "POST", "/vector_stores/"+store+"/search", object{"query_vector": []int{1}}), 404)
	}
	provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/owned"}).id()
	w.wants(w.try("ann", "GET", "/providers/"+provider, nil), 200)
	w.wants(w.try("ann", "PATCH", "/providers/"+provider, object{}), 403)
	w.wants(w.try("ann", "GET", "/providers/"+provider+"/variables", nil), 403)
	w.wants(w.try("ann", "GET", "/provider_builds", nil), 403)
	w.call("admin", "DELETE", "/providers/"+provider, nil)
}

func testFiles(w *world) {
	file := w.tryUpload("ann", "", "naïve \"notes\".md", "text/markdown", strings.NewReader("0123456789"))
	w.wants(file, 201, `"file_size_bytes":10`, `"file_type":"user_upload"`)
	path := "/files/" + file.id()
	whole := w.try("ann", "GET", path+"/content", nil)
	w.wants(whole, 200, "0123456789")
	if kind := whole.header.Get("Content-Type"); kind != "text/markdown" {
		w.Errorf("Content-Type = %s", kind)
	}
	if how := whole.header.Get("Content-Disposition"); !strings.HasPrefix(how, "attachment") {
		w.Errorf("Content-Disposition = %s", how)
	}
	part := w.try("ann", "GET", path+"/content", nil, "Range", "bytes=2-4")
	if part.status != http.StatusPartialContent || part.text != "234" {
		w.Errorf("range: %d %q", part.status, part.text)
	}
	w.wants(w.try("ann", "GET", path+"/content", nil, "Range", "bytes=10-"), 416,
		`"detail":"the requested range is not satisfiable"`)
	w.wants(w.try("ann", "GET", path+"/content", nil, "If-Match", `"another"`), 412,
		`"detail":"the content does not match`)
	w.wants(w.try("ann", "GET", path+"/text_content", nil), 404)
	w.call("ann", "POST", path+"/extraction", nil)
	if text := w.try("ann", "GET", path+"/text_content", nil); text.text != "0123456789" {
		w.Errorf("text = %d %q", text.status, text.text)
	}
	if found := items(w.call("ann", "GET", "/files?content_type=text/markdown&filename_search=NOTES",
		nil)); len(found) != 2 {
		w.Errorf("found %d markdown files with notes in their name, want 2", len(found))
	}
	binary := w.tryUpload("ann", "", "a.pdf", "application/pdf", strings.NewReader("%PDF"))
	w.wants(w.try("ann", "POST", "/files/"+binary.id()+"/extraction", nil), 422, "application/pdf")
	lie := w.tryUpload("ann", "", "a.txt", "text/plain", strings.NewReader("\xff\xfe"))
	w.wants(w.try("ann", "POST", "/files/"+lie.id()+"/extraction", nil), 201, `"failed"`, "UTF-8")
	w.wants(w.try("ann", "GET", "/files/"+lie.id()+"/text_content", nil), 400, "failed")
	w.wants(w.try("ann", "POST", "/files", object{}), 422, "multipart/form-data")
}

func testFileLimits(w *world) {
	before := items(w.call("bob", "GET", "/files", nil))
	w.wants(w.tryUpload("bob", "", "big", "text/plain", strings.NewReader(strings.Repeat("x", 64<<10+1))), 413, "65536")
	w.wants(w.tryUpload("bob", "", "fits", "text/plain", strings.NewReader(strings.Repeat("x", 64<<10))), 201)
	w.wants(w.tryUpload("bob", "", "more", "text/plain", strings.NewReader(strings.Repeat("x", 64<<10))), 413, "102400")
	after := items(w.call("bob", "GET", "/files", nil))
	if len(after) != len(before)+1 {
		w.Errorf("%d files, want %d", len(after), len(before)+1)
	}
}

func testHistory(w *world) {
	id := w.call("ann", "POST", "/contexts", object{}).id()
	path := "/contexts/" + id + "/history"
	for kind, item := range map[string]object{
		"message":  {"role": "agent", "parts": []any{object{"text": "Welcome"}}},
		"artifact": {"artifactId": "a", "parts": []any{}},
	} {
		w.wants(w.try("ann", "GET", path+"/"+w.call("ann", "POST", path, item).id(), nil), 200, `"kind":"`+kind+`"`)
	}
	w.call("ann", "POST", path, message(strings.Repeat("é", 120)))
	third := w.call("ann", "POST", path, message("not the title")).id()
	if title := w.call("ann", "GET", "/contexts/"+id,
		nil).body["metadata"].(object)["title"]; title != strings.Repeat("é", 100) {
		w.Errorf("title = %v", title)
	}
	for _, wrong := range []any{object{}, object{"role": "user"}, object{"parts": []any{}}, "text", []any{}} {
		w.wants(w.try("ann", "POST", path, wrong), 422)
	}
	page := w.call("ann", "GET", path+"?limit=3&order=asc", nil)
	if n, total := len(items(page)), page.body["total_count"]; n != 3 || total != 4.0 || page.body["has_more"] != true {
		w.Errorf("page: %d of %v", n, total)
	}
	rest := items(w.call("ann", "GET", path+"?limit=3&order=asc&page_token="+page.body["next_page_token"].(string),
		nil))
	if len(rest) != 1 || rest[0]["id"] != third {
		w.Errorf("second page: %v", rest)
	}
	w.wants(w.try("ann", "DELETE", path, nil), 422, "from_id")
	w.wants(w.try("ann", "DELETE", path+"?from_id="+id, nil), 404)
	w.call("ann", "DELETE", path+"?from_id="+items(page)[1]["id"].(string), nil)
	if left := items(w.call("ann", "GET", path, nil)); len(left) != 1 {
		w.Errorf("%d items left, want 1", len(left))
	}
	w.wants(w.try("ann", "POST", path, message("next")), 201)
	full := object{}
	for n := range 16 {
		full[fmt.Sprint("k", n)] = "v"
	}
	crowded := w.call("ann", "POST", "/contexts", object{"metadata": full}).id()
	w.wants(w.try("ann", "POST", "/contexts/"+crowded+"/history", message("no room for a title")), 201)
	w.wants(w.try("ann", "PATCH", "/contexts/"+crowded+"/metadata", object{"metadata": object{"one": "more"}}), 422,
		"17")
}

func testVectorStores(w *world) {
	id := w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 2, "model_id": "m"}).id()
	item := func(document string, x, y float64) object {
		made := object{
			"document_id": document, "document_type": "external", "model_id": "m", "text": document,
			"embedding": []float64{x, y},
		}
		if document != "east" {
			made["metadata"] = object{"of " + document: document}
		}
		return made
	}
	w.wants(w.try("ann", "PUT", "/vector_stores/"+id, []any{
		item("east", 1, 0), item("north", 0, 1), item("west", -1, 0), item("nowhere", 0, 0), item("north", 0.1, 1),
		item("northeast", 5, 5),
	}), 200, `"num_documents":5`)
	found := items(w.call("ann", "POST", "/vector_stores/"+id+"/search",
		object{"query_vector": []float64{1, 0.9}, "limit": 3}))
	var order []string
	for _, f := range found {
		order = append(order, f["item"].(object)["document_id"].(string))
	}
	if got := strings.Join(order, " "); got != "northeast east north" {
		w.Errorf("nearest: %s", got)
	}
	for _, f := range found { // each item has its own metadata, or none
		item := f["item"].(object)
		want := object{}
		if document := item["document_id"]; document != "east" {
			want["of "+document.(string)] = document
		}
		if diff := cmp.Diff(want, item["metadata"]); diff != "" {
			w.Errorf("metadata of %v (-want +got):\n%s", item["document_id"], diff)
		}
	}
	if score := found[0]["score"].(float64); score < 0.998 || score > 1 {
		w.Errorf("score = %v", score)
	}
	w.wants(w.try("ann", "POST", "/vector_stores/"+id+"/search", object{"query_vector": []float64{1}}), 422,
		"2 dimensions")
	wrong := item("x", 1, 1)
	wrong["model_id"] = "other"
	w.wants(w.try("ann", "PUT", "/vector_stores/"+id, []any{item("y", 1, 1), wrong}), 422, "[1].model_id")
	noID := item("x", 1, 1)
	delete(noID, "document_type")
	w.wants(w.try("ann", "PUT", "/vector_stores/"+id, []any{noID}), 422, "document_id")
	w.wants(w.try("ann", "DELETE", "/vector_stores/"+id+"/documents/none", nil), 404)
	w.call("ann", "DELETE", "/vector_stores/"+id+"/documents/north", nil)
	if documents := items(w.call("ann", "GET", "/vector_stores/"+id+"/documents", nil)); len(documents) != 4 {
		w.Errorf("%d documents, want 4", len(documents))
	}
}

func testProviders(w *world) {
	location := w.agent.url + "/p"
	made := w.call("developer", "POST", "/providers", object{"location": location})
	w.wants(made, 201, `"state":"online"`, `"name":"Echo"`, `"type":"unmanaged"`, location)
	given := w.call("developer", "POST", "/providers",
		object{"location": "http://127.0.0.1:1/given", "agent_card": card("Given")})
	w.wants(given, 201, `"state":"offline"`, "Given")
	w.wants(w.try("developer", "POST", "/providers",
		object{"location": "http://127.0.0.1:1/wrong", "agent_card": object{"name": ""}}), 422, "agent_card")
	w.wants(w.try("developer", "POST", "/providers", object{"location": "http://169.254.169.254/"}), 400, "not allowed")
	w.wants(w.try("developer", "POST", "/providers", object{"location": "ghcr.io/org/agent:1"}), 422, "http(s) URL")
	for _, path := range []string{location, strings.ReplaceAll(strings.ReplaceAll(location, ":", "%3A"), "/", "%2F")} {
		if found := w.try("ann", "GET", "/providers/by-location/"+path, nil); found.id() != made.id() {
			w.Errorf("by location %s: %d %s", path, found.status, found.text)
		}
	}
	w.call("developer", "DELETE", "/providers/"+made.id(), nil)
	if again := w.call("developer", "POST", "/providers", object{"location": location}); again.id() != made.id() {
		w.Error("the id of the same agent differs")
	}
	w.wants(w.try("developer", "PUT", "/providers/"+made.id()+"/variables",
		object{"variables": object{"A": "1", "B": "2"}}), 201)
	w.wants(w.try("developer", "PUT", "/providers/"+made.id()+"/variables", object{"variables": object{"A": nil}}), 201)
	w.wants(w.try("developer", "GET", "/providers/"+made.id()+"/variables", nil), 200, `{"variables":{"B":"2"}}`)
	if own := items(w.call("admin", "GET", "/providers?user_owned=true", nil)); len(own) != 0 {
		w.Errorf("the admin owns %d providers", len(own))
	}
	if found := items(w.call("admin", "GET", "/providers?user_owned=false&origin="+location, nil)); len(found) != 1 {
		w.Errorf("found %d providers of an origin, want 1", len(found))
	}
}

func testModels(w *world) {
	made := w.call("admin", "POST", "/model_providers",
		object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "model-key"})
	if strings.Contains(made.text, "model-key") {
		w.Errorf("the key is returned: %s", made.text)
	}
	w.wants(w.try("admin", "POST", "/model_providers",
		object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "k"}), 409)
	w.wants(w.try("admin", "POST", "/model_providers",
		object{"type": "watsonx", "base_url": w.agent.url, "api_key": "k"}), 422, "watsonx")
	w.wants(w.try("ann", "POST", "/model_providers/match",
		object{"capability": "llm", "suggested_models": []any{"gpt-4"}}), 200, `"model_id":"openai:gpt-4o"`)
	w.wants(w.try("ann", "POST", "/model_providers/match",
		object{"capability": "llm", "suggested_models": []any{"claude"}}), 200, `"items":[]`)
	w.wants(w.try("ann", "POST", "/model_providers/match",
		object{"capability": "llm", "suggested_models": []any{"claude"}, "score_cutoff": 0}), 200, `"score":0`)
	w.wants(w.try("ann", "POST", "/model_providers/match", object{"capability": "embedding"}), 200,
		`"openai:text-embedding-3","score":1`)
	w.wants(w.try("admin", "PUT", "/configurations/system", object{"default_llm_model": "openai:none"}),
		404, "default_llm_model")
	w.wants(w.try("ann", "PUT", "/configurations/system", object{}), 403)
	w.wants(w.try("admin", "PUT", "/configurations/system", object{}, "If-Match", `"99"`), 412)
	w.call("admin", "DELETE", "/model_providers/"+made.id(), nil)
}

func testConnectors(w *world) {
	w.wants(w.try("ann", "GET", "/connectors/presets", nil), 200, "https://mcp.example.com", "Example")
	made := w.call("ann", "POST", "/connectors", object{"url": "https://mcp.example.com"})
	w.wants(made, 201, `"state":"created"`, "Example")
	if strings.Contains(made.text, "preset-secret") {
		w.Errorf("the secret is returned: %s", made.text)
	}
	w.wants(w.try("ann", "POST", "/connectors", object{"url": "https://mcp.example.com"}), 409)
	plain := w.call("bob", "POST", "/connectors", object{"url": "https://mcp.example.com", "match_preset": false})
	if strings.Contains(plain.text, "Example") {
		w.Errorf("match_preset: false used the preset: %s", plain.text)
	}
	w.wants(w.try("ann", "POST", "/connectors", object{"url": "ftp://x"}), 422, "url")
	w.wants(w.try("ann", "POST", "/connectors", object{"url": "https://x", "client_secret": "s"}), 422, "client_id")
	w.wants(w.try("ann", "POST", "/connectors/"+made.id()+"/disconnect", nil), 409)
}

func testUsers(w *world) {
	w.wants(w.try("ann", "GET", "/user", nil), 200, "ann@example.com", `"role":"user"`)
	found := items(w.call("admin", "GET", "/users?email=ANN@", nil))
	if len(found) != 1 {
		w.Fatalf("found %d users", len(found))
	}
	w.call("admin", "PATCH", "/users/"+found[0]["id"].(string), object{"role": "admin"})
	w.wants(w.try("ann", "GET", "/users", nil), 403) // the token's role is the limit
	w.call("admin", "PATCH", "/users/"+found[0]["id"].(string), object{"role": "user"})
	many := object{}
	for n := range 101 {
		many[fmt.Sprint("v", n)] = "x"
	}
	w.wants(w.try("ann", "PUT", "/variables", object{"variables": many}), 422, "100")
	delete(many, "v0")
	w.wants(w.try("ann", "PUT", "/variables", object{"variables": many}), 201)
	w.wants(w.try("ann", "PUT", "/variables", object{"variables": object{"v0": "x"}}), 422, "101")
	w.wants(w.try("ann", "GET", "/variables", nil), 200, `"v1":"x"`)
}

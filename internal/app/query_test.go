package app_test

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestQueries tests that every query parameter has its effect or is refused.
func TestQueries(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		for name, test := range map[string]func(w *world){
			"unknown, repeated and malformed parameters are refused": testUnknownParameters,
			"empty parameters are refused":                           testEmptyParameters,
			"If-Match is checked or refused":                         testIfMatch,
			"patterns, cursors and streams":                          testFeedQueries,
			"files by name and by size, page by page":                testFileOrder,
			"feedback after a cursor":                                testFeedbackCursor,
			"context_id limits every operation":                      testContextLimit,
		} {
			t.Run(name, func(t *testing.T) {
				w.T = t
				test(w)
			})
			w.T = t
		}
	})
}

func testUnknownParameters(w *world) {
	id := w.call("ann", "POST", "/contexts", object{}).id()
	for _, test := range []struct{ as, method, path, text string }{
		{
			"ann", "GET", "/contexts?order_bye=created_at",
			"query.order_bye: unknown parameter; this operation takes limit, page_token",
		},
		{"ann", "GET", "/contexts/" + id + "?limit=1", "query.limit: unknown parameter; this operation takes none"},
		{"ann", "GET", "/contexts?limit=1&limit=2", "query.limit: given more than once"},
		{"ann", "GET", "/contexts?limit=1;order=asc", "semicolon"},
		{"ann", "GET", "/contexts?order=%zz", "query"},
		{"ann", "GET", "/contexts?after_cursor=" + id, "query.after_cursor"},
		{"ann", "GET", "/contexts?order_by=filename", "order_by"},
		{"ann", "GET", "/contexts/" + id + "/history?order_by=updated_at", "order_by"},
		{"ann", "GET", "/files?order_by=content_type", "order_by"},
		{"ann", "POST", "/contexts?dry_run=true", "query.dry_run"},
		{"ann", "DELETE", "/contexts/" + id + "?force=true", "query.force"},
		{"ann", "GET", "/events?from=1", "query.from"},
		{
			"admin", "GET", "/webhooks/events?type=provider.*",
			"query.type: unknown parameter; this operation takes types",
		},
		{"ann", "GET", "/user_feedback?page_token=" + id + "&after_cursor=" + id, "not both"},
	} {
		w.wants(w.try(test.as, test.method, test.path, nil), 422, test.text)
	}
	connector := w.call("ann", "POST", "/connectors", object{"url": w.agent.url + "/mcp"}).id()
	for _, body := range []any{object{"a": 1}, []any{1}, "text", strings.Repeat(" ", 100)} {
		for _, method := range []string{"GET", "DELETE"} {
			w.wants(w.try("ann", method, "/contexts/"+id, body), 422, "takes no request body")
		}
		w.wants(w.try("ann", "POST", "/connectors/"+connector+"/disconnect", body), 422, "takes no request body")
	}
	w.wants(w.try("ann", "GET", "/contexts/"+id, object{}), 200)
	for _, c := range w.calls() {
		w.wants(w.try("admin", c.method, c.nowhere()+"?nonsense=1", nil), 422, "query.nonsense: unknown parameter")
	}
	w.wants(w.try("ann", "POST", "/connectors/"+connector+"/connect", object{"callback": "http://x"}), 422,
		"body.callback")
	w.wants(w.try("ann", "GET", "/events?from=1", nil, "Accept", "text/event-stream"), 422, "query.from")
	w.wants(w.try("", "GET", "/contexts?nonsense=1", nil), 401)
	w.wants(w.try("ann", "GET", "/contexts/"+id, nil), 200)
}

// nowhere returns the path of an operation on resources that do not exist.
func (c *call) nowhere() string {
	path := c.path
	for _, p := range c.parameters {
		path = strings.ReplaceAll(path, "{"+p.Name+"}", "00000000-0000-4000-8000-000000000000")
	}
	return path
}

// testEmptyParameters tests that no operation treats an empty filter as "everything".
func testEmptyParameters(w *world) {
	parameters := 0
	for _, c := range w.calls() {
		for _, p := range c.parameters {
			if p.In != "query" {
				continue
			}
			parameters++
			for _, value := range []string{"", "%20"} {
				w.wants(w.try("admin", c.method, c.nowhere()+"?"+p.Name+"="+value, nil), 422,
					"query."+p.Name+": must not be empty")
			}
		}
	}
	if parameters < 50 {
		w.Errorf("only %d parameters were tested", parameters)
	}
	for _, body := range []object{
		{"event": ""},
		{"resource": ""},
		{"events": []any{}},
		{"events": []any{""}},
		{"until": "0001-01-01T00:00:00Z"},
	} {
		body["endpoint"] = "receiver"
		w.wants(w.try("admin", "POST", "/webhooks/replays", body), 422)
	}
	if got := items(w.call("admin", "GET", "/webhooks/replays", nil)); len(got) > 0 {
		w.Errorf("a replay was started: %v", got)
	}
}

// testIfMatch tests that a request for one version never affects another, even in
// operations that do not compare versions.
func testIfMatch(w *world) {
	checked := 0
	for _, c := range w.calls() {
		checks := slices.ContainsFunc(c.parameters,
			func(p parameter) bool { return p.In == "header" && p.Name == "If-Match" })
		if checks {
			checked++
			continue
		}
		w.wants(w.try("admin", c.method, c.nowhere(), nil, "If-Match", `"1"`), 422, "header.If-Match",
			"does not compare versions")
	}
	if checked < 15 {
		w.Errorf("only %d operations check If-Match", checked)
	}
	w.wants(w.try("ann", "GET", "/events", nil, "If-Match", `"1"`, "Accept", "text/event-stream"), 422,
		"header.If-Match")
	id := w.call("ann", "POST", "/contexts", object{}).id()
	w.wants(w.try("ann", "POST", "/contexts/"+id+"/history", message("hello"), "If-Match", `"7"`), 422,
		"header.If-Match")
	if got := items(w.call("ann", "GET", "/contexts/"+id+"/history", nil)); len(got) > 0 {
		w.Errorf("an item was appended: %v", got)
	}
	for _, text := range []string{"", "1", `"1", "2"`, `"1`, `1"`, `"1" "2"`} {
		w.wants(w.try("ann", "PUT", "/contexts/"+id, object{}, "If-Match", text), 422, "header.If-Match",
			`expected * or a single ETag`)
	}
	w.wants(w.try("ann", "PUT", "/contexts/"+id, object{}, "If-Match", `W/"1"`), 412)
	file := w.upload("ann", "").id()
	w.wants(w.try("ann", "GET", "/files/"+file+"/content", nil, "If-Match", `"other"`), 412)
	w.wants(w.try("ann", "GET", "/files/"+file+"/content", nil, "If-Match", `"`+file+`"`), 200, "# Notes")
}

// testFeedQueries tests that the feed, streams and lists refuse the same invalid queries.
func testFeedQueries(w *world) {
	w.call("ann", "POST", "/contexts", object{})
	w.mark()
	for _, types := range []string{",", "context.created,", ",context.*", "context.*,%20,user.*"} {
		w.wants(w.try("ann", "GET", "/events?types="+types, nil), 422, "types", "lists an empty pattern")
		w.wants(w.try("ann", "GET", "/events?types="+types, nil, "Accept", "text/event-stream"), 422, "types",
			"lists an empty pattern")
		w.wants(w.try("admin", "GET", "/webhooks/events?types="+types, nil), 422, "types", "lists an empty pattern")
		w.wants(w.try("admin", "GET", "/webhooks/attempts?types="+types, nil), 422, "types", "lists an empty pattern")
	}
	for _, parameter := range []string{"limit=5", "wait=1s"} {
		w.wants(w.try("ann", "GET", "/events?"+parameter, nil, "Accept", "text/event-stream"), 422,
			"omit it for an event stream")
	}
	w.wants(w.try("ann", "GET", "/events?after=1000000", nil), 410, "after", "the log ends at")
	w.wants(w.try("admin", "GET", "/webhooks/events?before=1000000", nil), 422, "before", "the log ends at")
	w.wants(w.try("admin", "GET", "/webhooks/events?before=0", nil), 422, "before")
	w.wants(w.try("admin", "GET", "/webhooks/attempts?before=1000000000000", nil), 422, "before",
		"the history ends before")
	w.wants(w.try("admin", "GET", "/webhooks/parked?after=1000000", nil), 422, "after", "the log ends at")
	newest := items(w.call("admin", "GET", "/webhooks/events?limit=1", nil))[0]["sequence"].(float64)
	before := fmt.Sprintf("/webhooks/events?before=%.0f", newest+1)
	if got := items(w.call("admin", "GET", before, nil))[0]["sequence"]; got != newest {
		w.Errorf("before the end: %v, want %v", got, newest)
	}
	store := w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
	context := w.call("ann", "POST", "/contexts", object{}).id()
	for _, path := range []string{
		"/contexts?page_token=" + store, "/vector_stores?page_token=" + context,
		"/contexts/" + context + "/history?page_token=" + context,
	} {
		w.wants(w.try("ann", "GET", path, nil), 422, "page_token")
	}
}

// testFileOrder reads lists with many equal sort keys, page by page, while files are
// added and removed before and after the current page.
func testFileOrder(w *world) {
	type file struct {
		id, name string
		size     int
	}
	upload := func(name string, size int) file {
		a := w.tryUpload("ann", "", name, "text/plain", strings.NewReader(strings.Repeat("x", size)))
		w.wants(a, 201)
		return file{a.id(), name, size}
	}
	files := make(map[string]file)
	for n := range 12 {
		f := upload(fmt.Sprintf("name%d", n%3), n%4)
		files[f.id] = f
	}
	for column, compare := range map[string]func(a, b file) int{
		"filename":        func(a, b file) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.id, b.id)) },
		"file_size_bytes": func(a, b file) int { return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.id, b.id)) },
	} {
		for _, order := range []string{"asc", "desc"} {
			var got []file
			query := url.Values{"order_by": {column}, "order": {order}, "limit": {"5"}}
			for {
				page := w.call("ann", "GET", "/files?"+query.Encode(), nil)
				for _, item := range items(page) {
					if f, ok := files[item["id"].(string)]; ok {
						got = append(got, f)
					}
				}
				if page.body["has_more"] != true {
					break
				}
				query.Set("page_token", page.body["next_page_token"].(string))
				for _, name := range []string{"name0", "name1", "name2"} {
					w.call("ann", "DELETE", "/files/"+upload(name, len(got)%4).id, nil)
				}
			}
			want := make([]file, 0, len(files))
			for _, f := range files {
				want = append(want, f)
			}
			slices.SortFunc(want, compare)
			if order == "desc" {
				slices.Reverse(want)
			}
			if !slices.Equal(want, got) {
				w.Errorf("by %s, %s:\n got %v\nwant %v", column, order, got, want)
			}
		}
	}
}

func testFeedbackCursor(w *world) {
	provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url + "/cursor"}).id()
	context := w.call("bob", "POST", "/contexts", object{}).id()
	made := make(map[string]bool)
	for range 5 {
		made[w.call("bob", "POST", "/user_feedback", opinion(provider, context)).id()] = true
	}
	query, seen := "/user_feedback?limit=2&provider_id="+provider, 0
	for next := query; next != ""; {
		page := w.call("bob", "GET", next, nil)
		for _, item := range items(page) {
			if !made[item["id"].(string)] {
				w.Errorf("item on two pages: %v", item)
			}
			delete(made, item["id"].(string))
			seen++
		}
		next = ""
		if page.body["has_more"] == true {
			next = query + "&after_cursor=" + page.body["next_page_token"].(string)
		}
	}
	if seen != 5 {
		w.Errorf("saw %d items, want 5", seen)
	}
}

// testContextLimit tries all operations on a file and a vector store, with their own
// context and with others.
func testContextLimit(w *world) {
	context, other := w.call("ann", "POST", "/contexts", object{}).id(),
		w.call("ann", "POST", "/contexts", object{}).id()
	foreign := w.call("bob", "POST", "/contexts", object{}).id()
	file := w.upload("ann", "?context_id="+context).id()
	store := w.call("ann", "POST", "/vector_stores?context_id="+context,
		object{"name": "s", "dimension": 1, "model_id": "m"}).id()
	item := object{"document_id": "d", "document_type": "external", "model_id": "m", "text": "t", "embedding": []int{1}}
	steps := []struct {
		method, path string
		body         any
		status       int
	}{
		{"GET", "/files/" + file, nil, 200},
		{"GET", "/files/" + file + "/content", nil, 200},
		{"POST", "/files/" + file + "/extraction", nil, 201},
		{"GET", "/files/" + file + "/extraction", nil, 200},
		{"GET", "/files/" + file + "/text_content", nil, 200},
		{"DELETE", "/files/" + file + "/extraction", nil, 204},
		{"DELETE", "/files/" + file, nil, 204},
		{"GET", "/vector_stores/" + store, nil, 200},
		{"PUT", "/vector_stores/" + store, []any{item}, 200},
		{"POST", "/vector_stores/" + store + "/search", object{"query_vector": []int{1}}, 200},
		{"GET", "/vector_stores/" + store + "/documents", nil, 200},
		{"DELETE", "/vector_stores/" + store + "/documents/d", nil, 204},
		{"DELETE", "/vector_stores/" + store, nil, 204},
	}
	for _, step := range steps {
		for _, not := range []string{other, foreign, file} {
			w.wants(w.try("ann", step.method, step.path+"?context_id="+not, step.body), 404)
		}
		w.wants(w.try("ann", step.method, step.path+"?context_id=no-id", step.body), 422, "query.context_id")
		w.wants(w.try("ann", step.method, step.path+"?context_id="+strings.ToUpper(context), step.body), step.status)
	}
	for _, list := range []string{"/files", "/vector_stores"} {
		w.wants(w.try("ann", "GET", list+"?context_id="+foreign, nil), 404, "context_id")
		if n := len(items(w.call("ann", "GET", list+"?context_id="+other, nil))); n != 0 {
			w.Errorf("%s of an empty context: %d", list, n)
		}
	}
}

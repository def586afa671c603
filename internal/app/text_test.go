package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// texts are values of parameters, and whether every parameter refuses them; for the
// others that depends on the parameter.
var texts = []struct {
	raw     string
	refused bool
}{
	{"\xff", true},
	{"a\x00b", true},
	{"\xed\xa0\x80", true},
	{"\xc0\x80", true},
	{"caf\xe9", true},
	{"%00", false},
	{"%ff", false},
	{`\' OR 1=1--`, false},
	{"😀", false},
	{`\u0000`, false},
	{"1e999", false},
	{"99999999999999999999", false},
	{"-9223372036854775808", false},
	{"0001-01-01T00:00:00Z", false},
	{"9999-12-31T23:59:59.999999999Z", false},
	{"a%' ESCAPE", false},
	{strings.Repeat("é", 2000), false},
}

// spellings are other ways to write a UUID, and whether they are refused.
var spellings = []struct {
	name    string
	of      func(id string) string
	refused bool
}{
	{"upper case", strings.ToUpper, false},
	{"URN", func(id string) string { return "urn:uuid:" + id }, false},
	{"braces", func(id string) string { return "{" + id + "}" }, false},
	{"no dashes", func(id string) string { return strings.ReplaceAll(id, "-", "") }, false},
	{"parentheses", func(id string) string { return "(" + id + ")" }, true},
	{"too short", func(id string) string { return id[:35] }, true},
	{"too long", func(id string) string { return id + "0" }, true},
}

// TestTextOfParameters puts invalid and unusual text into each parameter of each
// operation. The server never fails, and the answers on both databases are the same.
func TestTextOfParameters(t *testing.T) {
	testtool.InAll(t)
	compareDatabases(t, func(o *owned, answers map[string]string) {
		for _, operation := range o.calls() {
			for _, p := range operation.parameters {
				if p.Name == "wait" {
					continue // not a text parameter, and slow
				}
				for _, text := range texts {
					o.checkParameter(operation, p, fmt.Sprintf("%.20q", text.raw), text.raw, text.refused, answers)
				}
				if p.Schema.Format != "uuid" {
					continue
				}
				for _, spelling := range spellings {
					o.checkParameter(operation, p, spelling.name, spelling.of(o.idFor(operation, p)),
						spelling.refused, answers)
				}
			}
		}
		for _, text := range texts { // the OpenAPI document describes the stream with the feed
			for _, header := range []string{"Last-Event-ID", "Authorization", "Accept"} {
				a := o.request("admin", "GET", "/api/v1/events?types="+url.QueryEscape(text.raw), nil,
					map[string]string{"Accept": "text/event-stream", "Last-Event-ID": "99", header: clean(text.raw)})
				o.record(answers, fmt.Sprintf("stream, %s %.20q", header, text.raw), a)
			}
		}
	})
}

// compareDatabases runs a test on both databases, and compares the recorded answers.
func compareDatabases(t *testing.T, test func(o *owned, answers map[string]string)) {
	t.Parallel()
	all := make(map[string]map[string]string)
	for name, settings := range map[string]map[string]any{
		"SQLite":     {},
		"PostgreSQL": {"database_url": testdb.Postgres(t)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings)
			all[name] = make(map[string]string)
			test(&owned{world: w, who: "admin", developer: "admin", ids: map[string]string{}}, all[name])
		})
	}
	if diff := cmp.Diff(all["SQLite"], all["PostgreSQL"]); diff != "" {
		t.Errorf("the databases differ (-SQLite +PostgreSQL):\n%s", diff)
	}
	t.Logf("%d requests to each", len(all["SQLite"]))
}

// record records a status, which must not be a server error.
func (o *owned) record(answers map[string]string, what string, a answer) {
	o.Helper()
	if a.status >= 500 && a.status != http.StatusNotImplemented && a.status != http.StatusBadGateway &&
		a.status != http.StatusGatewayTimeout {
		o.Errorf("%s: %d %s", what, a.status, a.text)
	}
	if strings.HasPrefix(what, "cancelReplay") && a.status == http.StatusConflict {
		a.status = http.StatusOK // the replay had already ended
	}
	answers[what] = fmt.Sprint(a.status)
}

// clean returns the part of a header value that Go's client accepts.
func clean(value string) string {
	return strings.Map(func(r rune) rune {
		if r == 0 {
			return -1
		}
		return r
	}, value)
}

// checkParameter makes a request with a value in one parameter; the others are valid.
func (o *owned) checkParameter(
	operation call, p parameter, name, value string, refused bool, answers map[string]string,
) {
	o.Helper()
	path, query, header := "/api/v1"+operation.path, url.Values{}, map[string]string{}
	for _, other := range operation.parameters {
		used := value
		if other.Name != p.Name {
			used = o.idFor(operation, other)
		}
		switch {
		case other.In == "path":
			path = strings.ReplaceAll(path, "{"+other.Name+"}", strings.ReplaceAll(url.QueryEscape(used), "+", "%20"))
		case other.Name != p.Name && other.Name != "from_id": // left out
		case other.In == "query":
			query.Set(other.Name, used)
		case other.In == "header":
			if strings.ContainsRune(value, 0) {
				return // not a valid HTTP header
			}
			header[other.Name] = used
		}
	}
	var a answer
	switch body, ok := samples(o)[operation.id]; {
	case operation.multipart:
		a = o.tryUpload(o.who, "?"+query.Encode(), "a.txt", "text/plain", strings.NewReader("text"))
	case ok:
		text, err := json.Marshal(body)
		if err != nil {
			o.Fatal(err)
		}
		header["Content-Type"] = "application/json"
		a = o.request(o.who, operation.method, path+"?"+query.Encode(), strings.NewReader(string(text)), header)
	default:
		a = o.request(o.who, operation.method, path+"?"+query.Encode(), nil, header)
	}
	what := fmt.Sprintf("%s, %s %s: %s", operation.id, p.In, p.Name, name)
	o.record(answers, what, a)
	if place := p.In + "." + p.Name; refused &&
		(a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text, place)) {
		o.Errorf("%s: %d %s; want 422 and %q", what, a.status, a.text, place)
	}
	if a.status < 400 && operation.method != http.MethodGet {
		clear(o.ids) // some may have been deleted
	}
}

// idFor returns an id for a parameter that takes one.
func (o *owned) idFor(operation call, p parameter) string {
	o.Helper()
	for _, s := range operation.slots {
		if s.in == p.In && s.name == p.Name {
			id := o.id(s.kind)
			if s.kind == "location" {
				id, _ = url.PathUnescape(id)
			}
			return id
		}
	}
	return ""
}

// TestTextOfUploads uploads files with unusual part headers.
func TestTextOfUploads(t *testing.T) {
	const plain = "Content-Type: text/plain\r\n"
	disposition := func(filename string) string {
		return `Content-Disposition: form-data; name="file"; ` + filename + "\r\n"
	}
	tests := []struct {
		name, header string
		status       int
		file         string // the file's name, if it is accepted
	}{
		{"plain", disposition(`filename="a b.txt"`) + plain, 201, "a b.txt"},
		{"UTF-8", disposition(`filename="Grüße.txt"`) + plain, 201, "Grüße.txt"},
		{"RFC 5987", disposition(`filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt`) + plain, 201, "Grüße.txt"},
		{"a path", disposition(`filename="../../etc/passwd"`) + plain, 201, "passwd"},
		{"a backslash that is not an escape", disposition(`filename="C_\\u0000.txt"`) + plain, 201, `C_\u0000.txt`},
		{"zero byte, RFC 5987", disposition(`filename*=UTF-8''a%00b`) + plain, 422, ""},
		{"invalid UTF-8, RFC 5987", disposition(`filename*=UTF-8''%ff`) + plain, 422, ""},
		{"a surrogate", disposition(`filename*=UTF-8''%ED%A0%80`) + plain, 422, ""},
		{"Latin-1", disposition("filename=\"caf\xe9.txt\"") + plain, 422, ""},
		{"invalid UTF-8 in the content type", disposition(`filename="a"`) + "Content-Type: text/\xff\r\n", 422, ""},
		{"zero byte in the content type", disposition(`filename="a"`) + "Content-Type: text/\x00\r\n", 422, ""},
		{"zero byte", disposition("filename=\"a\x00b\"") + plain, 422, ""},
		{"no name", disposition(`filename`) + plain, 422, ""},
	}
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		for _, test := range tests {
			body := "--x\r\n" + test.header + "\r\ntext\r\n--x--\r\n"
			a := w.request("ann", "POST", "/api/v1/files", strings.NewReader(body),
				map[string]string{"Content-Type": "multipart/form-data; boundary=x"})
			if a.status != test.status || test.status == 201 && a.body["filename"] != test.file || test.status == 422 &&
				!strings.Contains(a.text, `"location":"file"`) {
				t.Errorf("%s: %d %s; want %d and %q", test.name, a.status, a.text, test.status, test.file)
			}
		}
	})
}

// Valid text is returned unchanged wherever a user may write it.
func TestTextIsKeptUnchanged(t *testing.T) {
	const text = `C:\u0000 \ud800 ' " \ 世界 😀` + "\u0001\u007f\ufffd"
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		context := w.call("ann", "POST", "/contexts", object{"metadata": object{text: text}})
		id := context.id()
		w.call("ann", "POST", "/contexts/"+id+"/history", message(text))
		w.call("ann", "PUT", "/variables", object{"variables": object{text: text}})
		provider := w.call("admin", "POST", "/providers", object{
			"location": w.agent.url, "origin": text, "agent_card": card(text),
		}).id()
		opinion := opinion(provider, id)
		opinion["message"], opinion["comment"], opinion["comment_tags"] = text, text, []string{text}
		w.call("ann", "POST", "/user_feedback", opinion)
		store := w.call("ann", "POST", "/vector_stores", object{"name": text, "dimension": 1, "model_id": text}).id()
		w.call("ann", "PUT", "/vector_stores/"+store, []any{object{
			"document_id": text, "document_type": "external", "model_id": text, "text": text, "embedding": []int{1},
			"metadata": object{text: text},
		}})
		for path, want := range map[string]int{
			"/contexts": 3, "/contexts/" + id + "/history": 1, "/variables": 2, "/providers": 2, "/user_feedback": 4,
			"/vector_stores": 2, "/vector_stores/" + store + "/documents": 1,
			"/providers?origin=" + url.QueryEscape(text): 2,
		} {
			var answer any
			if err := json.Unmarshal([]byte(w.call("ann", "GET", path, nil).text), &answer); err != nil {
				t.Fatal(err)
			}
			if got := occurrences(answer, text); got != want {
				t.Errorf("%s contains the text in %d places, want %d: %v", path, got, want, answer)
			}
		}
		w.call("ann", "DELETE", "/vector_stores/"+store+"/documents/"+url.PathEscape(text), nil)
	})
}

// occurrences counts the strings in a JSON value that equal text, including names of
// members.
func occurrences(v any, text string) (n int) {
	switch v := v.(type) {
	case string:
		if v == text {
			return 1
		}
	case []any:
		for _, item := range v {
			n += occurrences(item, text)
		}
	case map[string]any:
		for name, item := range v {
			n += occurrences(name, text) + occurrences(item, text)
		}
	}
	return n
}

// Invalid text in the answer of an agent or model provider makes only that answer
// unusable.
func TestTextOfUserServers(t *testing.T) {
	values := []struct {
		raw    string
		usable bool
	}{
		{`"C:\\u0000"`, true},
		{`"\ud83d\ude00"`, true},
		{`1e999`, true},
		{`{"a":1,"a":2}`, true},
		{strings.Repeat("[", 50) + strings.Repeat("]", 50), true},
		{`"\u0000"`, false},
		{`{"\u0000":1}`, false},
		{`"\udead"`, false},
		{"\"\xff\"", false},
		{"\"\x00\"", false},
		{strings.Repeat("[", 9000) + strings.Repeat("]", 9000), false},
	}
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		for n, value := range values {
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				agent, _ := json.Marshal(card("a")) // cannot fail
				fmt.Fprintf(rw, `%[1]s,"x":%[2]s,"data":[{"id":"m","x":%[2]s}]}`,
					strings.TrimSuffix(string(agent), "}"), value.raw)
			}))
			t.Cleanup(server.Close)
			for path, body := range map[string]object{
				"/providers":       {"location": server.URL},
				"/model_providers": {"type": "openai", "base_url": server.URL, "api_key": "k"},
			} {
				a := w.try("admin", "POST", path, body)
				if want := map[bool]int{true: 201, false: 400}[value.usable]; a.status != want {
					t.Errorf("%s with %.30q: %d %s; want %d", path, value.raw, a.status, a.text, want)
				}
				if a.status == 201 {
					w.wants(w.try("admin", "GET", path+"/"+a.id(), nil), 200)
				}
			}
			if total := w.call("admin", "GET", "/providers", nil).body["total_count"]; total != float64(min(n+1, 5)) {
				t.Errorf("%v providers after %.30q", total, value.raw)
			}
		}
	})
}

// All spellings of a UUID name the same resource.
func TestSpellingsOfIDs(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		provider := w.call("admin", "POST", "/providers", object{"location": w.agent.url}).id()
		escaped := func(id string) string { return `\u00` + fmt.Sprintf("%02x", id[0]) + id[1:] } // in JSON
		for _, spelling := range spellings {
			if spelling.refused {
				continue
			}
			odd := spelling.of(provider)
			w.wants(w.try("ann", "GET", "/providers/"+url.PathEscape(odd), nil), 200, `"id":"`+provider+`"`)
			for _, sent := range []string{odd, escaped(odd)} {
				body := fmt.Sprintf(`{"provider_id" : "%s" ,"metadata":{"spelled":"%s"}}`, sent, sent)
				made := w.request("ann", "POST", "/api/v1/contexts", strings.NewReader(body),
					map[string]string{"Content-Type": "application/json"})
				w.wants(made, 201, `"provider_id":"`+provider+`"`, `"spelled":"`+odd+`"`)
				w.wants(w.try("ann", "GET", "/contexts?provider_id="+url.QueryEscape(odd), nil), 200, made.id())
				w.call("ann", "DELETE", "/contexts/"+spelling.of(made.id()), nil)
			}
		}
	})
}

// An endpoint's name is decoded exactly once.
func TestNamesOfEndpoints(t *testing.T) {
	const name = "127.0.0.1:1/a%20b%2541%2500/é" // contains the path of its URL
	w := newWorldWith(t, map[string]any{}, object{"url": "http://127.0.0.1:1/a%20b%2541%2500/%C3%A9"})
	var names []string
	for _, e := range w.call("admin", "GET", "/webhooks/endpoints", nil).body["items"].([]any) {
		names = append(names, fmt.Sprint(e.(object)["name"]))
	}
	path := "/webhooks/endpoints/" + url.PathEscape(strings.ReplaceAll(name, "é", "%C3%A9"))
	for _, a := range []answer{
		w.try("admin", "GET", path, nil), w.try("admin", "POST", path+"/pause", nil),
		w.try("admin", "POST", path+"/resume", nil),
	} {
		if a.status != 200 {
			t.Errorf("%d %s; there are %q", a.status, a.text, names)
		}
	}
	w.wants(w.try("admin", "GET", "/webhooks/endpoints/%2500", nil), 404)
}

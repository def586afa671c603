package app_test

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// Whatever the lists and maps of a body hold, and however many there are, the
// answer is a problem document of at most 64 KiB, and costs little.
func TestOversizedBodies(t *testing.T) {
	w := newWorld(t, map[string]any{})
	document := w.request("", "GET", "/api/v1/openapi.json", nil, nil).body
	schemas := document["components"].(object)["schemas"].(object)
	bodies := 0
	for path, item := range document["paths"].(object) {
		for method, op := range item.(object) {
			body, _ := op.(object)["requestBody"].(object)
			content, _ := body["content"].(object)
			media, ok := content["application/json"].(object)
			if !ok {
				continue
			}
			path := strings.NewReplacer("{id}", w.user("admin"), "{event}", "1", "{name}", "receiver").Replace(path)
			limit := 1 << 20
			if strings.Contains(path, "/vector_stores/") && method == "put" {
				limit = 16 << 20
			}
			for _, b := range oversized(schemas, media["schema"].(object), limit) {
				bodies++
				w.refuses(strings.ToUpper(method), path, b)
			}
		}
	}
	if bodies < 60 {
		t.Errorf("only %d bodies were sent", bodies)
	}
}

// refuses fails unless a body is refused shortly, in both senses.
func (w *world) refuses(method, path string, body []byte) {
	w.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a := w.request("admin", method, path, bytes.NewReader(body), map[string]string{"Content-Type": "application/json"})
	runtime.ReadMemStats(&after)
	name := fmt.Sprintf("%s %s %.60s", method, path, body)
	if a.status != http.StatusUnprocessableEntity || len(a.text) > 64<<10 {
		w.Errorf("%s: %d, %d bytes: %.300s", name, a.status, len(a.text), a.text)
	}
	// Once as it was read, and some for the names of members that are escaped.
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > uint64(len(body))+(24<<20) {
		w.Errorf("%s: %d bytes were allocated for a body of %d", name, allocated, len(body))
	}
}

// oversized returns bodies that are too large or wrong in each place where a
// schema has a list or a map, and everywhere in what has no schema.
func oversized(schemas, schema object, limit int) (bodies [][]byte) {
	var walk func(schema object, prefix, suffix string)
	walk = func(schema object, prefix, suffix string) {
		if ref, ok := schema["$ref"].(string); ok {
			walk(schemas[ref[strings.LastIndex(ref, "/")+1:]].(object), prefix, suffix)
			return
		}
		fill := func(open, element, end string) {
			room := limit - len(prefix) - len(suffix) - len(open) - len(end) - 1
			text := open + strings.Repeat(element+",", room/(len(element)+1)-1) + element + end
			bodies = append(bodies, []byte(prefix+text+suffix))
		}
		kinds := fmt.Sprint(schema["type"])
		if strings.Contains(kinds, "array") || schema["type"] == nil {
			for _, element := range []string{"{}", "0", `""`, "null", "[]"} {
				fill("[", element, "]")
			}
			depth := limit/2 - len(prefix) - len(suffix)
			bodies = append(bodies, []byte(prefix+strings.Repeat("[", depth)+strings.Repeat("]", depth)+suffix))
		}
		if strings.Contains(kinds, "array") {
			walk(schema["items"].(object), prefix+"[", "]"+suffix)
		}
		if schema["type"] == nil {
			fill("{", `"":0`, "}")
		}
		if strings.Contains(kinds, "object") {
			fill("{", `"\"<\u0001":0`, "}")
			fill("{", strconv.Quote(strings.Repeat("<", 50_000))+":0", "}")
		}
		properties, _ := schema["properties"].(object)
		for name, property := range properties {
			walk(property.(object), prefix+`{"`+name+`":`, "}"+suffix)
		}
	}
	walk(schema, "", "")
	return bodies
}

package app_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// Whatever lists and maps a body contains, and however large they are, the answer is a
// problem document of at most 64 KiB and uses little memory.
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
		t.Errorf("only %d bodies were tested", bodies)
	}
}

// refuses fails the test unless a body is refused with a short answer, using little memory.
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
	// The body itself, and some memory for escaped member names.
	allowed := uint64(len(body) + 24<<20)
	if testtool.Raced {
		allowed *= 2
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > allowed {
		w.Errorf("%s: allocated %d bytes for a body of %d", name, allocated, len(body))
	}
}

// oversized returns bodies with invalid or oversized lists and maps, wherever the schema
// allows one or has no type.
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

// A caller who makes too many requests gets 429 with Retry-After. Refused requests have no
// effect, and other callers are not affected.
func TestRequestRate(t *testing.T) {
	w := newWorld(t, map[string]any{"limits": object{"requests_per_second": 20, "burst": 10}})
	begun, made, refused := time.Now(), 0, 0
	for refused < 5 {
		a := w.try("ann", "POST", "/contexts", object{})
		if policy := a.header.Get("RateLimit-Policy"); policy != `"requests";q=10;w=1` {
			t.Fatalf("RateLimit-Policy = %s", policy)
		}
		if left := a.header.Get("RateLimit"); !regexp.MustCompile(`^"requests";r=\d;t=1$`).MatchString(left) {
			t.Errorf("RateLimit = %s", left)
		}
		switch a.status {
		case http.StatusCreated:
			made++
		case http.StatusTooManyRequests:
			refused++
			w.wants(a, http.StatusTooManyRequests, "one caller is limited to 20 requests per second",
				"limits.requests_per_second")
			if after := a.header.Get("Retry-After"); after != "1" {
				t.Errorf("Retry-After = %s", after)
			}
		default:
			t.Fatalf("%d %s", a.status, a.text)
		}
	}
	if allowed := 10 + int(20*time.Since(begun).Seconds()) + 1; made < 10 || made > allowed {
		t.Errorf("%d contexts were created, want at most %d", made, allowed)
	}
	w.wants(w.try("bob", "GET", "/users/me", nil), http.StatusOK)
	var list answer
	for list = w.try("ann", "GET", "/contexts", nil); list.status == http.StatusTooManyRequests; list = w.try("ann",
		"GET", "/contexts", nil) {
		<-time.After(time.Millisecond)
	}
	if total := list.body["total_count"]; total != float64(made) {
		t.Errorf("%v contexts exist, but %d were created", total, made)
	}
	for status := 0; status != http.StatusTooManyRequests; { // streams are limited, too
		response := w.openStream("ann", "")
		status = response.StatusCode
		response.Body.Close()
	}
}

// Requests with invalid credentials are limited by address. This does not affect requests
// with valid ones.
func TestRateOfStrangers(t *testing.T) {
	w := newWorld(t, map[string]any{})
	counts := make(map[int]int)
	for counts[http.StatusTooManyRequests] < 10 {
		a := w.try("nobody", "POST", "/contexts", object{})
		counts[a.status]++
		if a.status == http.StatusTooManyRequests {
			w.wants(a, a.status, "one address")
			if a.header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After = %s", a.header.Get("Retry-After"))
			}
		}
	}
	if counts[http.StatusUnauthorized] < 100 || len(counts) != 2 {
		t.Errorf("answers by status: %v", counts)
	}
	w.wants(w.try("ann", "GET", "/users/me", nil), http.StatusOK)
}

// Large bodies wait for memory, per user and in total. Small ones do not.
func TestLargeBodiesTakeTurns(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	w := newWorld(t, map[string]any{"limits": object{"user_body_memory": "16MiB", "body_memory": "32MiB"}})
	for _, as := range []string{"ann", "bob", "newcomer"} {
		w.user(as)
	}
	large := object{"metadata": object{"a": strings.Repeat("x", 100<<10)}}
	annDone := w.holdBody("ann", 16<<20)
	w.wants(w.try("ann", "POST", "/contexts", object{}), http.StatusCreated)
	a := w.try("ann", "POST", "/contexts", large)
	w.wants(a, http.StatusServiceUnavailable, "each user is limited to 16777216 bytes of large request bodies at a time")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.wants(w.try("bob", "POST", "/contexts", large), http.StatusUnprocessableEntity, "metadata.a")
	w.untilTaken("body_memory", 16<<20)
	bobDone := w.holdBody("bob", -1) // without Content-Length, so 16 MiB are reserved
	w.wants(w.try("newcomer", "POST", "/contexts", large), http.StatusServiceUnavailable,
		"the server is limited to 33554432 bytes")
	annDone()
	bobDone()
	w.wants(w.try("newcomer", "POST", "/contexts", large), http.StatusUnprocessableEntity, "metadata.a")
}

// holdBody starts sending a body, and returns once the server is reading it. done aborts
// the request, and returns once the server has noticed.
func (w *world) holdBody(as string, size int64) (done func()) {
	w.Helper()
	id := w.call(as, "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
	body, more := io.Pipe()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPut, w.url+"/api/v1/vector_stores/"+id, body)
	if err != nil {
		w.Fatal(err)
	}
	r.ContentLength = size
	r.Header.Set("Authorization", "Bearer "+as)
	r.Header.Set("Content-Type", "application/json")
	held, ended := w.taken("body_memory"), make(chan struct{})
	go func() {
		defer close(ended)
		if response, err := http.DefaultClient.Do(r); err == nil {
			response.Body.Close()
		}
	}()
	if _, err := more.Write(bytes.Repeat([]byte(" "), 100<<10)); err != nil {
		w.Fatal(err)
	}
	w.untilTaken("body_memory", held+16<<20)
	return func() {
		held := w.taken("body_memory")
		more.CloseWithError(io.ErrUnexpectedEOF)
		<-ended
		w.untilTaken("body_memory", held-16<<20)
	}
}

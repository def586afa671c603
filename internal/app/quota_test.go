package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// One user owns no more than the quota of each type, even with concurrent requests.
// The error names the setting, and deletion makes room.
func TestQuotas(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		const allowed = 3
		settings["limits"] = object{
			"contexts": allowed, "files": allowed, "vector_stores": allowed, "connectors": allowed,
			"user_feedback": allowed,
			"providers":     allowed, "provider_builds": allowed, "model_providers": allowed,
		}
		w := newWorld(t, settings)
		provider := w.call("admin", "POST", "/providers", object{"location": w.agent.url + "/agent"}).id()
		uuid := "550e8400-e29b-41d4-a716-446655440000"
		for _, test := range []struct {
			as, path, setting string
			body              func(n int) any
		}{
			{"ann", "/contexts", "limits.contexts", func(int) any { return object{} }},
			{"ann", "/files", "limits.files", nil},
			{
				"ann", "/vector_stores", "limits.vector_stores",
				func(int) any { return object{"name": "s", "dimension": 1, "model_id": "m"} },
			},
			{
				"ann", "/connectors", "limits.connectors",
				func(n int) any { return object{"url": fmt.Sprintf("https://%d.example.com", n)} },
			},
			{"ann", "/user_feedback", "limits.user_feedback", func(int) any {
				return object{
					"provider_id": provider, "task_id": uuid, "context_id": w.first("ann", "/contexts"),
					"rating": 1, "message": "m",
				}
			}},
			{"developer", "/providers", "limits.providers", func(n int) any {
				return object{"location": fmt.Sprintf("%s/%d", w.agent.url, n), "agent_card": card("Given")}
			}},
			{
				"developer", "/provider_builds", "limits.provider_builds",
				func(int) any { return object{"location": "https://github.com/org/repo"} },
			},
			{"admin", "/model_providers", "limits.model_providers", func(n int) any {
				return object{"type": "openai", "base_url": fmt.Sprintf("%s/v1?n=%d", w.agent.url, n), "api_key": "k"}
			}},
		} {
			make := func(n int) answer {
				if test.body == nil {
					return w.tryUpload(test.as, "", "f", "text/plain", strings.NewReader("x"))
				}
				return w.try(test.as, "POST", test.path, test.body(n))
			}
			if made := w.atOnce(12, make, http.StatusConflict, test.setting); made != allowed {
				t.Errorf("%s: %d were created, want %d", test.path, made, allowed)
			}
			w.call(test.as, "DELETE", test.path+"/"+w.first(test.as, test.path), nil)
			w.wants(make(100), http.StatusCreated)
			w.wants(make(101), http.StatusConflict, test.setting)
		}
		w.wants(w.try("bob", "POST", "/contexts", object{}), http.StatusCreated) // each user has a quota
	})
}

// first returns the id of the first resource in the user's list.
func (w *world) first(as, path string) string {
	w.Helper()
	query := ""
	if strings.HasPrefix(path, "/provider") {
		query = "?user_owned=true"
	}
	return fmt.Sprint(items(w.call(as, "GET", path+query, nil))[0]["id"])
}

// atOnce makes concurrent requests, and returns how many succeed. The others must be
// refused with the status and text.
func (w *world) atOnce(n int, do func(n int) answer, status int, text string) (succeeded int) {
	w.Helper()
	answers := make([]answer, n)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = do(i) })
	}
	wg.Wait()
	for _, a := range answers {
		if a.status < 300 {
			succeeded++
		} else {
			w.wants(a, status, text)
		}
	}
	return succeeded
}

// Concurrent requests that add many items each do not exceed the quota, even if they
// are spread over many vector stores.
func TestQuotaOfConcurrentItems(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		allowed, each := 1000, 300
		if testtool.Raced {
			allowed, each = 100, 30
		}
		settings["limits"] = object{"vector_store_items": allowed}
		w := newWorld(t, settings)
		var stores []string
		for range 10 {
			stores = append(stores,
				w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id())
		}
		var items []any
		for range each {
			items = append(items, object{
				"document_id": "d", "document_type": "external", "model_id": "m",
				"text": "x", "embedding": []int{1},
			})
		}
		taken := w.atOnce(40, func(n int) answer {
			return w.try("ann", "PUT", "/vector_stores/"+stores[n%len(stores)], items)
		}, http.StatusConflict, fmt.Sprint("limits.vector_store_items allows ", allowed))
		if taken*each > allowed {
			t.Errorf("%d items were accepted, want at most %d", taken*each, allowed)
		}
	})
}

// The history of all contexts, and the items of all vector stores, have quotas by
// number and by size.
func TestQuotasOfParts(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["limits"] = object{
			"history_items": 5, "history_bytes": "2KiB", "vector_store_items": 5, "vector_store_bytes": "2KiB",
		}
		w := newWorld(t, settings)
		var contexts, stores []string
		for range 2 {
			contexts = append(contexts, "/contexts/"+w.call("ann", "POST", "/contexts", object{}).id()+"/history")
			stores = append(stores,
				"/vector_stores/"+
					w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id())
		}
		add := func(text string) func(n int) answer {
			return func(n int) answer { return w.try("ann", "POST", contexts[n%2], message(text)) }
		}
		if n := w.atOnce(8, add("short"), http.StatusConflict, "limits.history_items allows 5"); n != 5 {
			t.Errorf("%d history items were accepted, want 5", n)
		}
		for _, path := range contexts {
			w.call("ann", "DELETE",
				path+"?from_id="+fmt.Sprint(items(w.call("ann", "GET", path+"?order=asc", nil))[0]["id"]), nil)
		}
		if n := w.atOnce(4, add(strings.Repeat("x", 900)), http.StatusRequestEntityTooLarge,
			"limits.history_bytes allows 2048"); n != 2 {
			t.Errorf("%d long history items were accepted, want 2", n)
		}
		put := func(items int, text string) func(n int) answer {
			return func(n int) answer {
				var list []any
				for range items {
					list = append(list, object{
						"document_id": "d", "document_type": "external", "model_id": "m",
						"text": text, "embedding": []int{1},
					})
				}
				return w.try("ann", "PUT", stores[n%2], list)
			}
		}
		if n := w.atOnce(4, put(2, "short"), http.StatusConflict, "limits.vector_store_items allows 5"); n != 2 {
			t.Errorf("%d pairs of items were accepted, want 2", n)
		}
		for _, path := range stores {
			if w.call("ann", "GET", path, nil).body["stats"].(object)["num_documents"] != 0.0 {
				w.call("ann", "DELETE", path+"/documents/d", nil)
			}
		}
		if n := w.atOnce(4, put(1, strings.Repeat("x", 900)), http.StatusRequestEntityTooLarge,
			"limits.vector_store_bytes allows 2048"); n != 2 {
			t.Errorf("%d long items were accepted, want 2", n)
		}
		w.wants(w.try("bob", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}),
			http.StatusCreated)
	})
}

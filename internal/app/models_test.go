package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// However often models are matched, each model provider is asked for its list
// once; a change of the model provider, and an admin who sets a default, see what
// there is now.
func TestModelListsAreKept(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		var lists atomic.Int64
		var name atomic.Value
		name.Store("first")
		entered, release := make(chan struct{}, 100), make(chan struct{})
		upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if lists.Add(1) > 5 && strings.HasPrefix(r.URL.Path, "/0/") { // once it was created
				entered <- struct{}{}
				<-release
			}
			fmt.Fprintf(rw, `{"data":[{"id":%q}]}`, fmt.Sprint(name.Load()))
		}))
		t.Cleanup(upstream.Close)
		var ids []string
		for n := range 5 {
			ids = append(ids, w.call("admin", "POST", "/model_providers", object{
				"type": "openai", "base_url": fmt.Sprintf("%s/%d/v1", upstream.URL, n), "api_key": "k",
			}).id())
		}
		match := func() answer {
			return w.try("ann", "POST", "/model_providers/match", object{"capability": "llm", "score_cutoff": 0})
		}
		lists.Store(5)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { w.wants(match(), http.StatusOK, `"openai:first"`) })
		}
		<-entered // one asks, the others wait for its answer
		close(release)
		wg.Wait()
		if n := lists.Load() - 5; n != 5 {
			t.Errorf("20 calls asked 5 model providers %d times, want 5", n)
		}
		name.Store("second")
		w.wants(match(), http.StatusOK, "first")
		w.wants(w.try("admin", "PUT", "/configurations/system", object{"default_llm_model": "openai:first"}), http.StatusNotFound)
		w.wants(w.try("admin", "PUT", "/configurations/system", object{"default_llm_model": "openai:second"}), http.StatusOK)
		w.wants(match(), http.StatusOK, "second")
		name.Store("third")
		w.call("admin", "PATCH", "/model_providers/"+ids[1], object{"api_key": "other"})
		w.wants(match(), http.StatusOK, "second", "third")
		for _, id := range ids {
			w.call("admin", "DELETE", "/model_providers/"+id, nil)
		}
		w.wants(match(), http.StatusOK, `"items":[]`)
	})
}

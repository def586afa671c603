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

// Model lists are cached: each model provider is asked once, however often models are
// matched. A change of the model provider, and setting a default, refresh the list.
func TestModelListsAreCached(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		var lists atomic.Int64
		var name atomic.Value
		name.Store("first")
		entered, release := make(chan struct{}, 100), make(chan struct{})
		upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if lists.Add(1) > 5 && strings.HasPrefix(r.URL.Path, "/0/") { // after the model providers were created
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
		<-entered // one call fetches the list, the others wait for it
		close(release)
		wg.Wait()
		if n := lists.Load() - 5; n != 5 && n != 10 { // the periodic check may fetch them, too
			t.Errorf("20 calls fetched the lists of 5 model providers %d times, want 5", n)
		}
		name.Store("second")
		w.wants(match(), http.StatusOK, "first")
		w.wants(w.try("admin", "PUT", "/configurations/system", object{"default_llm_model": "openai:first"}),
			http.StatusNotFound)
		w.wants(w.try("admin", "PUT", "/configurations/system", object{"default_llm_model": "openai:second"}),
			http.StatusOK)
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

// Matching many models with many suggestions takes a place of scans. One user can't take
// all of them, so other users' requests still run.
func TestMatchingTakesAPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]any{"limits": object{"scans": 2, "user_scans": 1}})
	long := func(n int) string { return fmt.Sprintf("%d%s", n, strings.Repeat("ab", 120)) }
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		var names []string
		for n := range 2000 {
			names = append(names, fmt.Sprintf(`{"id":%q}`, long(n)))
		}
		fmt.Fprintf(rw, `{"data":[%s]}`, strings.Join(names, ","))
	}))
	t.Cleanup(upstream.Close)
	w.call("admin", "POST", "/model_providers",
		object{"type": "openai", "base_url": upstream.URL + "/v1", "api_key": "k"})
	var suggested []any
	for n := range 100 {
		suggested = append(suggested, long(n))
	}
	const calls = 12
	answers := make(chan answer, calls)
	for range calls {
		go func() {
			answers <- w.try("ann", "POST", "/model_providers/match",
				object{"capability": "llm", "suggested_models": suggested})
		}()
	}
	most := 0
	for done := 0; done < calls; {
		select {
		case a := <-answers:
			done++
			if a.status != http.StatusOK {
				w.wants(a, http.StatusServiceUnavailable, "each user is limited to 1 searches")
			}
		default:
			most = max(most, w.taken("scans"))
			w.wants(w.try("bob", "GET", "/users/me", nil), http.StatusOK)
		}
	}
	if most != 1 {
		t.Errorf("at most %d places were taken, want 1", most)
	}
}

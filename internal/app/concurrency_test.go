package app_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings"
)

const (
	changers = 8
	changes  = 60 // per changer
)

// shared holds the ids of resources that all changers change.
type shared struct {
	mu  sync.Mutex
	ids map[string][]string // by path
}

func (s *shared) add(path string, a answer) {
	if a.status != http.StatusCreated {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[path] = append(s.ids[path], a.id())
}

// any returns a random id, or one that does not exist if there is none.
func (s *shared) any(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids := s.ids[path]; len(ids) > 0 {
		return ids[rand.IntN(len(ids))]
	}
	return "00000000-0000-4000-8000-000000000000"
}

// Concurrent changes of the same resources cause no server errors, and each resource's
// events are consistent: created first, every version once, deleted last.
func TestConcurrentChanges(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		w.user("ann")
		w.user("developer")
		w.mark()
		s := &shared{ids: make(map[string][]string)}
		var wg sync.WaitGroup
		for range changers {
			wg.Go(func() {
				for range changes {
					if a := w.changeSomething(s); a.status >= 500 {
						t.Errorf("%d %s", a.status, a.text)
					}
				}
			})
		}
		wg.Wait()
		stories := make(map[string][]int64)
		ended := make(map[string]bool)
		for _, a := range w.since() {
			var e tidings.Event
			if err := e.UnmarshalJSON(a.body); err != nil {
				t.Fatal(err)
			}
			version, err := strconv.ParseInt(a.header.Get("tidings-resource-version"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			name := e.Resource()
			if ended[name] && e.Action == tidings.Created { // a provider keeps its id
				delete(stories, name)
				delete(ended, name)
			}
			stories[name] = append(stories[name], version)
			if n := int64(len(stories[name])); version != n || (n == 1) != (e.Action == tidings.Created) ||
				ended[name] {
				t.Errorf("%s: %s at version %d after %v", name, e.Action, version, stories[name])
			}
			ended[name] = ended[name] || e.Action == tidings.Deleted
		}
		if len(stories) < changers {
			t.Errorf("only %d resources", len(stories))
		}
	})
}

// changeSomething makes one random change, which concurrent ones may defeat.
func (w *world) changeSomething(s *shared) (a answer) {
	context, file, store := s.any("/contexts"), s.any("/files"), s.any("/vector_stores")
	provider := s.any("/providers")
	switch rand.IntN(14) {
	case 0:
		a = w.try("ann", "POST", "/contexts", object{"provider_id": provider})
		s.add("/contexts", a)
	case 1, 2:
		a = w.try("ann", "POST", "/contexts", object{})
		s.add("/contexts", a)
	case 3, 4:
		a = w.tryUpload("ann", "?context_id="+context, "a.txt", "text/plain", strings.NewReader("text"))
		s.add("/files", a)
	case 5:
		a = w.try("ann", "POST", "/vector_stores?context_id="+context,
			object{"name": "s", "dimension": 1, "model_id": "m"})
		s.add("/vector_stores", a)
	case 6:
		a = w.try("ann", "POST", "/contexts/"+context+"/history", message("hello"))
	case 7:
		a = w.try("ann", "PUT", "/contexts/"+context, object{"metadata": object{"n": fmt.Sprint(rand.Int())}})
	case 8:
		a = w.try("ann", "POST", "/files/"+file+"/extraction", nil)
	case 9:
		a = w.try("ann", "DELETE", "/files/"+file, nil)
	case 10:
		a = w.try("ann", "PUT", "/vector_stores/"+store,
			[]any{object{
				"document_id": "d", "document_type": "external", "model_id": "m", "text": "t",
				"embedding": []int{1},
			}})
	case 11:
		a = w.try("developer", "POST", "/providers", object{"location": w.agent.url + "/" + fmt.Sprint(rand.IntN(3))})
		s.add("/providers", a)
	case 12:
		a = w.try("developer", "DELETE", "/providers/"+provider, nil)
	case 13:
		a = w.try("ann", "DELETE", "/contexts/"+context, nil)
	}
	return a
}

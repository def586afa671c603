package receive

import (
	"sync"

	"github.com/tidings-dev/tidings"
)

// Recent remembers the last so many keys. It may be used by several goroutines.
type Recent struct {
	mu   sync.Mutex
	ring []string
	next int
	set  map[string]struct{}
}

// NewRecent returns an empty memory for n webhook ids.
func NewRecent(n int) *Recent {
	return &Recent{ring: make([]string, n), set: make(map[string]struct{})}
}

// Has reports whether a key is remembered.
func (r *Recent) Has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.set[key]
	return ok
}

// Add remembers a key and forgets the oldest one.
func (r *Recent) Add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.set[key]; ok || key == "" {
		return
	}
	delete(r.set, r.ring[r.next])
	r.ring[r.next] = key
	r.set[key] = struct{}{}
	r.next = (r.next + 1) % len(r.ring)
}

// Latest remembers the newest version of each resource that was seen, for a
// receiver that applies news as they come: a webhook that was delayed, and that
// tells of an older version than one handled before, is stale. It may be used
// by several goroutines.
type Latest struct {
	mu       sync.Mutex
	versions map[string]int64 // position in the log, by resource
	order    []string
	limit    int
}

// NewLatest returns an empty memory for at most n resources; beyond it, those
// seen first are forgotten.
func NewLatest(n int) *Latest { return &Latest{versions: make(map[string]int64), limit: n} }

// Newer reports whether the event is newer than all seen of its resource, and
// remembers it. Events without a sequence are always newer.
func (l *Latest) Newer(e tidings.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := e.Resource()
	seen, known := l.versions[key]
	if e.Sequence != 0 && e.Sequence <= seen {
		return false
	}
	if !known {
		if l.order = append(l.order, key); len(l.order) > l.limit {
			delete(l.versions, l.order[0])
			l.order = l.order[1:]
		}
	}
	l.versions[key] = e.Sequence
	return true
}

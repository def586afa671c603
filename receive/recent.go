package receive

import (
	"context"
	"sync"

	"github.com/tidings-dev/tidings"
)

// Recent remembers the most recent webhook ids. It is safe for concurrent use.
type Recent struct {
	mu   sync.Mutex
	ids  ring
	set  map[string]struct{}
	busy map[string]chan struct{} // ids being handled; closed when done
}

// NewRecent returns a Recent for n webhook ids, at least one.
func NewRecent(n int) *Recent {
	return &Recent{ids: newRing(n), set: make(map[string]struct{}), busy: make(map[string]chan struct{})}
}

// Do calls handle unless the id is remembered, and remembers it if handle
// returns nil. Of concurrent calls with the same id, one handles it while the
// others wait: if it succeeds, they return nil; if not, the next one tries. A
// waiting call returns when ctx is done, with its error. An empty id is neither
// remembered nor waited for.
func (r *Recent) Do(ctx context.Context, id string, handle func() error) error {
	if id == "" {
		return handle()
	}
	for {
		r.mu.Lock()
		_, done := r.set[id]
		other, busy := r.busy[id]
		if !done && !busy {
			r.busy[id] = make(chan struct{})
		}
		r.mu.Unlock()
		switch {
		case done:
			return nil
		case !busy:
			return r.handle(id, handle)
		}
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Recent) handle(id string, handle func() error) (err error) {
	handled := false
	defer func() { // even after a panic
		r.mu.Lock()
		defer r.mu.Unlock()
		if handled {
			r.add(id)
		}
		close(r.busy[id])
		delete(r.busy, id)
	}()
	err = handle()
	handled = err == nil
	return err
}

// Has reports whether an id is remembered.
func (r *Recent) Has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.set[id]
	return ok
}

// Add remembers an id and forgets the oldest one.
func (r *Recent) Add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(id)
}

func (r *Recent) add(id string) {
	if _, ok := r.set[id]; ok || id == "" {
		return
	}
	delete(r.set, r.ids.replace(id))
	r.set[id] = struct{}{}
}

// ring holds the most recent keys.
type ring struct {
	keys []string
	next int
}

func newRing(n int) ring { return ring{keys: make([]string, max(n, 1))} }

// replace overwrites the oldest key and returns it.
func (r *ring) replace(key string) (oldest string) {
	oldest, r.keys[r.next] = r.keys[r.next], key
	r.next = (r.next + 1) % len(r.keys)
	return oldest
}

// Latest detects stale events, for receivers that act on the event itself
// instead of reading the resource again. Latest is safe for concurrent use.
//
// An event is stale if it has a lower version than one of the same resource
// seen before, and no later timestamp. Both must agree because versions are
// used again after the sender's database was restored, and because the version
// of a thin event comes from an unsigned header: somebody who alters headers in
// transit can't make Latest drop an event with a later timestamp. Where a
// version is unknown, an event counts as older only if its timestamp is more
// than five minutes older, because clocks of servers differ.
type Latest struct {
	mu     sync.Mutex
	newest map[string]tidings.Event // by resource
	keys   ring
}

// clockTolerance is how far timestamps may deviate from the order of changes.
const clockTolerance = defaultTolerance

// NewLatest returns a Latest for n resources, at least one; if there are more,
// those seen first are forgotten.
func NewLatest(n int) *Latest {
	return &Latest{newest: make(map[string]tidings.Event), keys: newRing(n)}
}

// Newer returns false if the event is stale, or is a repetition of its
// resource's newest event. Otherwise it returns true and remembers the event.
func (l *Latest) Newer(e tidings.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := e.Resource()
	newest, known := l.newest[key]
	switch {
	case known && (older(e, newest) || e.ID != "" && e.ID == newest.ID):
		return false
	case !known:
		delete(l.newest, l.keys.replace(key))
	}
	l.newest[key] = newer(e, newest)
	return true
}

// stale reports whether Newer would return false because of a newer event.
func (l *Latest) stale(e tidings.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	newest, known := l.newest[e.Resource()]
	return known && older(e, newest)
}

// older reports whether an event announces an older change than the newest one
// of its resource.
func older(e, newest tidings.Event) bool {
	if e.ResourceVersion > 0 && newest.ResourceVersion > 0 {
		return e.ResourceVersion < newest.ResourceVersion && !e.Time.After(newest.Time)
	}
	return e.Time.Before(newest.Time.Add(-clockTolerance)) && e.Sequence <= newest.Sequence
}

// newer returns what to remember of an event that is not older than the newest
// one: that one may still have the later timestamp, because clocks differ.
func newer(e, newest tidings.Event) tidings.Event {
	if e.Time.Before(newest.Time) {
		if e.ResourceVersion <= newest.ResourceVersion {
			return newest
		}
		e.Time = newest.Time
	}
	return tidings.Event{ID: e.ID, Time: e.Time, Sequence: e.Sequence, ResourceVersion: e.ResourceVersion}
}

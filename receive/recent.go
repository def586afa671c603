package receive

import (
	"context"
	"sync"

	"github.com/tidings-dev/tidings"
)

// Recent remembers the last so many webhook ids. It may be used by several
// goroutines.
type Recent struct {
	mu   sync.Mutex
	ids  ring
	set  map[string]struct{}
	busy map[string]chan struct{} // ids being handled; closed when that is over
}

// NewRecent returns an empty memory for n webhook ids, at least one.
func NewRecent(n int) *Recent {
	return &Recent{ids: newRing(n), set: make(map[string]struct{}), busy: make(map[string]chan struct{})}
}

// Do calls handle unless the id is remembered, and remembers it if handle
// returns nil. Of simultaneous calls with one id, one handles it while the others
// wait: if it succeeds, they return nil at once; if not, the next one tries. A
// call stops waiting with the context's error when its context ends. An empty id
// is neither remembered nor waited for.
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
	defer func() { // also after a panic
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

// ring holds the last so many keys.
type ring struct {
	keys []string
	next int
}

func newRing(n int) ring { return ring{keys: make([]string, max(n, 1))} }

// replace puts a key in the place of the oldest one, which it returns.
func (r *ring) replace(key string) (oldest string) {
	oldest, r.keys[r.next] = r.keys[r.next], key
	r.next = (r.next + 1) % len(r.keys)
	return oldest
}

// Latest recognizes stale news, for a receiver that acts on what an event says
// rather than reading the resource again: an event that tells of an older change
// than one seen before. It may be used by several goroutines.
//
// Nobody who alters headers on the way can make it drop news. It goes by what the
// signature covers, the webhook-id and the timestamp in the body; the
// tidings-sequence, which is not covered, can only save an event from being
// dropped. Servers' clocks differ, and changes made at once may be committed in
// another order than their timestamps, so an event counts as older only if it is
// more than five minutes older.
type Latest struct {
	mu     sync.Mutex
	newest map[string]tidings.Event // by resource
	keys   ring
}

// clockTolerance is how far timestamps may be from the order of changes.
const clockTolerance = defaultTolerance

// NewLatest returns an empty memory for n resources, at least one; beyond that,
// those seen first are forgotten.
func NewLatest(n int) *Latest {
	return &Latest{newest: make(map[string]tidings.Event), keys: newRing(n)}
}

// Newer returns false for an event that is stale, or that is the newest of its
// resource and was seen before. Otherwise it returns true and remembers the event.
func (l *Latest) Newer(e tidings.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := e.Resource()
	newest, known := l.newest[key]
	older := e.Time.Before(newest.Time.Add(-clockTolerance)) && e.Sequence <= newest.Sequence
	switch {
	case known && (older || e.ID != "" && e.ID == newest.ID):
		return false
	case !known:
		delete(l.newest, l.keys.replace(key))
	case e.Time.Before(newest.Time):
		return true
	}
	l.newest[key] = tidings.Event{ID: e.ID, Time: e.Time, Sequence: e.Sequence}
	return true
}

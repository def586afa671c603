package relay

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
)

const (
	// chunkSize is small, so that endpoints at very different positions read little that
	// none of them needs.
	chunkSize = 128
	// keptChunks bounds the chunks in memory.
	keptChunks = 128
	// chunkAge is how long a chunk may be used: operators may delete events.
	chunkAge = time.Minute
)

// chunks caches what was last read from the log behind the newest events, so that
// endpoints that catch up from about the same position read it once.
type chunks struct {
	mu   sync.Mutex
	kept map[int64]*chunk // by number; the positions after number*chunkSize
	uses int64            // counts calls of find
}

// chunk holds the chunkSize events after a position, or those up to head if there are
// fewer.
type chunk struct {
	view  view
	head  int64     // the end of the log before it was read
	since time.Time // when it was read
	used  int64     // the last use

	done     chan struct{} // closed when it was read; what follows is set before
	events   []tidings.Event
	err      error
	canceled bool // by the one who read it
}

// read returns at most limit events after a position before head. They have
// consecutive positions. Only one caller at a time reads a chunk from the log; the
// others wait for it.
func (s *chunks) read(ctx context.Context, t *tail, after, head int64, limit int) ([]tidings.Event, error) {
	for {
		c, found := s.find(after/chunkSize, head, *t.view.Load())
		if !found {
			s.load(ctx, t, after/chunkSize, c)
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if c.err != nil {
			if found && c.canceled {
				continue
			}
			return nil, c.err
		}
		events := c.after(after, limit)
		if len(events) > 0 || c.head >= head {
			return events, nil
		}
		s.forget(after/chunkSize, c)
	}
}

// find returns the chunk with a number, or a new one that the caller must load.
func (s *chunks) find(number, head int64, now view) (c *chunk, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	stale := func(_ int64, c *chunk) bool { return c.view != now || time.Since(c.since) > chunkAge }
	if c, found = s.kept[number]; found && !stale(number, c) {
		c.used = s.uses
		return c, true
	}
	maps.DeleteFunc(s.kept, stale)
	if len(s.kept) >= keptChunks {
		delete(s.kept, s.leastUsed())
	}
	c = &chunk{view: now, head: head, since: time.Now(), used: s.uses, done: make(chan struct{})}
	if s.kept == nil {
		s.kept = make(map[int64]*chunk)
	}
	s.kept[number] = c
	return c, false
}

// leastUsed returns the number of the chunk that was last used before all others.
func (s *chunks) leastUsed() (number int64) {
	least := s.uses
	for n, c := range s.kept {
		if c.used < least {
			number, least = n, c.used
		}
	}
	return number
}

// load reads a chunk, and forgets it if that fails.
func (s *chunks) load(ctx context.Context, t *tail, number int64, c *chunk) {
	defer close(c.done)
	events, err := t.log.Read(ctx, number*chunkSize, chunkSize)
	if err != nil {
		c.err, c.canceled = err, ctx.Err() != nil
		s.forget(number, c)
		return
	}
	// Events beyond the head do not count yet: whether the log still has them in a new
	// epoch is only known of those up to the head.
	beyond := slices.IndexFunc(events, func(e tidings.Event) bool { return e.Sequence > c.head })
	if beyond >= 0 {
		events = events[:beyond]
	}
	c.events = events
}

func (s *chunks) forget(number int64, c *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[number] == c {
		delete(s.kept, number)
	}
}

// after returns at most limit events with consecutive positions.
func (c *chunk) after(position int64, limit int) []tidings.Event {
	from, _ := slices.BinarySearchFunc(c.events, position+1, func(e tidings.Event, p int64) int {
		return cmp.Compare(e.Sequence, p)
	})
	rest := c.events[from:min(from+limit, len(c.events))]
	for i := range rest {
		if rest[i].Sequence != rest[0].Sequence+int64(i) { // events in between are gone
			rest = rest[:i]
			break
		}
	}
	// Copy, so that a caller who keeps the events does not keep the chunk. The strings
	// stay shared.
	return slices.Clone(rest)
}

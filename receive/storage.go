package receive

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/tidings-dev/tidings"
)

// Result is what a handler did with a webhook or an event of the feed.
type Result string

// Results.
const (
	Handled   Result = "handled"
	Duplicate Result = "duplicate" // it was handled before
	Stale     Result = "stale"     // a newer event of the resource was handled before
	Pinged    Result = "ping"      // an operator tested the endpoint
	Failed    Result = "failed"    // the handler function or the storage returned an error
	Refused   Result = "refused"   // it is not authentic, or not a webhook
)

// Storage remembers which events were handled. Implementations are [Memory] and
// [SQL]; they are safe for concurrent use.
type Storage interface {
	// Once calls handle unless the event is a duplicate or stale (see [Latest]),
	// and remembers the event if handle returns nil. Events of one resource, and
	// calls with the same id, are handled one at a time. It returns [Handled],
	// [Duplicate], [Stale], or [Failed] with an error.
	Once(ctx context.Context, e tidings.Event, handle func(context.Context) error) (Result, error)
	// Cursor returns how far the feed has been read; "" if it never was.
	Cursor(ctx context.Context) (string, error)
	// SetCursor stores how far the feed has been read.
	SetCursor(ctx context.Context, cursor string) error
}

// Memory is a [Storage] that forgets everything when the process ends.
type Memory struct {
	recent *Recent
	latest *Latest // nil: no event is stale
	seed   maphash.Seed
	busy   []chan struct{} // a semaphore for each group of resources

	mu     sync.Mutex
	cursor string
}

// resourceGroups is how many events of different resources Memory handles at once, at most.
const resourceGroups = 256

// NewMemory returns a Memory for the last n webhook ids and n resources.
func NewMemory(n int) *Memory {
	m := &Memory{
		recent: NewRecent(n), latest: NewLatest(n), seed: maphash.MakeSeed(),
		busy: make([]chan struct{}, resourceGroups),
	}
	for i := range m.busy {
		m.busy[i] = make(chan struct{}, 1)
	}
	return m
}

// Once implements [Storage].
func (m *Memory) Once(ctx context.Context, e tidings.Event, handle func(context.Context) error) (Result, error) {
	result := Duplicate
	err := m.recent.Do(ctx, e.ID, func() error {
		if m.latest != nil {
			busy := m.busy[maphash.String(m.seed, e.Resource())%resourceGroups]
			select {
			case busy <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer func() { <-busy }()
			if m.latest.stale(e) {
				result = Stale
				return nil
			}
		}
		if err := handle(ctx); err != nil {
			return err
		}
		if m.latest != nil {
			m.latest.Newer(e)
		}
		result = Handled
		return nil
	})
	if err != nil {
		return Failed, err
	}
	return result, nil
}

// Cursor implements [Storage].
func (m *Memory) Cursor(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursor, nil
}

// SetCursor implements [Storage].
func (m *Memory) SetCursor(_ context.Context, cursor string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cursor = cursor
	return nil
}

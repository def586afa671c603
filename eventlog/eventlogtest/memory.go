// Package eventlogtest has what tests of the event log and of its readers need:
// the suite that every log must pass, and a log in memory that passes it. The
// memory log works inside testing/synctest bubbles, where databases do not.
package eventlogtest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

var _ eventlog.Log = (*Memory)(nil)

// Memory is an event log that ends with the process. Make one with [NewMemory].
type Memory struct {
	eventlog.Signal

	mu      sync.Mutex
	events  []tidings.Event
	cursors map[string]eventlog.Cursor
	retries map[retryKey]eventlog.Retry
	reads   int
}

type retryKey struct {
	endpoint string
	sequence int64
}

// NewMemory returns an empty log.
func NewMemory() *Memory {
	return &Memory{
		Signal:  eventlog.NewSignal(),
		cursors: make(map[string]eventlog.Cursor),
		retries: make(map[retryKey]eventlog.Retry),
	}
}

// Append adds events to the log and wakes its reader.
func (m *Memory) Append(events ...tidings.Event) {
	m.mu.Lock()
	for _, e := range events {
		e.Sequence = int64(len(m.events)) + 1
		if e.ID == "" {
			e.ID = fmt.Sprintf("event-%d", e.Sequence)
		}
		m.events = append(m.events, e)
	}
	m.mu.Unlock()
	m.Wake()
}

// Reads returns how often the log has been read.
func (m *Memory) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// RetryRows returns how many parked events there are, dead letters included.
func (m *Memory) RetryRows() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.retries)
}

// Advance implements [eventlog.Reader].
func (m *Memory) Advance(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.events)), nil
}

// Read implements [eventlog.Reader].
func (m *Memory) Read(_ context.Context, after int64, limit int) ([]tidings.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	from := min(max(after, 0), int64(len(m.events)))
	to := min(from+int64(limit), int64(len(m.events)))
	return slices.Clone(m.events[from:to]), nil
}

// Cursors implements [eventlog.Cursors].
func (m *Memory) Cursors(context.Context) (map[string]eventlog.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.cursors), nil
}

// SaveCursors implements [eventlog.Cursors].
func (m *Memory) SaveCursors(_ context.Context, cursors []eventlog.Cursor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range cursors {
		c.Sequence = max(c.Sequence, m.cursors[c.Endpoint].Sequence)
		m.cursors[c.Endpoint] = c
	}
	return nil
}

// Park implements [eventlog.Retries].
func (m *Memory) Park(_ context.Context, retries []eventlog.Retry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range retries {
		key := retryKey{r.Endpoint, r.Event.Sequence}
		if _, exists := m.retries[key]; exists && r.Attempts == 0 {
			continue
		}
		m.retries[key] = r
	}
	return nil
}

// Unpark implements [eventlog.Retries].
func (m *Memory) Unpark(_ context.Context, endpoint string, sequence int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.retries, retryKey{endpoint, sequence})
	return nil
}

// ParkedLanes implements [eventlog.Retries].
func (m *Memory) ParkedLanes(_ context.Context, endpoint string, limit int) ([]eventlog.Retry, error) {
	var lanes []eventlog.Retry
	seen := make(map[string]bool)
	for _, r := range m.sorted(endpoint) {
		if r.Dead.IsZero() && !seen[r.Event.Resource()] && len(lanes) < limit {
			seen[r.Event.Resource()] = true
			lanes = append(lanes, r)
		}
	}
	return lanes, nil
}

// NextParked implements [eventlog.Retries].
func (m *Memory) NextParked(_ context.Context, endpoint string, e tidings.Event) (eventlog.Retry, bool, error) {
	for _, r := range m.sorted(endpoint) {
		if r.Dead.IsZero() && r.Event.Resource() == e.Resource() {
			return r, true, nil
		}
	}
	return eventlog.Retry{}, false, nil
}

// DeadLetters implements [eventlog.Retries].
func (m *Memory) DeadLetters(_ context.Context, endpoint string, after int64, limit int) ([]eventlog.Retry, error) {
	var dead []eventlog.Retry
	for _, r := range m.sorted(endpoint) {
		if !r.Dead.IsZero() && r.Event.Sequence > after && len(dead) < limit {
			dead = append(dead, r)
		}
	}
	return dead, nil
}

func (m *Memory) sorted(endpoint string) []eventlog.Retry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []eventlog.Retry
	for key, r := range m.retries {
		if key.endpoint == endpoint {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b eventlog.Retry) int { return cmp.Compare(a.Event.Sequence, b.Event.Sequence) })
	return found
}

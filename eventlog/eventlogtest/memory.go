// Package eventlogtest provides the test suite that every log must pass, and an
// in-memory log that passes it. The in-memory log works in testing/synctest
// bubbles, where databases do not.
package eventlogtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

var _ eventlog.Log = (*Memory)(nil)

// Memory is an in-memory event log. Create one with [NewMemory].
type Memory struct {
	woken, nudged eventlog.Signal

	mu sync.Mutex
	contents
	started bool // restarted since the last epoch began
	reads   int
	take    func([]tidings.Event) bool // see OnCommitted
	jumped  time.Duration              // how far the clock is ahead
}

// contents is what a database would hold.
type contents struct {
	events   []tidings.Event
	logged   []time.Time // when each event was logged, by the log's clock
	expired  int         // number of events removed from the beginning
	expiry   eventlog.ExpiryClock
	cursors  map[cursorKey]eventlog.Cursor
	replicas map[string]replica
	retries  map[retryKey]eventlog.Retry
	controls map[string]eventlog.Control
	gaps     []eventlog.Gap
	replays  []eventlog.Replay
	history  []*eventlog.HistoryBlock
	states   []eventlog.StateChange
	samples  map[sampleKey]eventlog.Sample
	epochs   eventlog.Epochs
	// discarded holds live events that were discarded, until their owner removes them.
	discarded map[retryKey]eventlog.Retry
}

func (c contents) clone() contents {
	return contents{
		slices.Clone(c.events), slices.Clone(c.logged), c.expired, c.expiry, maps.Clone(c.cursors),
		maps.Clone(c.replicas), maps.Clone(c.retries), maps.Clone(c.controls),
		slices.Clone(c.gaps), slices.Clone(c.replays), slices.Clone(c.history),
		slices.Clone(c.states), maps.Clone(c.samples), slices.Clone(c.epochs),
		maps.Clone(c.discarded),
	}
}

type cursorKey struct {
	endpoint string
	index    int
}

type retryKey struct {
	endpoint string
	sequence int64
}

type replica struct {
	eventlog.Replica
	expires time.Time
}

// NewMemory returns an empty log.
func NewMemory() *Memory {
	return &Memory{
		woken: eventlog.NewSignal(), nudged: eventlog.NewSignal(), started: true,
		contents: contents{
			cursors:   make(map[cursorKey]eventlog.Cursor),
			replicas:  make(map[string]replica),
			retries:   make(map[retryKey]eventlog.Retry),
			controls:  make(map[string]eventlog.Control),
			samples:   make(map[sampleKey]eventlog.Sample),
			discarded: make(map[retryKey]eventlog.Retry),
		},
	}
}

// Backup returns a function that restores the log's current contents, as if its
// database had been restored from a backup or a standby had been promoted.
func (m *Memory) Backup() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	backup := m.clone()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.contents, m.started = backup.clone(), true
	}
}

// Append adds events to the log and wakes its reader.
func (m *Memory) Append(events ...tidings.Event) {
	m.mu.Lock()
	m.beginEpoch()
	before := len(m.events)
	for _, e := range events {
		e.Sequence = m.head() + 1
		if e.ID == "" {
			e.ID = fmt.Sprintf("event-%d", e.Sequence)
		}
		m.events, m.logged = append(m.events, e), append(m.logged, m.now())
	}
	events = slices.Clone(m.events[before:])
	m.mu.Unlock()
	m.Committed(events...)
}

// Committed implements [eventlog.Waker].
func (m *Memory) Committed(events ...tidings.Event) {
	m.mu.Lock()
	take := m.take
	m.mu.Unlock()
	if len(events) > 0 && (take == nil || events[0].Sequence == 0 || !take(events)) {
		m.Wake()
	}
}

// OnCommitted implements [eventlog.Waker].
func (m *Memory) OnCommitted(take func([]tidings.Event) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.take = take
}

// Cut removes the events after a position, as if the database had lost them.
func (m *Memory) Cut(after int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := after - int64(m.expired)
	m.events, m.logged, m.started = m.events[:kept], m.logged[:kept], true
}

// Restart makes the next reader begin an epoch.
func (m *Memory) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = true
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

// Wake implements [eventlog.Waker].
func (m *Memory) Wake() { m.woken.Give() }

// Woken implements [eventlog.Waker].
func (m *Memory) Woken() <-chan struct{} { return m.woken.Given() }

// Nudge implements [eventlog.Waker].
func (m *Memory) Nudge(context.Context) error {
	m.nudged.Give()
	return nil
}

// Nudged implements [eventlog.Waker].
func (m *Memory) Nudged() <-chan struct{} { return m.nudged.Given() }

// Advance implements [eventlog.Reader].
func (m *Memory) Advance(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beginEpoch()
	return m.head(), nil
}

func (m *Memory) head() int64 { return int64(m.expired + len(m.events)) }

// Read implements [eventlog.Reader].
func (m *Memory) Read(_ context.Context, after int64, limit int) ([]tidings.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	from := min(max(after-int64(m.expired), 0), int64(len(m.events)))
	to := min(from+int64(limit), int64(len(m.events)))
	return slices.Clone(m.events[from:to]), nil
}

// Oldest implements [eventlog.Reader].
func (m *Memory) Oldest(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(m.expired) + 1, nil
}

// ExpireEvents removes events as an [eventlog.Expirer] does.
func (m *Memory) ExpireEvents(_ context.Context, keep time.Duration) (x eventlog.Expiry, err error) {
	m.mu.Lock()
	now := m.now()
	m.expiry, err = m.expiry.At(now, keep)
	count := slices.IndexFunc(m.logged, func(at time.Time) bool { return !at.Before(now.Add(-keep)) })
	if count < 0 {
		count = len(m.logged)
	}
	before := int64(m.expired+count) + 1
	m.mu.Unlock()
	if err != nil {
		return x, err
	}
	return eventlog.Expiry{At: now, Gaps: m.ExpireBefore(before)}, nil
}

// ExpireBefore removes the events before a position and returns the gaps of
// cursors.
func (m *Memory) ExpireBefore(sequence int64) (gaps []eventlog.Gap) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.events) > 0 && int64(m.expired)+1 < sequence {
		m.events, m.logged, m.expired = m.events[1:], m.logged[1:], m.expired+1
	}
	for key, c := range m.cursors {
		if end := int64(m.expired); c.Sequence < end {
			g := eventlog.Gap{
				Endpoint: c.Endpoint, Index: c.Index, From: c.Sequence + 1, To: end, At: time.Now(),
				Reason: eventlog.GapExpired,
			}
			c.Sequence = end
			m.cursors[key] = c
			if g = m.saveGap(g); g.From <= g.To {
				gaps = append(gaps, g)
			}
		}
	}
	return gaps
}

// SequenceAt implements [eventlog.Reader].
func (m *Memory) SequenceAt(_ context.Context, at time.Time) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if !e.Time.Before(at.Add(-eventlog.TimeSlack)) {
			return e.Sequence, nil
		}
	}
	return int64(m.expired+len(m.events)) + 1, nil
}

// Find implements [eventlog.Finder].
func (m *Memory) Find(_ context.Context, id string) (found tidings.Event, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.events, func(e tidings.Event) bool { return e.ID == id })
	if i >= 0 {
		found = m.events[i]
	}
	return found, i >= 0, nil
}

// Following implements [eventlog.Finder].
func (m *Memory) Following(_ context.Context, positions []int64) (found []tidings.Event, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range m.events {
		first := func(p int64) bool { return p < e.Sequence && (i == 0 || p >= m.events[i-1].Sequence) }
		if slices.ContainsFunc(positions, first) {
			found = append(found, e)
		}
	}
	return found, nil
}

// Search implements [eventlog.Finder].
func (m *Memory) Search(_ context.Context, f eventlog.EventFilter, limit int) (found []tidings.Event, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range slices.Backward(m.events) {
		if len(found) < limit && f.Matches(e) {
			found = append(found, e)
		}
	}
	return found, nil
}

// Controls implements [eventlog.Controls].
func (m *Memory) Controls(context.Context) (map[string]eventlog.Control, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.controls), nil
}

// SaveControl implements [eventlog.Controls].
func (m *Memory) SaveControl(_ context.Context, c eventlog.Control) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := m.controls[c.Endpoint].Since; !c.Since.After(last) {
		c.Since = last.Add(time.Microsecond)
	}
	c.Parked = m.controls[c.Endpoint].Parked
	m.controls[c.Endpoint] = c
	return nil
}

// AddReplay writes a new replay, as an [eventlog.Archive] does.
func (m *Memory) AddReplay(_ context.Context, r eventlog.Replay) error {
	if err := r.Check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	unfinished := 0
	for _, other := range m.replays {
		if other.Endpoint == r.Endpoint && other.State == eventlog.ReplayRunning {
			unfinished++
		}
	}
	if unfinished >= eventlog.MaxReplays {
		return eventlog.ErrManyReplays
	}
	m.replays = append(m.replays, r)
	return nil
}

// SaveReplay implements [eventlog.Replays].
func (m *Memory) SaveReplay(_ context.Context, l eventlog.Lease, r eventlog.Replay) (eventlog.ReplayState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.held(l); err != nil {
		return "", err
	}
	for i := range m.replays {
		saved := &m.replays[i]
		if saved.ID != r.ID {
			continue
		}
		saved.Position, saved.Delivered, saved.Failed, saved.Expired, saved.Updated = r.Position, r.Delivered,
			r.Failed, r.Expired, time.Now()
		if saved.State == eventlog.ReplayRunning {
			saved.State, saved.Reason = r.State, r.Reason
		}
		return saved.State, nil
	}
	return eventlog.ReplayCanceled, nil
}

// CancelReplay cancels a running replay, as an [eventlog.Archive] does.
func (m *Memory) CancelReplay(_ context.Context, id string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.replays {
		if m.replays[i].ID == id && m.replays[i].State == eventlog.ReplayRunning {
			m.replays[i].State = eventlog.ReplayCanceled
			return true, nil
		}
	}
	return false, nil
}

// Replays implements [eventlog.Replays].
func (m *Memory) Replays(_ context.Context, running bool, limit int) ([]eventlog.Replay, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !running {
		found := slices.Clone(m.replays)
		slices.Reverse(found)
		return found[:min(limit, len(found))], nil
	}
	var found []eventlog.Replay
	of := make(map[string]int)
	for _, r := range m.replays {
		if r.State == eventlog.ReplayRunning && of[r.Endpoint] < limit {
			of[r.Endpoint]++
			found = append(found, r)
		}
	}
	return found, nil
}

// Replay returns a replay, as an [eventlog.Archive] does.
func (m *Memory) Replay(_ context.Context, id string) (eventlog.Replay, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.replays {
		if r.ID == id {
			return r, true, nil
		}
	}
	return eventlog.Replay{}, false, nil
}

// AppendHistory implements [eventlog.Recorder].
func (m *Memory) AppendHistory(_ context.Context, blocks []*eventlog.HistoryBlock) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		b.ID = int64(len(m.history)) + 1
		m.history = append(m.history, b)
	}
	return nil
}

// ReadHistory returns records of the newest blocks, as an [eventlog.Archive] does.
func (m *Memory) ReadHistory(
	_ context.Context, f eventlog.HistoryFilter,
) (records []eventlog.Record, oldest int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range slices.Backward(m.history) {
		if f.Limit == 0 {
			break
		}
		if (f.Endpoint != "" && b.Endpoint != f.Endpoint) ||
			(f.Sequence != 0 && (f.Sequence < b.Lowest || f.Sequence > b.Highest)) ||
			(!f.Since.IsZero() && b.Last.Before(f.Since)) || (!f.Until.IsZero() && !b.First.Before(f.Until)) ||
			(f.Failures && b.Failures == 0) || (f.Before != 0 && b.ID >= f.Before) || b.ID <= f.After ||
			slices.ContainsFunc(f.Mentions(), func(pair [2]string) bool {
				return !strings.Contains(b.Text(), pair[0]) && !strings.Contains(b.Text(), pair[1])
			}) {
			continue
		}
		parsed, err := eventlog.ParseHistory(b.Endpoint, b.Text())
		if err != nil {
			return nil, 0, err
		}
		records, oldest = append(records, parsed...), b.ID
		f.Limit--
	}
	return records, oldest, nil
}

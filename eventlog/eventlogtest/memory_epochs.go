package eventlogtest

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// Epoch implements [eventlog.Reader].
func (m *Memory) Epoch() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epochs.Current().ID
}

// Epochs implements [eventlog.Reader].
func (m *Memory) Epochs(context.Context) (eventlog.Epochs, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.epochs), nil
}

// beginEpoch begins an epoch if the log was restarted since the last one. m.mu is
// held.
func (m *Memory) beginEpoch() {
	if !m.started {
		return
	}
	m.started = false
	e := eventlog.Epoch{ID: m.epochs.NewID(m.head()), Base: m.head(), Began: time.Now()}
	for key, c := range m.cursors {
		if c.Sequence > e.Base {
			e.Beyond = max(e.Beyond, c.Sequence)
		}
		c.Epoch, c.Sequence = e.ID, min(c.Sequence, e.Base)
		c.Marks = c.Marks.Until(e.Base).After(c.Sequence)
		m.cursors[key] = c
	}
	lost := func(key retryKey, _ eventlog.Retry) bool { return key.sequence > e.Base }
	maps.DeleteFunc(m.retries, lost)
	maps.DeleteFunc(m.discarded, lost)
	for i := range m.replays {
		if r := &m.replays[i]; r.State == eventlog.ReplayRunning {
			r.To, r.Position = min(r.To, e.Base), min(r.Position, e.Base)
		}
	}
	m.epochs = append(m.epochs, e)
	m.epochs = m.epochs[max(len(m.epochs)-eventlog.MaxEpochs, 0):]
	if e.Beyond > 0 {
		m.lose(e.Base+1, e.Beyond, e.Began)
	}
}

// SaveLoss implements [eventlog.Cursors].
func (m *Memory) SaveLoss(_ context.Context, from, to int64, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lose(from, to, at)
	return nil
}

func (m *Memory) lose(from, to int64, at time.Time) {
	for key := range m.cursors {
		gap := eventlog.Gap{
			Endpoint: key.endpoint, Index: key.index, From: from, To: to, At: at,
			Reason: eventlog.GapLost,
		}
		known := slices.IndexFunc(m.gaps, func(g eventlog.Gap) bool {
			return g.Endpoint == gap.Endpoint && g.Index == gap.Index && g.From == gap.From && g.Reason == gap.Reason
		})
		if known < 0 {
			m.gaps = append(m.gaps, gap)
			continue
		}
		m.gaps[known].To, m.gaps[known].At = max(m.gaps[known].To, to), at
	}
}

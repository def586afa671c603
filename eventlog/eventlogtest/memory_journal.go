package eventlogtest

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

type sampleKey struct {
	endpoint string
	at       time.Time
}

// AddStates implements [eventlog.Journalist].
func (m *Memory) AddStates(_ context.Context, changes []eventlog.StateChange) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		m.states = slices.DeleteFunc(m.states, func(o eventlog.StateChange) bool {
			return o.Endpoint == c.Endpoint && o.Index == c.Index && o.At.Equal(c.At)
		})
		m.states = append(m.states, c)
	}
	return nil
}

// StateChanges returns all changes of states.
func (m *Memory) StateChanges() []eventlog.StateChange {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.states)
}

// AddSamples implements [eventlog.Journalist].
func (m *Memory) AddSamples(_ context.Context, samples []eventlog.Sample) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range samples {
		key := sampleKey{s.Endpoint, s.At}
		sum, known := m.samples[key]
		if known {
			sum.Add(s)
		} else {
			sum = s
		}
		m.samples[key] = sum
	}
	return nil
}

// Samples returns the samples of an endpoint, in no order.
func (m *Memory) Samples(endpoint string) (found []eventlog.Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.samples {
		if key.endpoint == endpoint {
			found = append(found, s)
		}
	}
	return found
}

package outbox

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// missedInterval is the minimum time between log lines about an endpoint's missed
// events. With a short retention, some may expire every second.
const missedInterval = time.Minute

// missedLog accumulates what endpoints missed until it is logged.
type missedLog struct {
	waiting map[string]missedRange
	told    map[string]time.Time
}

type missedRange struct{ from, to, count int64 }

func newMissedLog() *missedLog {
	return &missedLog{waiting: make(map[string]missedRange), told: make(map[string]time.Time)}
}

// add adds a gap of an endpoint.
func (m *missedLog) add(g eventlog.Gap) {
	r, known := m.waiting[g.Endpoint]
	if !known {
		r.from = g.From
	}
	r.to = g.To
	r.count += g.To - g.From + 1
	m.waiting[g.Endpoint] = r
}

// flush logs one line for each endpoint, unless there was one recently; end makes
// it log all that is left.
func (m *missedLog) flush(logger *slog.Logger, configured map[string]bool, now time.Time, end bool) {
	maps.DeleteFunc(m.told, func(_ string, at time.Time) bool { return now.Sub(at) >= missedInterval })
	for _, name := range slices.Sorted(maps.Keys(m.waiting)) {
		if _, lately := m.told[name]; lately && !end {
			continue
		}
		r := m.waiting[name]
		delete(m.waiting, name)
		m.told[name] = now
		// Some positions may belong to events that the endpoint does not match, or
		// that overtook the one at its cursor.
		what := []any{"endpoint", name, "from", r.from, "to", r.to, "at_most", r.count}
		if configured[name] {
			logger.Error("events expired before the endpoint could get them", what...)
		} else {
			logger.Warn("events expired before a removed endpoint received them", what...)
		}
	}
}

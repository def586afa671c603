package outbox

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// missedInterval is how often at most a line in the log tells of events that expired
// before an endpoint got them. Behind a short retention some expire every second.
const missedInterval = time.Minute

// missedLog sums up what endpoints missed until the log tells of it.
type missedLog struct {
	waiting map[string]missedRange
	told    map[string]time.Time
}

type missedRange struct{ from, to, count int64 }

func newMissedLog() *missedLog {
	return &missedLog{waiting: make(map[string]missedRange), told: make(map[string]time.Time)}
}

// add notes what an endpoint missed.
func (m *missedLog) add(g eventlog.Gap) {
	r, known := m.waiting[g.Endpoint]
	if !known {
		r.from = g.From
	}
	r.to = g.To
	r.count += g.To - g.From + 1
	m.waiting[g.Endpoint] = r
}

// tell writes a line for each endpoint, unless there was one lately; end has it write what
// is left.
func (m *missedLog) tell(logger *slog.Logger, configured map[string]bool, now time.Time, end bool) {
	maps.DeleteFunc(m.told, func(_ string, at time.Time) bool { return now.Sub(at) >= missedInterval })
	for _, name := range slices.Sorted(maps.Keys(m.waiting)) {
		if _, lately := m.told[name]; lately && !end {
			continue
		}
		r := m.waiting[name]
		delete(m.waiting, name)
		m.told[name] = now
		// Some of the positions may be of events that the endpoint does not want, or that
		// overtook the one at its cursor.
		what := []any{"endpoint", name, "from", r.from, "to", r.to, "at_most", r.count}
		if configured[name] {
			logger.Error("events expired before the endpoint could get them", what...)
		} else {
			logger.Warn("events expired that an endpoint which was removed did not get", what...)
		}
	}
}

package relay

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// failures limits the log lines about events that fail on their own. The first few
// for each endpoint and reason are logged in full, the others are counted and
// reported in one line a minute. After a minute without any, the next few are
// logged in full again.
type failures struct {
	logger *slog.Logger
	mu     sync.Mutex
	counts map[failureKey]*failureCount
}

type failureKey struct {
	endpoint, reason string
	dead             bool
}

type failureCount struct {
	full  int       // number logged in full
	more  int       // number of others since the last line
	begun time.Time // when the minute began
}

const (
	// fullFailures is how many failures are logged in full.
	fullFailures     = 3
	failureInterval  = time.Minute
	failurePrecision = 5 * time.Second
)

func newFailures(logger *slog.Logger) *failures {
	return &failures{logger: logger, counts: make(map[failureKey]*failureCount)}
}

// note counts a failure and reports whether it should be logged in full.
func (f *failures) note(endpoint, reason string, dead bool, now time.Time) (full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := failureKey{endpoint, reason, dead}
	n := f.counts[key]
	if n == nil {
		n = &failureCount{begun: now}
		f.counts[key] = n
	}
	if n.full < fullFailures {
		n.full++
		return true
	}
	n.more++
	return false
}

// run reports the counts until the context ends.
func (f *failures) run(ctx context.Context) {
	tick := time.NewTicker(failurePrecision)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			f.report(now, false)
		case <-ctx.Done():
			f.report(time.Now(), true)
			return
		}
	}
}

// report logs the counts of minutes that are over, or all counts if this is the
// last call.
func (f *failures) report(now time.Time, last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var over []failureKey
	for key, n := range f.counts {
		if last || now.Sub(n.begun) >= failureInterval {
			over = append(over, key)
		}
	}
	slices.SortFunc(over, func(a, b failureKey) int {
		return cmp.Or(cmp.Compare(a.endpoint, b.endpoint), cmp.Compare(a.reason, b.reason))
	})
	for _, key := range over {
		n := f.counts[key]
		if n.more == 0 {
			delete(f.counts, key)
			continue
		}
		level, text := slog.LevelWarn, "more deliveries failed"
		if key.dead {
			level, text = slog.LevelError, "more deliveries given up, kept as dead letters"
		}
		f.logger.Log(context.Background(), level, text, "endpoint", key.endpoint, "outcome", key.reason,
			"count", n.more, "within", now.Sub(n.begun).Round(time.Second))
		n.more, n.begun = 0, now
	}
}

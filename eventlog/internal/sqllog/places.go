package sqllog

import (
	"context"
	"database/sql"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// statementTime bounds each statement and transaction that deliveries wait for; it
// equals the default lease time. slowTime bounds operators' queries and
// maintenance.
const (
	statementTime = 10 * time.Second
	slowTime      = 30 * time.Second
)

type slowKey struct{}

// Slow returns a context whose statements may take up to 30 seconds, because no
// delivery waits for them.
func Slow(ctx context.Context) context.Context { return context.WithValue(ctx, slowKey{}, true) }

func limit(ctx context.Context) time.Duration {
	if ctx.Value(slowKey{}) != nil {
		return slowTime
	}
	return statementTime
}

// reserved is the number of connections in a pool that only urgent statements may
// use: one for numbering and one for leases.
const reserved = 2

// placesTime is how long a statement waits for a place.
const placesTime = 10 * time.Second

// places is a semaphore that limits the connections used by non-urgent statements;
// nil means no limit.
type places chan struct{}

func newPlaces(db *sql.DB) places {
	size := db.Stats().MaxOpenConnections
	if size < 2 { // unlimited, or too few to reserve any
		return nil
	}
	return make(places, max(size-reserved, 1))
}

// use calls do, in one of the places unless its context is urgent.
func (p places) use(ctx context.Context, do func() error) error {
	if p == nil || eventlog.IsUrgent(ctx) {
		return do()
	}
	waiting, cancel := context.WithTimeout(ctx, placesTime)
	defer cancel()
	select {
	case p <- struct{}{}:
		defer func() { <-p }()
		return do()
	case <-waiting.Done():
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &eventlog.UnavailableError{
			Reason: "no connection to the database became free in time",
			Err:    waiting.Err(),
		}
	}
}

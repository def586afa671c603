package sqllog

import (
	"context"
	"database/sql"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// statementTime bounds each statement, and each transaction, that delivery waits for;
// it is the default lease time. slowTime bounds what operators ask for and what cleans up.
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

// reserved is how many connections of a pool only urgent statements use: one for
// numbering and one for leases.
const reserved = 2

// placesTime is how long a statement waits for a place.
const placesTime = 10 * time.Second

// places limits how many connections statements that are not urgent use at once; nil
// is no limit.
type places chan struct{}

func newPlaces(db *sql.DB) places {
	size := db.Stats().MaxOpenConnections
	if size < 2 { // unlimited, or nothing to share out
		return nil
	}
	return make(places, max(size-reserved, 1))
}

// use runs do, unless its context is urgent in one of the places.
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

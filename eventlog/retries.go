package eventlog

import (
	"context"
	"time"

	"github.com/tidings-dev/tidings"
)

// Retry is an event parked for an endpoint: one that failed, one that waits
// behind such an event of the same resource, or a dead letter.
type Retry struct {
	Endpoint string
	Event    tidings.Event
	// Attempts counts those that used up a place in the schedule; 0 for an event
	// that only waits.
	Attempts int
	// First is when the first attempt was made that used up a place, or when it was
	// parked after one that used up none; zero before any.
	First time.Time
	// Next is when to try again; zero for an event that only waits.
	Next time.Time
	// Dead is when it was given up; zero for a live one.
	Dead time.Time
	// Reason is why the last attempt failed.
	Reason string
}

// Retries keeps the parked events. They are independent of the log's retention.
// Writes need the lease of a partition of the endpoint; the error of one that
// was lost is [ErrLeaseLost].
type Retries interface {
	// Park writes retries of several leases in one transaction, replacing those of the
	// same endpoint and sequence, except that an event that only waits (Next and Dead
	// are zero) never replaces another row. Under some of the leases nothing is written:
	// refused says why, [ErrLeaseLost] or [ErrNewEpoch].
	Park(ctx context.Context, all ...Parking) (refused map[Lease]error, err error)
	// ParkedLanes returns the oldest live retry of each resource of a partition, of
	// those after a position, in the order of the log; at most limit.
	ParkedLanes(ctx context.Context, p Partition, after int64, limit int) ([]Retry, error)
	// Due returns the retries of a partition whose Next has come, the longest due
	// first, at most limit, and the earliest Next of the others; zero if there is
	// none.
	Due(ctx context.Context, p Partition, now time.Time, limit int) (due []Retry, next time.Time, err error)
	// Requeue makes those due that were parked for a reason and failed for the first
	// time at a time or later, and returns how many. Dead letters stay.
	Requeue(ctx context.Context, l Lease, reason string, since, now time.Time) (int64, error)
	// NextParked returns the oldest live retries of one resource, at most limit.
	NextParked(ctx context.Context, endpoint string, e tidings.Event, limit int) ([]Retry, error)
	// Parked returns parked events in the order of the log, those of one position by
	// endpoint.
	Parked(ctx context.Context, f ParkedFilter) ([]Retry, error)
}

// Parking is what is written to the parked events under a lease.
type Parking struct {
	Lease   Lease
	Retries []Retry
	// Done are the positions of events that were delivered, or merged into others:
	// their rows are removed.
	Done []int64
}

// Rows is how many rows are written.
func (p Parking) Rows() int { return len(p.Retries) + len(p.Done) }

// ParkedFilter narrows a list of parked events; its zero value is all of them.
type ParkedFilter struct {
	Endpoint string
	Sequence int64
	// ID is of one event; looking for it takes a look at each.
	ID string
	// Dead is dead letters only.
	Dead bool
	// After is the position before the first.
	After int64
	// AfterEndpoint, if not empty, lets the list begin at the position After itself,
	// behind that endpoint.
	AfterEndpoint string
	Limit         int
}

// ParkedCount is how many events of an endpoint are parked.
type ParkedCount struct{ Live, Dead int64 }

// Removed is what was removed of an endpoint, see [Expirer.ExpireEndpoints].
type Removed struct {
	Endpoint string
	// Cursor is its lowest position; 0 if it had no cursor.
	Cursor int64
	// Parked is how many parked events it had, dead letters included.
	Parked int64
}

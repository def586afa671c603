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
	// Attempts is the number of attempts that used up a place in the schedule; 0
	// for an event that only waits.
	Attempts int
	// First is the time of the first attempt that used up a place, or when the
	// event was parked after one that did not; zero before any.
	First time.Time
	// Next is when to try again; zero for an event that only waits.
	Next time.Time
	// Dead is when it became a dead letter; zero for a live event.
	Dead time.Time
	// Reason is why the last attempt failed, Detail explains it, Response is the
	// beginning of the receiver's response, and Last the time of that attempt.
	Reason, Detail, Response string
	Last                     time.Time
	// Behind is the position of the event that this one waits for. Only
	// [Retries.Parked] sets it.
	Behind int64
}

// Retries stores the parked events, independently of the log's retention. Writes
// need the lease of one of the endpoint's partitions; if it was lost, the error is
// [ErrLeaseLost].
type Retries interface {
	// Park writes the retries of several leases in one transaction. They replace
	// those with the same endpoint and sequence, except that an event that only
	// waits (Next and Dead are zero) never replaces another row, and none replaces
	// one that was discarded. For leases under
	// which nothing was written, refused holds [ErrLeaseLost] or [ErrNewEpoch].
	Park(ctx context.Context, all ...Parking) (refused map[Lease]error, err error)
	// ParkedLanes returns the oldest live retry of each resource in a partition, in
	// log order: those after a position, at most limit.
	ParkedLanes(ctx context.Context, p Partition, after int64, limit int) ([]Retry, error)
	// Due returns at most limit retries of a partition whose Next has passed,
	// longest due first, and the earliest Next of the others; zero if there is
	// none.
	Due(ctx context.Context, p Partition, now time.Time, limit int) (due []Retry, next time.Time, err error)
	// Requeue makes the retries due that were parked for a reason and first failed
	// at a time or later, and returns how many. Dead letters stay.
	Requeue(ctx context.Context, l Lease, reason string, since, now time.Time) (int64, error)
	// NextParked returns the oldest live retries of one resource, at most limit.
	NextParked(ctx context.Context, endpoint string, e tidings.Event, limit int) ([]Retry, error)
	// Parked returns parked events in log order; those at the same position are
	// sorted by endpoint.
	Parked(ctx context.Context, f ParkedFilter) ([]Retry, error)
	// Discarded returns at most limit live events of a partition that were discarded
	// and not yet removed. To remove them, list them in [Parking.Done].
	Discarded(ctx context.Context, p Partition, limit int) ([]Retry, error)
}

// ParkedKeeper is what operators do with parked events.
type ParkedKeeper interface {
	// ParkedCounts returns the number of parked events by endpoint, and the oldest.
	// The counts are maintained as events change, so the call is cheap however many
	// there are.
	ParkedCounts(ctx context.Context) (map[string]ParkedCount, error)
	// ParkedGroups returns the parked events counted by endpoint, reason and
	// response, the largest groups first, at most limit.
	ParkedGroups(ctx context.Context, f ParkedFilter, limit int) ([]ParkedGroup, error)
	// CountParked counts parked events without reading them. After, AfterEndpoint and Limit
	// of the filter have no meaning.
	CountParked(ctx context.Context, f ParkedFilter) (Count, error)
	// RetryParked makes events of an endpoint due. For one that waits behind another of
	// its resource, that one becomes due. A dead letter is parked again, with a new
	// schedule.
	RetryParked(ctx context.Context, endpoint string, events []tidings.Event, now time.Time) error
	// Discard removes parked events at the given positions, or dead letters, and adds
	// a record of each to the history. It returns how many there were.
	Discard(ctx context.Context, endpoint string, sequences []int64, d Discard) (int64, error)
}

// Discard describes who discarded parked events, when and why.
type Discard struct {
	At          time.Time
	By, Comment string
}

// Record returns the history record of a discarded event.
func (d Discard) Record(r Retry) Record {
	return Record{
		Endpoint: r.Endpoint, At: d.At, Sequence: r.Event.Sequence, EventID: r.Event.ID, Event: r.Event.Name(),
		Resource: r.Event.Resource(), Outcome: Discarded, Attempt: r.Attempts, Reason: r.Reason, By: d.By, Comment: d.Comment,
	}
}

// Parking is a set of changes to the parked events under one lease.
type Parking struct {
	Lease   Lease
	Retries []Retry
	// Done are the positions of events that were delivered or merged; their rows
	// are removed.
	Done []int64
}

// Rows returns the number of rows written.
func (p Parking) Rows() int { return len(p.Retries) + len(p.Done) }

// ParkedFilter selects parked events. The zero value selects all.
type ParkedFilter struct {
	Endpoint string
	Sequence int64
	// ID selects one event by id, which requires a scan.
	ID string
	// Dead selects only dead letters.
	Dead bool
	// Reason selects events by the reason of their last failure, Resource by
	// "provider/<id>" or an id alone, and Patterns by type and action. Empty means any.
	Reason, Resource string
	Patterns         []tidings.Pattern
	// After is the position after which the list starts.
	After int64
	// AfterEndpoint, if set, makes the list start at position After itself, after
	// that endpoint.
	AfterEndpoint string
	Limit         int
}

// ParkedCount is the number of an endpoint's parked events.
type ParkedCount struct {
	Live, Dead int64
	// Oldest is the position of the oldest live one, and At its time.
	Oldest int64
	At     time.Time
}

// ParkedGroup is a group of parked events of an endpoint that failed alike.
type ParkedGroup struct {
	Endpoint, Reason, Response string
	// Count includes Dead, the dead letters. Waiting ones, which have no reason, are a
	// group of their own.
	Count, Dead int64
	// First and Last are the lowest and the highest position.
	First, Last int64
	// FirstAt and LastAt are the times of the first and last failed attempts.
	FirstAt, LastAt time.Time
	// Next is when the next of them is tried again; zero if none is.
	Next time.Time
}

// Removed describes an endpoint that [Expirer.ExpireEndpoints] removed.
type Removed struct {
	Endpoint string
	// Cursor is its lowest position; 0 if it had no cursor.
	Cursor int64
	// Parked is the number of its parked events, including dead letters.
	Parked int64
}

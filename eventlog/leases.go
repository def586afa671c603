package eventlog

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
)

// Partition is a share of an endpoint's events: those of some resources. An
// endpoint has one unless it is configured to have more.
type Partition struct {
	Endpoint string
	// Index is from 0 to Of-1.
	Index, Of int
}

// Lane is a number for a resource, the same in every process.
func Lane(e tidings.Event) int64 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(e.Type)) // a hash takes everything
	_, _ = hash.Write([]byte{'/'})
	_, _ = hash.Write([]byte(e.ResourceID))
	return int64(hash.Sum32())
}

// Has reports whether an event is in the partition.
func (p Partition) Has(e tidings.Event) bool {
	return p.Of <= 1 || Lane(e)%int64(p.Of) == int64(p.Index)
}

// Lease is the right to deliver a partition's events. It ends when its replica
// leaves or is declared dead, and its generation grows with each new owner.
type Lease struct {
	Partition
	// Owner is the id of a replica; empty or that of a dead one if it is free.
	Owner      string
	Generation int64
	// Epoch is that in which the owner knows the log. Writes under the lease are
	// refused with [ErrNewEpoch] once another one began.
	Epoch string
}

// Same reports whether two leases are the same one, maybe known in other epochs.
func (l Lease) Same(other Lease) bool {
	return l.Partition == other.Partition && l.Owner == other.Owner && l.Generation == other.Generation
}

// Refused returns why nothing may be written under a lease, of whose partition the log has
// the other: [ErrLeaseLost], [ErrNewEpoch], or nil.
func (l Lease) Refused(now Lease) error {
	switch {
	case now.Partition != l.Partition || now.Generation != l.Generation || now.Owner != l.Owner:
		return ErrLeaseLost
	case now.Epoch != l.Epoch:
		return ErrNewEpoch
	}
	return nil
}

// Cursor is how far a partition has come, and who may move it.
type Cursor struct {
	Lease
	// Sequence is the highest position below which everything is settled:
	// delivered, not matched, merged or parked.
	Sequence int64
	// Marks say what is settled above Sequence.
	Marks Marks
	// Status is how the endpoint was doing when the cursor was saved, in the
	// owner's words, for those who ask another replica.
	Status string
	// Saved is when it was saved, set by the log.
	Saved time.Time
	// Removed is since when no such endpoint is configured, as [Cursors.Prepare]
	// found; zero if one is.
	Removed time.Time
	// Former is a name that the endpoint had, and that parked events of it still have;
	// see [Cursors.Rename]. Nobody can acquire the lease until they have followed.
	Former string
}

// Equal reports whether a cursor says the same as another.
func (c Cursor) Equal(other Cursor) bool {
	return c.Lease == other.Lease && c.Sequence == other.Sequence && c.Status == other.Status &&
		c.Saved.Equal(other.Saved) && c.Marks.equal(other.Marks)
}

// Replica is a process that delivers from the log.
type Replica struct {
	// ID is one that no other process has or had.
	ID string
	// Group is the same for replicas with the same endpoints; they share them
	// evenly.
	Group string
}

// LongestLife is how many times longer than another one a replica may live.
const LongestLife = 6

// Leases share the endpoints among replicas. Times are the database's: a replica
// lives until the time to live has passed since it was last kept alive, and then
// until another removes it.
type Leases interface {
	// Join makes a replica known.
	Join(ctx context.Context, r Replica, ttl time.Duration) error
	// KeepAlive prolongs the life of a replica and sets its group. It returns
	// false if the replica was removed: then it has lost all its leases and must
	// join under another id.
	//
	// Another one that would live [LongestLife] times as long from now on was told so
	// before the clock was set back: it lives as long as this one, unless it says more.
	KeepAlive(ctx context.Context, r Replica, ttl time.Duration) (bool, error)
	// Leave removes a replica, which frees all its leases.
	Leave(ctx context.Context, id string) error
	// Replicas returns those that live.
	Replicas(ctx context.Context) ([]Replica, error)
	// Acquire takes those of the partitions that are free and returns their
	// cursors. It removes dead replicas.
	Acquire(ctx context.Context, owner string, want []Partition) ([]Cursor, error)
	// Release frees leases; those that were lost already stay as they are.
	Release(ctx context.Context, leases []Lease) error
}

// Cursors keeps the cursors.
type Cursors interface {
	// Prepare makes cursors for endpoints that have none, at the end of the log if
	// that comes before where they are to begin. Where an endpoint has
	// another number of partitions than before, the new ones begin at the lowest
	// cursor of the old ones, with marks of what those had settled above it, and
	// stay with the old owner until it has ended.
	//
	// Cursors of endpoints that are not in the setup are noted as removed, and those
	// that are in it again as not removed. Running replays of removed endpoints end.
	Prepare(ctx context.Context, s Setup) error
	// Rename has the cursors of an endpoint, what was said about it, its gaps and its
	// replays go by another name. The cursors stay with their owners until these have
	// ended what they do. It returns false if the endpoint has no cursor, or one of
	// the other name has. Parked events follow with [Cursors.MoveParked].
	Rename(ctx context.Context, from, to string) (bool, error)
	// MoveParked has some parked events follow endpoints that were renamed, and
	// returns whether there are more.
	MoveParked(ctx context.Context) (more bool, err error)
	// Cursors returns all of them.
	Cursors(ctx context.Context) ([]Cursor, error)
	// SaveCursors writes cursors whose lease is held, and returns the leases that
	// were lost. A cursor never moves back within an epoch: the higher position of
	// the saved and the given one stays.
	SaveCursors(ctx context.Context, cursors []Cursor) (lost []Lease, err error)
	// SaveGap notes that a cursor fell off the end of the log.
	SaveGap(ctx context.Context, g Gap) error
	// SaveLoss notes a gap for every cursor: the database lost the events from one
	// position to another. Of what was noted before from the same position on, the
	// longer one stays.
	SaveLoss(ctx context.Context, from, to int64, at time.Time) error
}

// Setup is the endpoints that are configured.
type Setup struct {
	// Partitions are those of all endpoints that events are delivered to.
	Partitions []Partition
	// Disabled are the names of endpoints that get nothing now; their cursors stay.
	Disabled []string
	// Head is the position after which an endpoint without a cursor begins, and Start
	// the same for some endpoints, by name.
	Head  int64
	Start map[string]int64
}

// Begin is the position at which an endpoint without a cursor begins.
func (s Setup) Begin(endpoint string) int64 {
	if at, ok := s.Start[endpoint]; ok {
		return at
	}
	return s.Head
}

// Names returns the names of all endpoints.
func (s Setup) Names() map[string]bool {
	names := make(map[string]bool)
	for _, p := range s.Partitions {
		names[p.Endpoint] = true
	}
	for _, name := range s.Disabled {
		names[name] = true
	}
	return names
}

// RemovedReason is why a replay ended whose endpoint is not configured any more.
const RemovedReason = "the endpoint was removed"

// GapReason is why there is a [Gap].
type GapReason string

const (
	// GapExpired is that the events expired before the endpoint got them.
	GapExpired GapReason = "expired"
	// GapLost is that the database lost the events, in a failover or since it was
	// restored from a backup. The endpoint may have got some of them before.
	GapLost GapReason = "lost"
)

// Gap is a range of positions whose events an endpoint will not get.
type Gap struct {
	Endpoint string
	Index    int // of the partition
	From, To int64
	At       time.Time
	Reason   GapReason // empty means [GapExpired]
}

// Positions returns how many positions are in any of the gaps, which are those of one
// endpoint: its partitions may have missed the same ones.
func Positions(gaps []Gap) (n int64) {
	gaps = slices.SortedFunc(slices.Values(gaps), func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
	var end int64
	for _, g := range gaps {
		n += max(g.To-max(g.From-1, end), 0)
		end = max(end, g.To)
	}
	return n
}

package eventlog

import (
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
)

// Partition is a share of an endpoint's events, divided by resource. An endpoint
// has one partition unless it is configured to have more.
type Partition struct {
	Endpoint string
	// Index ranges from 0 to Of-1.
	Index, Of int
}

// PartitionKey returns the hash that assigns an event's resource to a partition. It
// is the same in every process.
func PartitionKey(e tidings.Event) int64 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(e.Type)) // writing to a hash never fails
	_, _ = hash.Write([]byte{'/'})
	_, _ = hash.Write([]byte(e.ResourceID))
	return int64(hash.Sum32())
}

// Has reports whether an event belongs to the partition.
func (p Partition) Has(e tidings.Event) bool {
	return p.Of <= 1 || PartitionKey(e)%int64(p.Of) == int64(p.Index)
}

// Lease is the exclusive right to deliver a partition's events. It ends when its
// replica leaves or is declared dead. Its generation increases with each new owner.
type Lease struct {
	Partition
	// Owner is the id of a replica. The lease is free if it is empty or the replica
	// is dead.
	Owner      string
	Generation int64
	// Epoch is the epoch that the owner knows. Once a newer one has begun, writes
	// under the lease are refused with [ErrNewEpoch].
	Epoch string
}

// Same reports whether two leases are the same apart from their epoch.
func (l Lease) Same(other Lease) bool {
	return l.Partition == other.Partition && l.Owner == other.Owner && l.Generation == other.Generation
}

// Refused returns why writes under a lease are refused, given the lease that the
// log now has for its partition: [ErrLeaseLost], [ErrNewEpoch], or nil.
func (l Lease) Refused(now Lease) error {
	switch {
	case now.Partition != l.Partition || now.Generation != l.Generation || now.Owner != l.Owner:
		return ErrLeaseLost
	case now.Epoch != l.Epoch:
		return ErrNewEpoch
	}
	return nil
}

// Cursor is the position of a partition in the log, and who may move it.
type Cursor struct {
	Lease
	// Sequence is the highest position at or below which everything is settled:
	// delivered, not matched, merged or parked.
	Sequence int64
	// Marks list what is settled above Sequence.
	Marks Marks
	// Status is the state of the endpoint when the cursor was saved, in the owner's
	// own format, for other replicas to show.
	Status string
	// Saved is when the cursor was saved, set by the log.
	Saved time.Time
	// Removed is when [Cursors.Prepare] found that the endpoint is no longer
	// configured; zero if it is configured.
	Removed time.Time
	// Former is the endpoint's previous name while it still has parked events under
	// it; see [Cursors.Rename]. Until those are moved, the lease cannot be
	// acquired.
	Former string
}

// Equal reports whether two cursors are equal.
func (c Cursor) Equal(other Cursor) bool {
	return c.Lease == other.Lease && c.Sequence == other.Sequence && c.Status == other.Status &&
		c.Saved.Equal(other.Saved) && c.Marks.equal(other.Marks)
}

// Replica is a process that delivers from the log.
type Replica struct {
	// ID is unique: no other process has or had it.
	ID string
	// Group is the same for replicas with the same endpoints, which they share
	// evenly.
	Group string
	// Version is that of the program; may be empty. Started is when the process started,
	// and Memory how many bytes it has from the operating system.
	Version string
	Started time.Time
	Memory  int64
}

// LongestLife is the factor by which one replica's time to live may exceed
// another's.
const LongestLife = 6

// Leases distributes the endpoints among replicas. All times are the database's: a
// replica is alive until its time to live has passed since its last KeepAlive, and
// after that until another replica removes it.
type Leases interface {
	// Join registers a replica.
	Join(ctx context.Context, r Replica, ttl time.Duration) error
	// KeepAlive renews a replica's registration and sets its group. It returns
	// false if the replica was removed: it has then lost all its leases and must
	// join under another id.
	//
	// If the clock was set back, another replica's expiry may be too far in the
	// future. One that would live [LongestLife] times as long as this one has its
	// expiry cut to this one's, unless it renews it.
	KeepAlive(ctx context.Context, r Replica, ttl time.Duration) (bool, error)
	// Leave removes a replica, which frees all its leases.
	Leave(ctx context.Context, id string) error
	// Replicas returns the replicas that are alive.
	Replicas(ctx context.Context) ([]Replica, error)
	// Acquire acquires those of the partitions that are free and returns their
	// cursors. It removes dead replicas.
	Acquire(ctx context.Context, owner string, want []Partition) ([]Cursor, error)
	// Release releases leases. It ignores those that were already lost.
	Release(ctx context.Context, leases []Lease) error
}

// Cursors stores the cursors.
type Cursors interface {
	// Prepare creates cursors for endpoints that have none, at their starting
	// position or at the end of the log, whichever is lower. If an endpoint's
	// number of partitions has changed, the new ones start at the lowest cursor of
	// the old ones, with marks of what those had settled above it, and stay with
	// the old owner until it has finished.
	//
	// Cursors of endpoints that are not in the setup are marked as removed; those
	// of endpoints that are back in it no longer are. Running replays of removed
	// endpoints end.
	//
	// If the endpoints are no longer those of [Setup.Known], it does nothing and
	// returns [ErrEndpointsChanged].
	Prepare(ctx context.Context, s Setup) error
	// Rename changes the name of an endpoint's cursors, control, gaps and replays.
	// The cursors stay with their owners until these have finished. It returns
	// false if the endpoint has no cursor or the new name already has one. Parked
	// events are moved by [Cursors.MoveParked].
	Rename(ctx context.Context, from, to string) (bool, error)
	// MoveParked moves some parked events of renamed endpoints to their new names
	// and reports whether there are more.
	MoveParked(ctx context.Context) (more bool, err error)
	// Cursors returns all cursors.
	Cursors(ctx context.Context) ([]Cursor, error)
	// SaveCursors saves the cursors whose lease is held and returns the leases that
	// were lost. A cursor never moves back within an epoch: the higher of the saved
	// and the given position is kept.
	SaveCursors(ctx context.Context, cursors []Cursor) (lost []Lease, err error)
	// SaveGap records that events expired before a cursor reached them.
	SaveGap(ctx context.Context, g Gap) error
	// SaveLoss records a gap for every cursor: the database lost the events in a
	// range of positions. If a gap that starts at the same position is already
	// recorded, the longer one is kept.
	SaveLoss(ctx context.Context, from, to int64, at time.Time) error
}

// Setup describes the configured endpoints.
type Setup struct {
	// Partitions are the partitions of all enabled endpoints.
	Partitions []Partition
	// Disabled are the names of disabled endpoints, which keep their cursors.
	Disabled []string
	// Head is the position after which endpoints without a cursor start. Start
	// overrides it for some endpoints, by name.
	Head  int64
	Start map[string]int64
	// Known are the endpoints with a cursor when the setup was made, and whether
	// each was configured. Nil means that the setup is right whatever they are.
	Known map[string]bool
}

// Outdated reports whether the endpoints with a cursor, and which of them are
// configured, differ from those that the setup is based on.
func (s Setup) Outdated(configured map[string]bool) bool {
	return s.Known != nil && !maps.Equal(s.Known, configured)
}

// Begin returns the position after which an endpoint without a cursor starts.
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

// RemovedReason is the reason of a replay that ended because its endpoint was
// removed.
const RemovedReason = "the endpoint was removed"

// GapReason is the reason for a [Gap].
type GapReason string

const (
	// GapExpired means that the events expired before the endpoint got them.
	GapExpired GapReason = "expired"
	// GapLost means that the database lost the events, in a failover or a restore
	// from a backup. The endpoint may have received some of them before.
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

// Positions returns the number of distinct positions in the gaps of one endpoint.
// Gaps of its partitions may overlap.
func Positions(gaps []Gap) (n int64) {
	gaps = slices.SortedFunc(slices.Values(gaps), func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
	var end int64
	for _, g := range gaps {
		n += max(g.To-max(g.From-1, end), 0)
		end = max(end, g.To)
	}
	return n
}

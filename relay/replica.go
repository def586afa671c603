package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	mathrand "math/rand/v2"
	"os"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// replica represents this process among those that share the log: it renews its
// membership, takes its share of the endpoints, and runs their consumers. Its
// fields belong to the goroutine of run.
type replica struct {
	relay    *Relay
	id       string
	lifetime *lifetime
	joined   bool
	slots    map[eventlog.Partition]*slot
	ended    chan *slot
	failed   bool
	raced    bool  // another replica acquired something first; there may be more to take
	behind   *view // the view in which a new epoch was noticed
	// undivided is since when an endpoint's partitions have differed from what all
	// replicas want; zero if they do not.
	undivided time.Time
}

// slot is a consumer that is running or draining.
type slot struct {
	*consumer
	stop     context.CancelFunc
	stopping bool
}

// lifetime limits how long this process may deliver under its leases. It is based
// on the last renewal that the database confirmed, and ends earlier here than
// there.
type lifetime struct {
	renewed atomic.Pointer[time.Time]
	ttl     time.Duration
}

func (l *lifetime) renew(at time.Time) { l.renewed.Store(&at) }

func (l *lifetime) end() { l.renewed.Store(nil) }

// valid reports whether the lifetime has not expired, by both the monotonic clock,
// which stops while the machine sleeps, and the wall clock, which does not.
func (l *lifetime) valid(now time.Time) bool {
	renewed := l.renewed.Load()
	return renewed != nil && now.Sub(*renewed) < l.ttl && now.Round(0).Sub(renewed.Round(0)) < l.ttl
}

func newReplica(r *Relay) *replica {
	return &replica{
		relay: r, slots: make(map[eventlog.Partition]*slot), ended: make(chan *slot),
		// Expire a tenth earlier than in the database, in case the clocks run at
		// different speeds.
		lifetime: &lifetime{ttl: r.options.LeaseTime * 9 / 10},
	}
}

// newID returns an id that no other process has or had. It begins with the host
// name, for human readers.
func newID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:12])
}

// run takes part until the context ends. Then it drains every consumer and returns
// them.
func (p *replica) run(ctx context.Context) (ended []*consumer) {
	ctx = eventlog.Urgent(ctx)
	interval := p.relay.options.LeaseTime / 3
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case s := <-p.ended:
			p.finish(ctx, s)
		case <-timer.C:
		case <-p.relay.updated:
		case <-p.relay.log.Nudged():
		}
		p.step(ctx)
		timer.Reset(p.pause(interval))
	}
	return p.drain()
}

// raceTime is how long to wait after a race for leases, until the others have
// started with theirs.
const raceTime = 50 * time.Millisecond

// step reconciles leases and consumers. Errors are retried at the next step.
func (p *replica) step(ctx context.Context) {
	err := p.take(ctx)
	switch {
	case err != nil && !p.failed && ctx.Err() == nil:
		p.relay.logger.Error("leases cannot be kept, trying again", "error", err)
	case err == nil && p.failed:
		p.relay.logger.Info("leases are kept again")
	}
	p.failed = err != nil
}

// pause returns how long to wait before the next step.
func (p *replica) pause(interval time.Duration) time.Duration {
	switch {
	case p.failed:
		interval = min(interval, time.Second)
	case p.raced:
		interval = min(interval, raceTime)
	}
	// Jitter, so that replicas that started together do not query together.
	return interval - time.Duration(mathrand.Int64N(int64(interval)/8+1))
}

// take renews this process's leases, releases surplus ones, acquires its share, and
// starts and stops consumers accordingly.
func (p *replica) take(ctx context.Context) error {
	endpoints := p.relay.configured()
	var wanted []eventlog.Partition
	for _, e := range endpoints {
		wanted = append(wanted, e.partitions()...)
	}
	slices.SortFunc(wanted, comparePartitions)
	if err := p.keepAlive(ctx, group(wanted)); err != nil {
		return err
	}
	replicas, err := p.relay.log.Replicas(ctx)
	if err != nil {
		return err
	}
	cursors, err := p.relay.log.Cursors(ctx)
	if err != nil {
		return err
	}
	controls, err := p.relay.log.Controls(ctx)
	if err != nil {
		return err
	}
	asked := time.Now()
	replays, err := p.relay.log.Replays(ctx, true, nextReplays)
	if err != nil {
		return err
	}
	if err := p.check(ctx, cursors); err != nil {
		return err
	}
	if err := p.moveParked(ctx, cursors); err != nil {
		return err
	}
	if err := p.divide(ctx, replicas, cursors, wanted); err != nil {
		return err
	}
	peers, held := p.peers(replicas, cursors, wanted)
	share := quota(len(wanted), peers, held, p.id)
	p.stopSurplus(endpoints, share)
	if err := p.acquire(ctx, endpoints, controls, p.free(replicas, cursors, wanted), share); err != nil {
		return err
	}
	for _, s := range p.slots {
		s.setReplays(replays, asked)
		s.setControl(controls[s.endpoint.Name])
	}
	notify(p.relay.moved) // to save the rates, which change over time
	return nil
}

// nextReplays is how many unfinished replays are listed for each endpoint.
const nextReplays = 10

// group returns a hash that is the same for replicas that want the same partitions.
func group(wanted []eventlog.Partition) string {
	wanted = slices.SortedFunc(slices.Values(wanted), comparePartitions)
	hash := fnv.New64a()
	for _, w := range wanted {
		_, _ = io.WriteString(hash, w.Endpoint) // a hash takes everything
		_, _ = hash.Write([]byte{0})
		_, _ = io.WriteString(hash, strconv.Itoa(w.Of))
		_, _ = hash.Write([]byte{0})
	}
	return fmt.Sprintf("%016x", hash.Sum64())
}

// agree reports whether all replicas want the same partitions.
func agree(replicas []eventlog.Replica, wanted []eventlog.Partition) bool {
	mine := group(wanted)
	return !slices.ContainsFunc(replicas, func(other eventlog.Replica) bool { return other.Group != mine })
}

func comparePartitions(a, b eventlog.Partition) int {
	if c := compare(a.Endpoint, b.Endpoint); c != 0 {
		return c
	}
	return a.Index - b.Index
}

// processStart is about when this process started.
var processStart = time.Now()

// self is what this replica says of itself.
func (p *replica) self(group string) eventlog.Replica {
	memory := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(memory)
	return eventlog.Replica{
		ID: p.id, Group: group, Version: p.relay.options.Version, Started: processStart,
		Memory: int64(memory[0].Value.Uint64()),
	}
}

// keepAlive renews this process's membership. If it was declared dead because it
// was suspended for so long that others took over, it rejoins under a new id.
func (p *replica) keepAlive(ctx context.Context, group string) error {
	now := time.Now()
	if p.joined {
		// A query that hangs must leave time for another try.
		asking, cancel := context.WithTimeout(ctx, p.relay.options.LeaseTime/3)
		alive, err := p.relay.log.KeepAlive(asking, p.self(group), p.relay.options.LeaseTime)
		cancel()
		if err != nil {
			return err
		}
		if alive {
			p.lifetime.renew(now)
			return nil
		}
		p.relay.logger.Warn(
			"this replica was silent for too long: others have taken over its endpoints; it rejoins under a new id",
			"replica", p.id)
		p.die()
	}
	p.id = newID()
	if err := p.relay.log.Join(ctx, p.self(group), p.relay.options.LeaseTime); err != nil {
		return err
	}
	p.joined = true
	p.lifetime = &lifetime{ttl: p.lifetime.ttl}
	p.lifetime.renew(now)
	return p.relay.log.Nudge(ctx)
}

// die aborts all work under this process's leases.
func (p *replica) die() {
	p.joined = false
	p.lifetime.end()
	for _, s := range p.slots {
		s.lose()
		s.stopping = true
	}
}

// check stops consumers whose lease was lost or whose cursor was moved, and
// releases leases of this process that have no consumer. It keeps those while a
// consumer that lost its lease is ending: if an endpoint was repartitioned or
// renamed, the lease still belongs to that consumer.
func (p *replica) check(ctx context.Context, cursors []eventlog.Cursor) error {
	mine := make(map[eventlog.Partition]eventlog.Lease)
	moved := make(map[eventlog.Partition]int64)
	var orphans []eventlog.Lease
	for _, c := range cursors {
		if c.Owner != p.id {
			continue
		}
		mine[c.Partition], moved[c.Partition] = c.Lease, c.Sequence
		if p.slots[c.Partition] == nil {
			orphans = append(orphans, c.Lease)
		}
	}
	ending := false
	for partition, s := range p.slots {
		if !mine[partition].Same(s.lease()) {
			s.lose()
			s.stopping, ending = true, true
		} else if moved[partition] > s.progress.position.Load().cursor && !s.stopping {
			s.halt() // what it had to send has expired; it restarts behind that
		}
	}
	if len(orphans) == 0 || ending {
		return nil
	}
	notify(p.relay.updated) // to acquire them immediately if they are still wanted
	return p.relay.log.Release(ctx, orphans)
}

// divide repartitions endpoints as all replicas want them, once they have differed
// for a while: the database lost the change, or a replica with old settings
// reverted it before leaving. A single replica partitions an endpoint only when it
// loads its settings.
func (p *replica) divide(
	ctx context.Context, replicas []eventlog.Replica, cursors []eventlog.Cursor, wanted []eventlog.Partition,
) error {
	now, agreed := time.Now(), agree(replicas, wanted)
	there := make(map[eventlog.Partition]bool, len(cursors))
	for _, c := range cursors {
		there[c.Partition] = true
	}
	missing := slices.ContainsFunc(wanted, func(w eventlog.Partition) bool { return !there[w] })
	switch {
	case !agreed || !missing:
		p.undivided = time.Time{}
	case p.undivided.IsZero():
		p.undivided = now
	case now.Sub(p.undivided) >= p.relay.options.LeaseTime:
		p.undivided = time.Time{}
		notify(p.relay.updated) // to acquire them immediately
		return p.relay.prepareCurrent(ctx)
	}
	return nil
}

// moveTime is how long one step may spend moving parked events of renamed
// endpoints.
const moveTime = 300 * time.Millisecond

// moveParked moves parked events to the new names of renamed endpoints.
func (p *replica) moveParked(ctx context.Context, cursors []eventlog.Cursor) error {
	if !slices.ContainsFunc(cursors, func(c eventlog.Cursor) bool { return c.Former != "" }) {
		return nil
	}
	for begun := time.Now(); time.Since(begun) < moveTime; {
		more, err := p.relay.log.MoveParked(ctx)
		if err != nil {
			return err
		}
		if !more {
			return p.relay.log.Nudge(ctx)
		}
	}
	notify(p.relay.updated) // continue in the next step
	return nil
}

// peers returns the replicas that share the same endpoints, this one included, and
// how many of the wanted partitions each holds.
func (p *replica) peers(
	replicas []eventlog.Replica, cursors []eventlog.Cursor, wanted []eventlog.Partition,
) (ids []string, held map[string]int) {
	mine := group(wanted)
	for _, other := range replicas {
		if other.Group == mine {
			ids = append(ids, other.ID)
		}
	}
	held = make(map[string]int)
	for _, c := range cursors {
		if _, found := slices.BinarySearchFunc(wanted, c.Partition, comparePartitions); found {
			held[c.Owner]++
		}
	}
	return ids, held
}

// stopSurplus stops consumers whose endpoint was removed or reconfigured, and those
// beyond this process's share.
func (p *replica) stopSurplus(endpoints map[string]*configured, share int) {
	var well []*slot
	for _, s := range p.slots {
		switch {
		case s.stopping:
		case endpoints[s.endpoint.Name] != s.configured:
			s.halt()
		default:
			well = append(well, s)
		}
	}
	slices.SortFunc(well, func(a, b *slot) int { return comparePartitions(a.lease().Partition, b.lease().Partition) })
	for _, s := range well[min(share, len(well)):] {
		s.halt()
	}
}

// halt stops a consumer, which drains its attempts in flight.
func (s *slot) halt() {
	s.stopping = true
	s.stop()
}

// free returns, in random order, the partitions that no live replica holds.
func (p *replica) free(
	replicas []eventlog.Replica, cursors []eventlog.Cursor, wanted []eventlog.Partition,
) []eventlog.Partition {
	live := make(map[string]bool)
	for _, other := range replicas {
		live[other.ID] = true
	}
	var free []eventlog.Partition
	for _, c := range cursors {
		_, found := slices.BinarySearchFunc(wanted, c.Partition, comparePartitions)
		if found && !live[c.Owner] && p.slots[c.Partition] == nil {
			free = append(free, c.Partition)
		}
	}
	mathrand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	return free
}

// acquire takes free partitions up to this process's share and starts their
// consumers.
func (p *replica) acquire(
	ctx context.Context, endpoints map[string]*configured, controls map[string]eventlog.Control,
	free []eventlog.Partition, share int,
) error {
	have := 0
	for _, s := range p.slots {
		if !s.stopping {
			have++
		}
	}
	free = free[:min(len(free), max(share-have, 0))]
	p.raced = false
	if len(free) == 0 {
		return nil
	}
	view := p.relay.tail.view.Load()
	if view == p.behind {
		p.raced = true
		return nil
	}
	got, err := p.relay.log.Acquire(ctx, p.id, free)
	if err != nil {
		return err
	}
	p.raced = len(got) < len(free)
	total := have + len(got)
	var early []eventlog.Lease
	for _, cursor := range got { // all partitions, before the first one sends
		if h := lastSaved(cursor).Hint; h != nil {
			endpoints[cursor.Endpoint].hinted.extend(*h)
		}
	}
	for _, cursor := range got {
		if cursor.Epoch != view.epoch {
			early = append(early, cursor.Lease)
			continue
		}
		p.start(ctx, view.losses, endpoints[cursor.Endpoint], cursor, controls[cursor.Endpoint], total)
	}
	if len(early) == 0 {
		return nil
	}
	p.relay.log.Wake() // let the tail find out first what was lost
	p.raced, p.behind = true, view
	return p.relay.log.Release(ctx, early)
}

func (p *replica) start(
	ctx context.Context, losses int, e *configured, cursor eventlog.Cursor, control eventlog.Control, total int,
) {
	running, stop := context.WithCancel(eventlog.Ordinary(ctx))
	s := &slot{consumer: newConsumer(e, cursor, losses, p.relay, p.lifetime, control, total), stop: stop}
	p.relay.mu.Lock()
	e.users++
	p.relay.running[s.consumer] = struct{}{}
	p.relay.mu.Unlock()
	s.ledger.valid() // it may have been missed when a loss ended all consumers
	p.slots[cursor.Partition] = s
	go func() {
		s.run(running)
		p.ended <- s
	}()
}

// finish saves the cursor of a consumer that has ended and releases its lease.
func (p *replica) finish(ctx context.Context, s *slot) {
	s.stop()
	delete(p.slots, s.lease().Partition)
	if !s.lost() {
		err := errors.Join(p.relay.saveCursors(ctx, s.consumer), p.relay.log.Release(ctx, []eventlog.Lease{s.lease()}))
		if err == nil {
			err = p.relay.log.Nudge(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("lease cannot be released; it expires after this process has ended", "error", err)
		}
	}
	p.relay.forget(s.consumer)
}

// drain waits until all consumers have ended, and renews the leases until then so
// that no other replica takes over.
func (p *replica) drain() (ended []*consumer) {
	renewal := time.NewTicker(p.relay.options.LeaseTime / 3)
	defer renewal.Stop()
	for len(p.slots) > 0 {
		select {
		case s := <-p.ended:
			s.stop()
			delete(p.slots, s.lease().Partition)
			ended = append(ended, s.consumer)
		case <-renewal.C:
			now := time.Now()
			asking, cancel := context.WithTimeout(eventlog.Urgent(p.relay.writes), p.relay.options.LeaseTime/3)
			alive, err := p.relay.log.KeepAlive(asking, eventlog.Replica{ID: p.id}, p.relay.options.LeaseTime)
			cancel()
			if err == nil && alive {
				p.lifetime.renew(now)
			} else if err == nil {
				p.die()
			}
		}
	}
	return ended
}

// leave saves the cursors of consumers that have ended and releases all leases.
func (p *replica) leave(ended []*consumer) error {
	final, cancel := context.WithTimeout(eventlog.Urgent(p.relay.writes), finalTime)
	defer cancel()
	err := p.relay.saveCursors(final, ended...)
	for _, c := range ended {
		p.relay.forget(c)
	}
	if p.joined {
		err = errors.Join(err, p.relay.log.Leave(final, p.id), p.relay.log.Nudge(final))
	}
	if err != nil {
		return fmt.Errorf("save cursors at the end: %w", err)
	}
	return nil
}

// configured returns the current endpoints.
func (r *Relay) configured() map[string]*configured {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endpoints
}

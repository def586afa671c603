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
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// replica is this process among those that share the log: it says that it is
// alive, takes its share of the endpoints, and runs their consumers. Its fields
// belong to the goroutine of run.
type replica struct {
	relay  *Relay
	id     string
	alive  *lifetime
	joined bool
	slots  map[eventlog.Partition]*slot
	ended  chan *slot
	failed bool
	raced  bool  // another replica was faster; there may be more to take
	behind *view // how the log was known when another epoch had begun
	// undivided is since when an endpoint is not divided as all replicas want it; zero
	// if none is.
	undivided time.Time
}

// slot is a consumer that runs, or finishes what is under way.
type slot struct {
	*consumer
	stop     context.CancelFunc
	stopping bool
}

// lifetime is until when this process may deliver what it has leased. It knows
// no more than what the database said last, and is over earlier here than there.
type lifetime struct {
	renewed atomic.Pointer[time.Time]
	time    time.Duration
}

func (l *lifetime) renew(at time.Time) { l.renewed.Store(&at) }

func (l *lifetime) end() { l.renewed.Store(nil) }

// has reports whether the time has not run out, by the clock that stands still
// while the machine sleeps and by the one that does not.
func (l *lifetime) has(now time.Time) bool {
	renewed := l.renewed.Load()
	return renewed != nil && now.Sub(*renewed) < l.time && now.Round(0).Sub(renewed.Round(0)) < l.time
}

func newReplica(r *Relay) *replica {
	return &replica{
		relay: r, slots: make(map[eventlog.Partition]*slot), ended: make(chan *slot),
		// A tenth earlier than the database says, for clocks that run at other speeds.
		alive: &lifetime{time: r.options.LeaseTime * 9 / 10},
	}
}

// newID is one that no other process has or had, which begins with the name of
// the machine for those who read it.
func newID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:12])
}

// run takes part until the context ends; then it lets every consumer finish, and returns
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

// raceTime is how long it takes for the others to have what they took.
const raceTime = 50 * time.Millisecond

// step does what is to be done now; what fails is tried again.
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
	// Replicas that started together should not ask together.
	return interval - time.Duration(mathrand.Int64N(int64(interval)/8+1))
}

// take renews what this process holds, gives back what is too much, takes what
// is its share, and starts and stops consumers as it follows from that.
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
	fellows, held := p.fellows(replicas, cursors, wanted)
	share := quota(len(wanted), fellows, held, p.id)
	p.stopSurplus(endpoints, share)
	if err := p.acquire(ctx, endpoints, controls, p.free(replicas, cursors, wanted), share); err != nil {
		return err
	}
	for _, s := range p.slots {
		s.replay(replays, asked)
		s.control(controls[s.endpoint.Name])
	}
	give(p.relay.moved) // for the rates, which change by themselves
	return nil
}

// nextReplays is how many replays of an endpoint are known at once of those that wait.
const nextReplays = 10

// group is the same for replicas that want the same partitions, which are
// sorted.
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

// keepAlive renews this process' life, or begins a new one after it was declared
// dead: it was stopped for so long that others took what it had.
func (p *replica) keepAlive(ctx context.Context, group string) error {
	now := time.Now()
	if p.joined {
		// One that has no answer must leave time for another try.
		asking, cancel := context.WithTimeout(ctx, p.relay.options.LeaseTime/3)
		alive, err := p.relay.log.KeepAlive(asking, eventlog.Replica{ID: p.id, Group: group}, p.relay.options.LeaseTime)
		cancel()
		if err != nil {
			return err
		}
		if alive {
			p.alive.renew(now)
			return nil
		}
		p.relay.logger.Warn("this replica was silent for too long: others have taken its endpoints, it begins anew",
			"replica", p.id)
		p.die()
	}
	p.id = newID()
	if err := p.relay.log.Join(ctx, eventlog.Replica{ID: p.id, Group: group}, p.relay.options.LeaseTime); err != nil {
		return err
	}
	p.joined = true
	p.alive = &lifetime{time: p.alive.time}
	p.alive.renew(now)
	return p.relay.log.Nudge(ctx)
}

// die ends all that this process does for what it had leased.
func (p *replica) die() {
	p.joined = false
	p.alive.end()
	for _, s := range p.slots {
		s.lose()
		s.stopping = true
	}
}

// check finds consumers that have lost their lease or whose cursor was moved, and
// leases of this process that no consumer has. Those stay while a consumer ends that has lost its lease: an
// endpoint that is divided otherwise, or has another name, is with its old owner.
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
			s.halt() // what it was to send has expired; it begins anew after that
		}
	}
	if len(orphans) == 0 || ending {
		return nil
	}
	give(p.relay.updated) // to take them at once, if they are still wanted
	return p.relay.log.Release(ctx, orphans)
}

// divide has endpoints divided as all replicas want them, once they have been otherwise for
// a while: the database lost that they were, or a replica with old settings put them back
// before it left. One alone divides an endpoint only when it learns its settings.
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
		p.relay.mu.Lock()
		setup := p.relay.setup
		p.relay.mu.Unlock()
		give(p.relay.updated) // to take them at once
		if err := p.relay.succeed(ctx, p.relay.Endpoints(), setup); err != nil {
			return err
		}
		return p.relay.log.Prepare(ctx, setup)
	}
	return nil
}

// moveTime bounds how long parked events of renamed endpoints are moved in one step.
const moveTime = 300 * time.Millisecond

// moveParked has parked events follow endpoints that were renamed.
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
	give(p.relay.updated) // the rest is for the next step
	return nil
}

// fellows are the replicas that share the same endpoints, this one included, and
// how many of the wanted partitions each holds.
func (p *replica) fellows(
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

// stopSurplus stops consumers of endpoints that are not configured like that any
// more, and those beyond this process' share.
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

// halt lets a consumer finish what is under way.
func (s *slot) halt() {
	s.stopping = true
	s.stop()
}

// free are the partitions that nobody has.
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

// acquire takes what is free up to this process' share, and starts consumers.
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
	p.relay.log.Wake() // the tail finds out first what was lost
	p.raced, p.behind = true, view
	return p.relay.log.Release(ctx, early)
}

func (p *replica) start(
	ctx context.Context, losses int, e *configured, cursor eventlog.Cursor, control eventlog.Control, total int,
) {
	running, stop := context.WithCancel(eventlog.Ordinary(ctx))
	s := &slot{consumer: newConsumer(e, cursor, losses, p.relay, p.alive, control, total), stop: stop}
	p.relay.mu.Lock()
	e.users++
	p.relay.running[s.consumer] = struct{}{}
	p.relay.mu.Unlock()
	s.ledger.valid() // nobody may have seen it who looked for those that a loss ends
	p.slots[cursor.Partition] = s
	go func() {
		s.run(running)
		p.ended <- s
	}()
}

// finish saves the cursor of a consumer that has ended and gives its lease back.
func (p *replica) finish(ctx context.Context, s *slot) {
	s.stop()
	delete(p.slots, s.lease().Partition)
	if !s.lost() {
		err := errors.Join(p.relay.saveCursors(ctx, s.consumer), p.relay.log.Release(ctx, []eventlog.Lease{s.lease()}))
		if err == nil {
			err = p.relay.log.Nudge(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("lease cannot be given back, it ends with this process", "error", err)
		}
	}
	p.relay.forget(s.consumer)
}

// drain waits until all consumers have ended. What is under way may take a while, and
// others must not take over meanwhile.
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
				p.alive.renew(now)
			} else if err == nil {
				p.die()
			}
		}
	}
	return ended
}

// leave saves the cursors of consumers that have ended, and gives all leases back.
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

// configured returns the endpoints as they are now.
func (r *Relay) configured() map[string]*configured {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endpoints
}

package relay

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// replays is what a consumer knows of the replays of its endpoint. One runs at a
// time.
type replays struct {
	heard   atomic.Pointer[heardReplays]
	next    chan *item           // what the one that runs wants to send
	ended   chan struct{}        // it has
	running string               // its id
	over    map[string]time.Time // when those ended that ran, by id, as long as a list has them
	sending int                  // its events under way

	cursors []eventlog.Cursor // of all partitions, as they were saved when asked for
	asked   time.Time
}

// heardReplays are those that ran or waited when they were asked for.
type heardReplays struct {
	asked time.Time
	all   []eventlog.Replay
}

func newReplays() *replays {
	return &replays{next: make(chan *item), ended: make(chan struct{}, 1), over: make(map[string]time.Time)}
}

// replay hands over the replays that ran or waited at a time; the first partition of an
// endpoint runs those of the endpoint, one after another.
func (c *consumer) replay(all []eventlog.Replay, asked time.Time) {
	if c.lease().Index != 0 {
		return
	}
	own := &heardReplays{asked: asked}
	for _, r := range all {
		if r.Endpoint == c.endpoint.Name {
			own.all = append(own.all, r)
		}
	}
	c.replays.heard.Store(own)
}

// spare returns the channel of events to be sent again while the endpoint is well, or
// may be probed, no live event waits, and at least half of what may be under way
// stays free for live ones.
func (c *consumer) spare() <-chan *item {
	if c.replays.running == "" || c.order.Waiting() > 0 || c.holds() {
		return nil
	}
	now := time.Now()
	limit := c.health.limit(now, false)
	switch {
	case c.pool.counted() >= limit, c.replays.sending >= max(limit/2, 1), c.pool.full(), !c.alive.has(now):
		return nil
	case c.limiter.TokensAt(now) < 1 || c.health.ready().After(now):
		c.timer.Reset(replayPause)
		return nil
	}
	return c.replays.next
}

// replayPause is how long a replay waits for the rate limit.
const replayPause = 20 * time.Millisecond

// beginReplay starts the first of the replays that are known, unless one runs; false if
// none is left.
func (c *consumer) beginReplay(ctx context.Context, helpers *sync.WaitGroup) bool {
	own := c.replays.heard.Load()
	if c.replays.running != "" {
		return true
	}
	if own == nil {
		return false
	}
	listed := make(map[string]bool)
	for _, r := range own.all {
		listed[r.ID] = true
	}
	maps.DeleteFunc(c.replays.over, func(id string, _ time.Time) bool { return !listed[id] })
	for _, r := range own.all {
		// The list may be older than its end; if it is not, the database lost that.
		if ended, ran := c.replays.over[r.ID]; ran && !own.asked.After(ended) {
			continue
		}
		c.replays.running = r.ID
		p := &replaying{
			Replay: r, log: c.ledger.log, lease: c.ledger.valid, endpoint: &c.endpoint,
			logger: c.logger, lost: &c.ledger.lost,
			drain: c.relay.options.DrainTimeout, out: c.replays.next,
			results: make(chan result, c.endpoint.MaxInFlight),
			batch:   min(replayBatch, c.windowLimit), underway: make(map[string]bool), waiting: make(map[int64]bool),
		}
		helpers.Go(func() {
			p.run(ctx, c.relay.writes)
			give(c.replays.ended)
		})
		return true
	}
	return false
}

// resend sends an event again for a replay, unless it would overtake older events of
// its resource that the endpoint has not got yet.
func (c *consumer) resend(ctx, attempts context.Context, it *item) {
	now := time.Now()
	own := c.lease().Has(it.event)
	settled := own && c.order.Settled(it.event) || !own && c.settledElsewhere(ctx, it.event, now)
	if settled && (!own || c.order.parked.has(it.event.Resource())) {
		settled = c.borrow(ctx, it, own, now)
	}
	if !settled {
		it.replay <- result{item: it, passed: true}
		return
	}
	c.limiter.Allow()
	c.replays.sending++
	c.launch(attempts, it, now)
}

// borrow takes an event out of the retries table for a replay, if it is the oldest of
// its resource there; false if an older one is, or if somebody else has to send it.
func (c *consumer) borrow(ctx context.Context, it *item, own bool, now time.Time) bool {
	rows, ok := c.ledger.lane(ctx, it.event, 1)
	switch {
	case !ok:
		return false
	case len(rows) == 0 || rows[0].Event.Sequence > it.event.Sequence:
		return true // it is not there: it was delivered, or is a dead letter
	case rows[0].Event.Sequence < it.event.Sequence:
		return false
	case own:
		it.attempts, it.first = rows[0].Attempts, rows[0].First
		return c.order.Borrow(it)
	case rows[0].Next.After(now): // its partition sends it, and now
		rows[0].Next = now
		c.ledger.park(ctx, rows)
	}
	return false
}

// settledElsewhere reports whether the partition that an event belongs to has settled
// it, as far as that is known.
func (c *consumer) settledElsewhere(ctx context.Context, e tidings.Event, now time.Time) bool {
	r := c.replays
	if now.Sub(r.asked) >= replayInterval {
		cursors, err := c.ledger.log.Cursors(ctx)
		if err != nil {
			return false
		}
		r.cursors, r.asked = slices.DeleteFunc(cursors,
			func(other eventlog.Cursor) bool { return other.Endpoint != c.endpoint.Name }), now
	}
	return slices.ContainsFunc(r.cursors, func(other eventlog.Cursor) bool {
		return other.Has(e) && (other.Sequence >= e.Sequence || other.Marks.Settled(e))
	})
}

// resent takes the outcome of an event that was sent again. One that was delivered
// is settled, whatever it waited for.
func (c *consumer) resent(ctx context.Context, r result, now time.Time) {
	c.replays.sending--
	it := r.item
	if r.fault == nobodys {
		c.ledger.unpark(ctx, now, it.event.Sequence)
		if it.lane != nil {
			c.settle(ctx, it)
		}
	} else if it.lane != nil {
		c.order.GiveBack(it)
		c.ledger.dueAt(now)
	}
	it.replay <- r
}

// replaying is a replay that runs. It feeds its events to the consumer one by one as
// there is room; one resource's go one after another. One that fails because of the
// endpoint is sent again after others.
type replaying struct {
	eventlog.Replay
	log      eventlog.Log
	lease    func() (eventlog.Lease, bool)
	endpoint *Endpoint
	logger   *slog.Logger
	lost     *atomic.Bool
	drain    time.Duration
	batch    int // events that are read at once
	patterns []tidings.Pattern

	out      chan<- *item
	results  chan result
	fresh    []*item         // that were read
	again    []*item         // that failed because of the endpoint
	turn     bool            // for again
	underway map[string]bool // resources of what was handed over or failed
	waiting  map[int64]bool  // positions that are not done
	gone     []eventlog.Gap  // what expired, as far as Expired does not count it
	handed   int             // events that the consumer has
	read     int64           // up to which it was read
	all      bool            // everything was read
	saved    time.Time
}

const (
	replayBatch    = 256
	replayInterval = time.Second
)

// run sends the events, or those that it can before the context ends; then it
// notes how far it came, while writes lasts.
func (p *replaying) run(ctx, writes context.Context) {
	p.sendAll(ctx)
	if ctx.Err() == nil || p.State != eventlog.ReplayRunning {
		return
	}
	final, cancel := context.WithTimeout(writes, p.drain+finalTime)
	defer cancel()
	for p.handed > 0 && final.Err() == nil {
		select {
		case r := <-p.results:
			p.done(r)
		case <-final.Done():
		}
	}
	if !p.lost.Load() {
		p.save(final, true)
	}
}

func (p *replaying) sendAll(ctx context.Context) {
	p.read = max(p.Position, p.From-1)
	for _, text := range p.Patterns {
		pattern, err := tidings.ParsePattern(text)
		if err != nil { // without it, more would be sent than was asked for
			p.logger.Error("replay is canceled: its patterns can't be read", "replay", p.ID, "error", err)
			p.State, p.Reason = eventlog.ReplayCanceled, err.Error()
			p.save(ctx, true)
			return
		}
		p.patterns = append(p.patterns, pattern)
	}
	tick := time.NewTicker(replayInterval) // it may have been canceled
	defer tick.Stop()
	for p.State == eventlog.ReplayRunning && ctx.Err() == nil {
		p.load(ctx)
		next, out := p.next()
		if next == nil && p.handed == 0 && p.all {
			p.end(ctx)
			return
		}
		select {
		case out <- next:
			p.hand(next)
		case r := <-p.results:
			p.done(r)
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.save(ctx, false)
	}
}

// end notes that all was sent, or has expired.
func (p *replaying) end(ctx context.Context) {
	p.read, p.State = max(p.read, p.To), eventlog.ReplayDone
	p.count(p.read)
	if p.Expired > 0 {
		p.logger.Warn("events of a replay expired before they could be sent", "replay", p.ID, "count", p.Expired)
		if p.Delivered == 0 && p.Failed == 0 {
			p.State = eventlog.ReplayExpired
		}
	}
	p.save(ctx, true)
}

// count counts what expired up to a position: up to where it would not be read again.
func (p *replaying) count(position int64) {
	p.gone = slices.DeleteFunc(p.gone, func(g eventlog.Gap) bool {
		if g.To > position {
			return false
		}
		p.Expired += g.To - g.From + 1
		return true
	})
}

// load reads more events once few are left.
func (p *replaying) load(ctx context.Context) {
	for !p.all && len(p.fresh) == 0 && len(p.again) < p.batch && ctx.Err() == nil {
		events, err := p.fetch(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.logger.Error("replay cannot be read, trying again every second", "replay", p.ID, "error", err)
				wait(ctx, time.Second)
			}
			continue
		}
		p.all = len(events) == 0
		next := p.To + 1
		if !p.all {
			next = events[0].Sequence
		}
		if !p.Dead && next > p.read+1 {
			p.gone = append(p.gone, eventlog.Gap{From: p.read + 1, To: next - 1})
		}
		for _, e := range events {
			p.read = e.Sequence
			if p.wants(e) {
				p.fresh = append(p.fresh, &item{event: e, replay: p.results})
				p.waiting[e.Sequence] = true
			}
		}
	}
}

// next is what to hand over next: the first event that was read none of whose
// resource is under way, and one that failed, in turn. If there is none, the channel
// that it returns blocks.
func (p *replaying) next() (*item, chan<- *item) {
	at := slices.IndexFunc(p.fresh, func(it *item) bool { return !p.underway[it.event.Resource()] })
	var it *item
	switch {
	case p.handed == cap(p.results): // the consumer never waits to tell what came of them
		return nil, nil
	case len(p.again) > 0 && (p.turn || at < 0):
		it = p.again[0]
	case at >= 0:
		it = p.fresh[at]
	default:
		return nil, nil
	}
	it.more = len(p.fresh)+len(p.again) > 1
	return it, p.out
}

// hand notes that the consumer has an event.
func (p *replaying) hand(it *item) {
	p.handed++
	p.underway[it.event.Resource()] = true
	same := func(other *item) bool { return other == it }
	p.turn = !slices.ContainsFunc(p.again, same)
	p.again, p.fresh = slices.DeleteFunc(p.again, same), slices.DeleteFunc(p.fresh, same)
}

// wants reports whether the replay sends an event: one that the endpoint wants. An
// event that was asked for by itself, or a dead letter, need not match its patterns,
// but its filter holds for all.
func (p *replaying) wants(e tidings.Event) bool {
	asked := p.From == p.To || p.Dead
	return p.Matches(e, p.patterns) && (p.endpoint.Matches(e) || asked && p.endpoint.Admits(e))
}

// fetch reads the events that come next.
func (p *replaying) fetch(ctx context.Context) ([]tidings.Event, error) {
	var events []tidings.Event
	if p.Dead {
		rows, err := p.log.Parked(ctx, eventlog.ParkedFilter{
			Endpoint: p.endpoint.Name, Dead: true,
			After: p.read, Limit: p.batch,
		})
		for _, r := range rows {
			events = append(events, r.Event)
		}
		if err != nil {
			return nil, err
		}
	} else {
		var err error
		if events, err = p.log.Read(ctx, p.read, p.batch); err != nil {
			return nil, err
		}
	}
	for i, e := range events {
		if e.Sequence > p.To {
			return events[:i], nil
		}
	}
	return events, nil
}

// done counts a result; an event that failed because of its endpoint is sent again.
func (p *replaying) done(r result) {
	p.handed--
	switch {
	case r.passed:
	case r.fault == undeclared:
		return // it waits for the next owner
	case r.fault == nobodys:
		p.Delivered++
	case r.fault == theEvents:
		p.Failed++
		p.Reason = r.outcome.Reason
	default:
		p.again = append(p.again, &item{event: r.item.event, trial: r.item.trial, replay: p.results})
		return
	}
	delete(p.underway, r.item.event.Resource())
	delete(p.waiting, r.item.event.Sequence)
}

// save writes how far it has come, now and then, and learns whether it was
// canceled.
func (p *replaying) save(ctx context.Context, now bool) {
	if !now && time.Since(p.saved) < replayInterval {
		return
	}
	p.Position = p.read
	for sequence := range p.waiting {
		p.Position = min(p.Position, sequence-1)
	}
	p.count(p.Position)
	p.persistReplay(ctx, func(ctx context.Context) error {
		lease, ok := p.lease()
		if !ok {
			return eventlog.ErrLeaseLost
		}
		state, err := p.log.SaveReplay(ctx, lease, p.Replay)
		if err == nil {
			p.State, p.saved = state, time.Now()
		}
		return err
	})
}

// persistReplay does a write until it succeeds; false if the replay has to end
// here.
func (p *replaying) persistReplay(ctx context.Context, write func(context.Context) error) bool {
	for {
		err := write(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil || errors.Is(err, eventlog.ErrLeaseLost) {
			p.State = eventlog.ReplayCanceled // for this owner
			return false
		}
		if errors.Is(err, eventlog.ErrNewEpoch) {
			wait(ctx, epochPause)
			continue
		}
		p.logger.Error("replay waits for the database, trying again every second", "replay", p.ID, "error", err)
		wait(ctx, time.Second)
	}
}

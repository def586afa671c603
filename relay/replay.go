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

// replays is a consumer's state of its endpoint's replays. One runs at a time.
type replays struct {
	list    atomic.Pointer[replayList]
	next    chan *item           // events offered by the running replay
	taken   *item                // accepted, but not yet sent
	ended   chan struct{}        // signaled when the running replay has ended
	running string               // id of the running replay, or empty
	over    map[string]time.Time // end times of finished replays by id, kept while they are still listed
	sending int                  // its events in flight

	cursors []eventlog.Cursor // saved cursors of all the endpoint's partitions, read at asked
	asked   time.Time
}

// replayList is the list of unfinished replays at a time.
type replayList struct {
	asked time.Time
	all   []eventlog.Replay
}

func newReplays() *replays {
	return &replays{next: make(chan *item), ended: make(chan struct{}, 1), over: make(map[string]time.Time)}
}

// setReplays passes on the list of unfinished replays. An endpoint's first
// partition runs them one after another.
func (c *consumer) setReplays(all []eventlog.Replay, asked time.Time) {
	if c.lease().Index != 0 {
		return
	}
	own := &replayList{asked: asked}
	for _, r := range all {
		if r.Endpoint == c.endpoint.Name {
			own.all = append(own.all, r)
		}
	}
	c.replays.list.Store(own)
}

// spare returns the channel of replayed events while there is capacity for one.
func (c *consumer) spare() <-chan *item {
	if c.replays.running == "" || !c.mayResend(time.Now()) || c.replays.taken != nil {
		return nil
	}
	return c.replays.next
}

// mayResend reports whether there is capacity for a replayed event: the endpoint is up
// or may be probed, no live event is waiting, and at least half of the allowed attempts
// remain free for live ones.
func (c *consumer) mayResend(now time.Time) bool {
	if c.order.Waiting() > 0 || c.holds() {
		return false
	}
	limit := c.limit(now, false)
	switch {
	case c.pool.counted() >= limit, c.replays.sending >= max(limit/2, 1), c.pool.full(), !c.lifetime.valid(now):
		return false
	case c.limiter.TokensAt(now) < 1 || c.health.ready().After(now):
		c.timer.Reset(replayPause)
		return false
	}
	return true
}

// replayPause is how long a replay waits for the rate limit.
const replayPause = 20 * time.Millisecond

// beginReplay starts the first listed replay unless one is running. It returns
// false if none is left.
func (c *consumer) beginReplay(ctx context.Context, helpers *sync.WaitGroup) bool {
	own := c.replays.list.Load()
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
		// The list may be older than the replay's end. If it is newer, the database
		// lost the end.
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
			notify(c.replays.ended)
		})
		return true
	}
	return false
}

// resend sends the event that was taken from the replay, unless it would overtake older
// events of its resource that the endpoint has not received. It reports whether it
// waits for its turn.
func (c *consumer) resend(ctx, attempts context.Context, now time.Time) (waits bool) {
	it := c.replays.taken
	if it == nil || !c.mayResend(now) {
		return false
	}
	if !c.seat.take() {
		return true
	}
	c.replays.taken = nil
	own := c.lease().Has(it.event)
	settled := own && c.order.Settled(it.event) || !own && c.settledElsewhere(ctx, it.event, now)
	if settled && (!own || c.order.parked.has(it.event.Resource())) {
		settled = c.borrow(ctx, it, own, now)
	}
	if !settled {
		c.seat.putBack()
		it.replay <- result{item: it, passed: true}
		return false
	}
	c.limiter.Allow()
	c.replays.sending++
	c.launch(attempts, it, now)
	return false
}

// borrow reserves an event in the retries table for a replay if it is the oldest of
// its resource there. It returns false if an older one is, or if another partition
// has to send it.
func (c *consumer) borrow(ctx context.Context, it *item, own bool, now time.Time) bool {
	rows, ok := c.ledger.lane(ctx, it.event, 1)
	switch {
	case !ok:
		return false
	case len(rows) == 0 || rows[0].Event.Sequence > it.event.Sequence:
		return true // not parked: it was delivered or is a dead letter
	case rows[0].Event.Sequence < it.event.Sequence:
		return false
	case own:
		it.attempts, it.first = rows[0].Attempts, rows[0].First
		return c.order.Borrow(it)
	case rows[0].Next.After(now): // make it due, so that its own partition sends it now
		rows[0].Next = now
		c.ledger.park(ctx, rows)
	}
	return false
}

// settledElsewhere reports whether the partition that owns an event is known to
// have settled it.
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

// resent handles the outcome of a replayed event. If it was delivered, it is
// settled and removed from the retries table.
func (c *consumer) resent(ctx context.Context, r result, now time.Time) {
	c.replays.sending--
	it := r.item
	if r.fault == faultNone {
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

// replaying is a running replay. It offers its events to the consumer one by one,
// one per resource at a time. An event that fails because of the endpoint is sent
// again after others.
type replaying struct {
	eventlog.Replay
	log      eventlog.Log
	lease    func() (eventlog.Lease, bool)
	endpoint *Endpoint
	logger   *slog.Logger
	lost     *atomic.Bool
	drain    time.Duration
	batch    int // number of events read at once
	patterns []tidings.Pattern

	out      chan<- *item
	results  chan result
	fresh    []*item         // read, not yet sent
	again    []*item         // failed because of the endpoint
	turn     bool            // whether the next event comes from again
	underway map[string]bool // resources of events in again or with the consumer
	waiting  map[int64]bool  // unfinished positions
	gone     []eventlog.Gap  // expired ranges not yet counted in Expired
	settled  settled         // what was delivered, if only missed events are sent
	handed   int             // number of events with the consumer
	read     int64           // position up to which events were read
	all      bool            // everything was read
	saved    time.Time
}

const (
	replayBatch    = 256
	replayInterval = time.Second
)

// run sends events until all are sent or the context ends. In the latter case it
// saves its progress, while writes lasts.
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
	if p.Missed {
		wait(ctx, 2*historyInterval) // for the history of what was just delivered
	}
	for _, text := range p.Patterns {
		pattern, err := tidings.ParsePattern(text)
		if err != nil { // ignoring it would send more than was requested
			p.logger.Error("replay is canceled: its patterns can't be read", "replay", p.ID, "error", err)
			p.State, p.Reason = eventlog.ReplayCanceled, err.Error()
			p.save(ctx, true)
			return
		}
		p.patterns = append(p.patterns, pattern)
	}
	tick := time.NewTicker(replayInterval) // to learn of a cancellation
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
			p.handOver(next)
		case r := <-p.results:
			p.done(r)
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.save(ctx, false)
	}
}

// end records that everything was sent or has expired.
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

// count adds expired ranges up to a position to Expired. The position must be one
// from which the replay would resume, so that nothing is counted twice.
func (p *replaying) count(position int64) {
	p.gone = slices.DeleteFunc(p.gone, func(g eventlog.Gap) bool {
		if g.To > position {
			return false
		}
		p.Expired += g.To - g.From + 1
		return true
	})
}

// load reads more events when few are left.
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
			if p.wants(e) && (!p.Missed || !p.settled.has(e.Sequence)) {
				p.fresh = append(p.fresh, &item{event: e, replay: p.results})
				p.waiting[e.Sequence] = true
			}
		}
	}
}

// next returns the event to offer next, alternating between the first one read
// whose resource is not in flight and one that failed. If there is none, the
// returned channel is nil and blocks.
func (p *replaying) next() (*item, chan<- *item) {
	at := slices.IndexFunc(p.fresh, func(it *item) bool { return !p.underway[it.event.Resource()] })
	var it *item
	switch {
	case p.handed == cap(p.results): // so that the consumer never blocks on results
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

// handOver notes that the consumer has taken an event.
func (p *replaying) handOver(it *item) {
	p.handed++
	p.underway[it.event.Resource()] = true
	same := func(other *item) bool { return other == it }
	p.turn = !slices.ContainsFunc(p.again, same)
	p.again, p.fresh = slices.DeleteFunc(p.again, same), slices.DeleteFunc(p.fresh, same)
}

// wants reports whether the replay sends an event.
func (p *replaying) wants(e tidings.Event) bool { return p.endpoint.Wants(&p.Replay, p.patterns, e) }

// Wants reports whether a replay with the given patterns sends an event. The endpoint's
// own patterns apply unless the event was requested individually or is a dead letter;
// its filter always applies.
func (e *Endpoint) Wants(r *eventlog.Replay, patterns []tidings.Pattern, event tidings.Event) bool {
	asked := r.From == r.To || r.Dead
	return r.Matches(event, patterns) && (e.Matches(event) || asked && e.Admits(event))
}

// fetch reads the next events.
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
			events = events[:i]
			break
		}
	}
	if !p.Missed || len(events) == 0 {
		return events, nil
	}
	return events, p.settled.load(ctx, p.log, p.endpoint.Name, events[0].Sequence, events[len(events)-1].Sequence, p.To)
}

// done counts a result. An event that failed because of its endpoint is sent again.
func (p *replaying) done(r result) {
	p.handed--
	if !r.passed && r.fault != faultUncounted {
		p.Attempts++
	}
	switch {
	case r.passed:
		p.Skipped++
	case r.fault == faultUncounted:
		return // left to the next owner
	case r.fault == faultNone:
		p.Delivered++
	case r.fault == faultEvent:
		p.Failed++
		p.Reason = r.outcome.Reason
	default:
		p.again = append(p.again, &item{event: r.item.event, trial: r.item.trial, replay: p.results})
		return
	}
	delete(p.underway, r.item.event.Resource())
	delete(p.waiting, r.item.event.Sequence)
}

// save saves the progress at intervals, or immediately if now is set, and learns
// whether the replay was canceled.
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

// persistReplay retries a write until it succeeds. It returns false if the replay
// has to end here.
func (p *replaying) persistReplay(ctx context.Context, write func(context.Context) error) bool {
	for {
		err := write(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil || errors.Is(err, eventlog.ErrLeaseLost) {
			p.State = eventlog.ReplayCanceled // only for this owner
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

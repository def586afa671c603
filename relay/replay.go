package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// replay hands over the replays that run; the first partition of an endpoint
// runs those of the endpoint, one after another.
func (c *consumer) replay(all []eventlog.Replay) {
	if c.lease.Index != 0 {
		return
	}
	var own []eventlog.Replay
	for _, r := range all {
		if r.Endpoint == c.endpoint.Name {
			own = append(own, r)
		}
	}
	c.replays.Store(&own)
}

// spare returns the channel of events to be sent again while the endpoint is
// well, no live event waits, and at least half of what may be under way stays
// free for live ones.
func (c *consumer) spare() <-chan *item {
	now := time.Now()
	well := c.health.state == Healthy || c.health.state == Ramping
	switch {
	case !c.runs, !well, !c.ready.empty(), c.isDue(now), !c.alive.has(now):
		return nil
	case c.inFlight >= c.health.limit(now), c.replaying >= max(c.health.limit(now)/2, 1):
		return nil
	case c.limiter.TokensAt(now) < 1:
		c.timer.Reset(replayPause)
		return nil
	}
	return c.again
}

// replayPause is how long a replay waits for the rate limit.
const replayPause = 20 * time.Millisecond

// beginReplay starts the first of the replays, unless one runs.
func (c *consumer) beginReplay(ctx context.Context, helpers *sync.WaitGroup) {
	own := c.replays.Load()
	if c.runs || own == nil {
		return
	}
	for _, r := range *own {
		if c.replayedIDs[r.ID] {
			continue // the list is older than its end
		}
		c.replayedIDs[r.ID] = true
		c.runs = true
		next := &replaying{consumer: c, Replay: r}
		helpers.Go(func() {
			next.run(ctx)
			give(c.replayed)
		})
		return
	}
}

// replaying is a replay that runs. Its events go through the consumer one by one
// as there is room; one resource's go one after another.
type replaying struct {
	*consumer
	eventlog.Replay
	patterns []tidings.Pattern

	results  chan result
	underway map[string]bool // resources
	waiting  map[int64]bool  // positions that are not done
	handed   int             // events that the consumer has
	dead     map[int64]bool  // those of dead letters
	read     int64           // up to which it was read
	saved    time.Time
}

const (
	replayBatch    = 256
	replayInterval = time.Second
)

// run sends the events, or those that it can before the context ends; then it
// notes how far it came.
func (p *replaying) run(ctx context.Context) {
	p.sendAll(ctx)
	if ctx.Err() == nil || p.State != eventlog.ReplayRunning {
		return
	}
	final, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.relay.options.DrainTimeout+finalTime)
	defer cancel()
	for p.handed > 0 && p.settle(final) {
	}
	if !p.lost.Load() {
		p.save(final, true)
	}
}

func (p *replaying) sendAll(ctx context.Context) {
	p.results = make(chan result, p.endpoint.MaxInFlight)
	p.underway, p.waiting, p.dead = make(map[string]bool), make(map[int64]bool), make(map[int64]bool)
	p.read = max(p.Position, p.From-1)
	for _, text := range p.Patterns {
		pattern, err := tidings.ParsePattern(text, nil)
		if err != nil { // without it, more would be sent than was asked for
			p.logger.Error("replay is canceled: its patterns can't be read", "replay", p.ID, "error", err)
			p.State, p.Reason = eventlog.ReplayCanceled, err.Error()
			p.save(ctx, true)
			return
		}
		p.patterns = append(p.patterns, pattern)
	}
	for p.State == eventlog.ReplayRunning {
		events, err := p.next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.logger.Error("replay cannot be read, trying again every second", "replay", p.ID, "error", err)
			wait(ctx, time.Second)
			continue
		case len(events) == 0:
			for len(p.waiting) > 0 && p.settle(ctx) {
			}
			if ctx.Err() != nil {
				return
			}
			p.read, p.State = max(p.read, p.To), eventlog.ReplayDone
			p.save(ctx, true)
			return
		}
		for _, e := range events {
			p.read = e.Sequence
			if p.wants(e) && !p.send(ctx, &item{event: e, replay: p.results}) {
				return
			}
		}
		p.save(ctx, false)
	}
}

// wants reports whether the replay sends an event: one that the endpoint wants,
// unless it is the only one that was asked for.
func (p *replaying) wants(e tidings.Event) bool {
	return p.Matches(e, p.patterns) && (p.From == p.To || p.Dead || p.endpoint.Matches(e))
}

// next reads the events that come next.
func (p *replaying) next(ctx context.Context) ([]tidings.Event, error) {
	var events []tidings.Event
	if p.Dead {
		rows, err := p.log.Parked(ctx, eventlog.ParkedFilter{Endpoint: p.endpoint.Name, Dead: true, After: p.read, Limit: replayBatch})
		for _, r := range rows {
			p.dead[r.Event.Sequence] = true
			events = append(events, r.Event)
		}
		if err != nil {
			return nil, err
		}
	} else {
		var err error
		if events, err = p.log.Read(ctx, p.read, replayBatch); err != nil {
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

// send gives an event to the consumer, once none of its resource is under way.
// It returns false if the replay is over.
func (p *replaying) send(ctx context.Context, it *item) bool {
	for p.underway[it.event.Resource()] {
		if !p.settle(ctx) {
			return false
		}
	}
	p.waiting[it.event.Sequence] = true
	return p.hand(ctx, it)
}

func (p *replaying) hand(ctx context.Context, it *item) bool {
	p.underway[it.event.Resource()] = true
	tick := time.NewTicker(replayInterval)
	defer tick.Stop()
	for {
		select {
		case p.again <- it:
			p.handed++
			return true
		case r := <-p.results:
			if !p.done(ctx, r) {
				return false
			}
		case <-tick.C: // it may have been canceled
			p.save(ctx, false)
			if p.State != eventlog.ReplayRunning {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

// settle waits for a result.
func (p *replaying) settle(ctx context.Context) bool {
	select {
	case r := <-p.results:
		return p.done(ctx, r)
	case <-ctx.Done():
		return false
	}
}

// done counts a result; an event that failed because of its endpoint is sent
// again when that is well.
func (p *replaying) done(ctx context.Context, r result) bool {
	p.handed--
	if r.outcome.Verdict == tidings.Interrupted {
		return true // it waits for the next owner
	}
	if !r.spent {
		return p.hand(ctx, &item{event: r.item.event, replay: p.results})
	}
	sequence := r.item.event.Sequence
	delete(p.underway, r.item.event.Resource())
	delete(p.waiting, sequence)
	if r.outcome.Verdict != tidings.Delivered {
		p.Failed++
		p.Reason = r.outcome.Reason
		return true
	}
	p.Delivered++
	if !p.dead[sequence] {
		return true
	}
	delete(p.dead, sequence)
	return p.persistReplay(ctx, func(ctx context.Context) error { return p.log.Unpark(ctx, p.lease, sequence) })
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
	p.persistReplay(ctx, func(ctx context.Context) error {
		state, err := p.log.SaveReplay(ctx, p.lease, p.Replay)
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
		p.logger.Error("replay waits for the database, trying again every second", "replay", p.ID, "error", err)
		wait(ctx, time.Second)
	}
}

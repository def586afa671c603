package relay

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// finish deals with the outcome of an attempt.
func (c *consumer) finish(ctx context.Context, r result) {
	c.inFlight--
	c.counts.add(r.outcome, r.item.event, c.inFlight)
	now := time.Now()
	r.spent = c.health.observe(r.outcome, r.item.event.Resource(), now)
	if r.outcome.Verdict == tidings.Gone {
		c.disabled(ctx, r.outcome.Reason, now)
	}
	switch {
	case r.item.replay != nil:
		c.replaying--
		r.item.replay <- r
	case r.outcome.Verdict == tidings.Delivered:
		c.delivered(ctx, r.item)
	case r.spent:
		c.failed(ctx, r.item, r.outcome, now)
	default:
		c.putBack(r.item, now)
	}
	c.report.changed(c, now)
	c.observe()
}

// disabled keeps what the receiver said: it wants no more.
func (c *consumer) disabled(ctx context.Context, reason string, now time.Time) {
	control := eventlog.Control{Endpoint: c.endpoint.Name, Disabled: reason, Fingerprint: c.endpoint.Fingerprint, Since: now}
	c.said = control
	c.persist(ctx, func(ctx context.Context) error {
		return errors.Join(c.log.SaveControl(ctx, control), c.log.Nudge(ctx))
	})
}

// failed parks an event that used up an attempt, or gives it up.
func (c *consumer) failed(ctx context.Context, it *item, o tidings.Outcome, now time.Time) {
	retry := eventlog.Retry{
		Endpoint: c.endpoint.Name, Event: it.event,
		Attempts: it.attempts + 1, First: it.first, Reason: o.Reason,
	}
	if retry.First.IsZero() {
		retry.First = now
	}
	delay, more := c.endpoint.Retry.next(retry.Attempts, now.Sub(retry.First))
	if !more || o.Verdict == tidings.Rejected {
		retry.Dead = now
	} else {
		retry.Next = now.Add(delay)
	}
	c.report.failed(c, retry, o, delay)
	if it.parked {
		c.parkAgain(ctx, retry)
	} else {
		c.parkFirst(ctx, retry)
	}
}

// parkRest parks what is not settled before the last event that is, so that the
// next owner sends nothing again: only a crash makes duplicates.
func (c *consumer) parkRest(ctx context.Context) {
	items := c.window.overtaken()
	rows := make([]eventlog.Retry, len(items))
	for i, it := range items {
		rows[i] = eventlog.Retry{Endpoint: c.endpoint.Name, Event: it.event}
		if it.attempted {
			rows[i].First = time.Now()
		}
	}
	if c.frozen || c.lost.Load() || !c.park(ctx, rows) {
		return
	}
	for _, it := range items {
		it.settled = true
	}
	c.window.trim()
}

// persist does a write that may not be given up, until it succeeds, the lease is
// lost or the context ends; then the cursor stays where it is.
func (c *consumer) persist(ctx context.Context, write func(context.Context) error) bool {
	for failing := false; ; failing = true {
		err := errLost
		if !c.lost.Load() {
			err = write(ctx)
		}
		switch {
		case err == nil:
			return true
		case errors.Is(err, eventlog.ErrLeaseLost), errors.Is(err, errLost):
			c.frozen = true
			c.lose()
			return false
		case ctx.Err() != nil:
			c.frozen = true
			return false
		case !failing:
			c.logger.Error("delivery waits for the database, trying again every second", "error", err)
		}
		wait(ctx, time.Second)
	}
}

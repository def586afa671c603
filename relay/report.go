package relay

import (
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// report writes a consumer's log lines: one for each event that fails on its own;
// for an endpoint that is down, one when it goes down, one a minute while it is,
// and one when it recovers.
type report struct {
	down bool // the last line said that the endpoint is down
	line time.Time
}

const reminderInterval = time.Minute

func (r *report) started(c *consumer) {
	if c.health.state == Disabled {
		r.down = true
		r.wentDown(c)
	}
}

// failed logs an event that used up an attempt.
func (r *report) failed(c *consumer, retry eventlog.Retry, o tidings.Outcome, delay time.Duration) {
	args := withDetail(o.Detail, "event", retry.Event.Name(), "outcome", o.Reason, "attempt", retry.Attempts)
	if retry.Dead.IsZero() {
		c.logger.Warn("delivery failed", append(args, "next", delay.Round(100*time.Millisecond))...)
		return
	}
	c.logger.Error("delivery given up, kept as dead letter",
		append(args, "webhook_id", retry.Event.ID, "resource_id", retry.Event.ResourceID)...)
}

func withDetail(detail string, args ...any) []any {
	if detail == "" {
		return args
	}
	return append(args, "detail", detail)
}

// changed logs a new state of the endpoint, and reminders of an old one.
func (r *report) changed(c *consumer, now time.Time) {
	h := c.health
	switch h.state {
	case Down, Throttled, Disabled:
		if !r.down {
			r.down, r.line = true, now
			r.wentDown(c)
		}
	case Healthy, Ramping:
		if r.down {
			r.down = false
			c.logger.Info("endpoint is back")
		}
	}
	if at, ok := r.nextLine(h); ok && !now.Before(at) {
		r.line = now
		c.logger.Warn("endpoint is still "+string(h.state), "outcome", h.reason,
			"for", now.Sub(h.since).Round(time.Second), "cursor", c.order.Cursor())
	}
}

func (r *report) wentDown(c *consumer) {
	h := c.health
	switch {
	case h.state == Disabled && h.reason == PausedReason:
		c.logger.Warn("endpoint is paused by an operator, its events wait in the log")
	case h.state == Disabled:
		c.logger.Error("endpoint wants no more webhooks and is disabled; enable it, or change its configuration",
			"outcome", h.reason)
	case h.state == Throttled:
		c.logger.Warn("endpoint asked for a pause", "outcome", h.reason, "until", h.resume.UTC().Format(time.RFC3339))
	case h.reason == tidings.ReasonBlockedAddress:
		c.logger.Error("endpoint's address is refused by the egress rule; see egress.deny_networks and "+
			"egress.allow_networks", "outcome", h.reason)
	case h.reason == RefusesPrefix+"http_401" || h.reason == RefusesPrefix+"http_403":
		c.logger.Error("endpoint refuses our credentials; see its headers or http settings", "outcome", h.reason)
	default:
		c.logger.Warn("endpoint is down, its events wait in the log", withDetail(h.detail, "outcome", h.reason)...)
	}
}

// nextLine returns when the next reminder is due.
func (r *report) nextLine(h *health) (time.Time, bool) {
	if !r.down || h.state == Disabled {
		return time.Time{}, false
	}
	return r.line.Add(reminderInterval), true
}

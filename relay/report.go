package relay

import (
	"cmp"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// report writes a consumer's log lines about the state of its endpoint: one about
// the failure that begins an outage, one when the endpoint is down, one a minute while it
// is, and one when an event is delivered again. Events that fail on their own are
// logged by [failures], which also limits the lines about short outages.
type report struct {
	told      State // what the last line reported, if the endpoint was not healthy; else empty
	outages   int64 // number of outages that began at the last look
	successes int64 // number of successes at the time of the last line
	since     time.Time
	line      time.Time // time of the last line
}

const (
	reminderInterval = time.Minute
	// longOutage is how long an outage lasts that gets its own log line, however many
	// there are.
	longOutage = 10 * time.Second
)

func (r *report) started(c *consumer) {
	if c.health.state == Disabled {
		r.wentDown(c, time.Now())
	}
}

// failed logs an event that used up an attempt.
func (r *report) failed(c *consumer, retry eventlog.Retry, o tidings.Outcome, delay time.Duration) {
	dead := !retry.Dead.IsZero()
	if !c.relay.failures.note(c.endpoint.Name, o.Reason, dead, time.Now()) {
		return
	}
	args := []any{
		"outcome", o.Reason, "event", retry.Event.Name(), "webhook_id", retry.Event.ID,
		"position", retry.Event.Sequence, "resource", retry.Event.Resource(), "attempt", retry.Attempts,
	}
	args = appendText(appendText(args, "detail", o.Detail), "answer", string(o.Response))
	if dead {
		c.logger.Error("delivery given up, kept as dead letter", args...)
		return
	}
	c.logger.Warn("delivery failed", append(args, "next", delay.Round(100*time.Millisecond))...)
}

// appendText appends a text attribute unless it is empty.
func appendText(args []any, name, value string) []any {
	if value == "" {
		return args
	}
	return append(args, name, value)
}

// changed logs a new state of the endpoint, and reminders of an old one.
func (r *report) changed(c *consumer, now time.Time) {
	h := c.health
	began := r.outages != h.outages
	r.outages = h.outages
	switch h.state {
	case Disabled:
		if r.told != Disabled {
			r.wentDown(c, now)
		}
	case Probing, Down:
		reason, _ := refuses(h.reason)
		announced := began && c.relay.failures.note(c.endpoint.Name, reason, false, now)
		worse := r.told == Probing && h.state == Down
		if announced || worse || !r.toldOutage() && !now.Before(h.since.Add(longOutage)) {
			r.wentDown(c, now)
		}
	case Throttled:
		// An endpoint may ask for many short pauses.
		if r.told == "" && now.Sub(r.line) >= reminderInterval {
			r.wentDown(c, now)
		}
	case Healthy, Ramping:
		if r.told != "" && h.successes > r.successes {
			c.logger.Info("endpoint is back", "after", now.Sub(r.since).Round(time.Second))
			r.told = ""
		}
	}
	if at, ok := r.nextLine(h); ok && !now.Before(at) {
		r.line = now
		c.logger.Warn("endpoint is still "+string(h.state), "outcome", h.reason,
			"for", now.Sub(h.since).Round(time.Second), "cursor", c.order.Cursor())
	}
}

func (r *report) toldOutage() bool { return r.told == Probing || r.told == Down }

// wentDown logs that the endpoint accepts nothing.
func (r *report) wentDown(c *consumer, now time.Time) {
	h := c.health
	if r.told == "" {
		r.since = cmp.Or(h.downSince, now)
	}
	r.told, r.line, r.successes = h.state, now, h.successes
	args := []any{"outcome", h.reason}
	if last := c.counts.last.Load(); last != nil && h.state != Disabled {
		args = append(args, "event", last.Event, "webhook_id", last.ID, "position", last.Sequence,
			"resource", last.Resource, "attempt", last.Attempt)
		args = appendText(args, "detail", last.Detail)
		if answer := c.counts.answer.Load(); answer != nil && answer.At.Equal(last.At) {
			args = appendText(args, "answer", answer.Response)
		}
	}
	switch {
	case h.state == Probing:
		c.logger.Warn("delivery failed; the endpoint is probed, its events wait in the log", args...)
	case h.state == Disabled && h.reason == PausedReason:
		c.logger.Warn("endpoint is paused by an operator, its events wait in the log")
	case h.state == Disabled:
		c.logger.Error("endpoint wants no more webhooks and is disabled; enable it, or change its configuration",
			args...)
	case h.state == Throttled:
		c.logger.Warn("endpoint asked for a pause", append(args, "until", h.resume.UTC().Format(time.RFC3339))...)
	case h.reason == tidings.ReasonBlockedAddress:
		c.logger.Error("endpoint's address is refused by the egress rule; see egress.deny_networks and "+
			"egress.allow_networks", args...)
	case h.reason == RefusesPrefix+"http_401" || h.reason == RefusesPrefix+"http_403":
		c.logger.Error("endpoint refuses our credentials; see its headers or http settings", args...)
	default:
		c.logger.Warn("endpoint is down, its events wait in the log", args...)
	}
}

// nextLine returns when the next line is due without a change of state.
func (r *report) nextLine(h *health) (time.Time, bool) {
	switch h.state {
	case Down, Probing:
		if !r.toldOutage() {
			return h.since.Add(longOutage), true
		}
	case Throttled:
	default:
		return time.Time{}, false
	}
	return r.line.Add(reminderInterval), true
}

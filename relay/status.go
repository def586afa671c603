package relay

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// PausedReason is the reason of an endpoint that an operator paused.
const PausedReason = "paused"

// Status is the state of one partition of an endpoint.
type Status struct {
	State State `json:"state"`
	// Reason is why it is not healthy.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// DownSince is since when nothing has been delivered, if the endpoint was down before it
	// was paused or restarted and nothing has been delivered since.
	DownSince time.Time `json:"down_since,omitzero"`
	// Until is when the next request is sent, if the endpoint is down or throttled.
	Until time.Time `json:"until,omitzero"`
	// Limit is how many requests may be in flight; Learned is what is known about
	// the receiver's own limits.
	Limit int `json:"limit,omitempty"`
	Learned
	InFlight int64 `json:"in_flight"`
	// Waiting is the number of waiting events that the endpoint wants, apart from parked
	// ones; an estimate if Estimated is set, because not all of them have been read yet.
	Waiting   int64 `json:"waiting,omitempty"`
	Estimated bool  `json:"estimated,omitempty"`
	// Delivered and Failed count attempts since this process acquired the
	// partition. The rates are per second, over the last few seconds.
	// Probes is how many requests failed since the outage began.
	Probes        int64      `json:"probes,omitempty"`
	Delivered     int64      `json:"delivered"`
	Failed        int64      `json:"failed"`
	DeliveredRate float64    `json:"delivered_per_second"`
	FailedRate    float64    `json:"failed_per_second"`
	LastError     *LastError `json:"last_error,omitempty"`
	LastAnswer    *Answer    `json:"last_answer,omitempty"`
}

// LastError describes the last failed attempt.
type LastError struct {
	At       time.Time `json:"at"`
	Event    string    `json:"event"`
	ID       string    `json:"webhook_id"`
	Sequence int64     `json:"sequence"`
	Resource string    `json:"resource"`
	Attempt  int       `json:"attempt"`
	Reason   string    `json:"reason"`
	Detail   string    `json:"detail,omitempty"`
}

// Answer is the receiver's response to an attempt that failed.
type Answer struct {
	At     time.Time `json:"at"`
	Status int       `json:"status"`
	// Response is the beginning of the body.
	Response string `json:"response,omitempty"`
}

// counts holds the counters of a status. They may be read at any time.
type counts struct {
	inFlight, delivered, failed, probes atomic.Int64
	last                                atomic.Pointer[LastError]
	answer                              atomic.Pointer[Answer]
	rates                               atomic.Pointer[rates]
}

func (n *counts) add(o tidings.Outcome, it *item, inFlight int) {
	n.inFlight.Store(int64(inFlight))
	switch o.Verdict {
	case tidings.Delivered:
		n.delivered.Add(1)
	case tidings.Interrupted:
	default:
		n.failed.Add(1)
		e, now := it.event, time.Now().UTC()
		n.last.Store(&LastError{
			At: now, Event: e.Name(), ID: e.ID, Sequence: e.Sequence, Resource: e.Resource(), Attempt: it.attempts + 1,
			Reason: o.Reason, Detail: o.Detail,
		})
		if o.Status != 0 {
			n.answer.Store(&Answer{At: now, Status: o.Status, Response: string(o.Response)})
		}
	}
}

// rates holds the counts per second between the last two updates.
type rates struct {
	at                        time.Time
	delivered, failed         int64
	deliveredRate, failedRate float64
}

const rateTime = 5 * time.Second

// updateRates computes the rates if the last update was long enough ago.
func (n *counts) updateRates(now time.Time) {
	next := &rates{at: now, delivered: n.delivered.Load(), failed: n.failed.Load()}
	if old := n.rates.Load(); old != nil {
		elapsed := now.Sub(old.at)
		if elapsed < rateTime {
			return
		}
		next.deliveredRate = float64(next.delivered-old.delivered) / elapsed.Seconds()
		next.failedRate = float64(next.failed-old.failed) / elapsed.Seconds()
	}
	n.rates.Store(next)
}

// observe publishes a change of state.
func (c *consumer) observe() {
	c.note(time.Now())
	h, limit := c.health, c.health.concurrency()
	old := c.status.Load()
	if old != nil && old.State == h.state && old.Reason == h.reason && old.Since.Equal(h.since) &&
		old.DownSince.Equal(h.downSince) &&
		old.Limit == limit && old.Learned == h.Learned {
		return
	}
	s := &Status{
		State: h.state, Reason: h.reason, Since: h.since, DownSince: h.downSince,
		Limit: limit, Learned: h.Learned,
	}
	if at, ok := h.wake(); ok {
		s.Until = at
	}
	c.status.Store(s)
	if old == nil || old.State != s.State || old.Reason != s.Reason {
		notify(c.relay.moved)
	}
}

// current returns the partition's current status.
func (c *consumer) current() Status {
	s := *c.status.Load()
	s.InFlight, s.Delivered, s.Failed = c.counts.inFlight.Load(), c.counts.delivered.Load(), c.counts.failed.Load()
	if r := c.counts.rates.Load(); r != nil {
		s.DeliveredRate, s.FailedRate = r.deliveredRate, r.failedRate
	}
	s.LastError, s.LastAnswer = c.counts.last.Load(), c.counts.answer.Load()
	head := c.relay.tail.position()
	s.Probes = c.counts.probes.Load()
	s.Waiting, s.Estimated = c.backlog.waiting(head), !c.backlog.exact(head)
	return s
}

// savedStatus is what is saved with a cursor.
type savedStatus struct {
	Status
	// Writes is the number of writes to the partition so far, see [ledger.store].
	Writes int64 `json:"writes,omitempty"`
	// Share is the share of the events of the log that the partition wants.
	Share float64 `json:"share,omitempty"`
	// Hint is what the receiver asked for.
	Hint *hint `json:"hint,omitempty"`
}

// save returns the cursor to be saved; false if the lease is lost. The caller holds
// the saving semaphore.
func (c *consumer) save() (eventlog.Cursor, bool) {
	now := time.Now()
	c.counts.updateRates(now)
	lease, ok := c.ledger.valid()
	status := savedStatus{c.current(), c.ledger.writes.Load(), c.backlog.rounded(), c.hinted.at(now)}
	return c.progress.cursor(lease, status), ok
}

// lastSaved returns the status saved with a cursor.
func lastSaved(c eventlog.Cursor) (s savedStatus) {
	_ = json.Unmarshal([]byte(c.Status), &s) // an older version's status may be ignored
	return s
}

// PartitionStatus is a partition of an endpoint: its owner, cursor and status.
type PartitionStatus struct {
	Cursor eventlog.Cursor
	Status Status
	// Held reports whether its owner is alive.
	Held bool
}

// Statuses returns all partitions that have a cursor: those of this process as they
// are now, others as last saved by their owner.
func (r *Relay) Statuses(ctx context.Context) ([]PartitionStatus, error) {
	cursors, err := r.log.Cursors(ctx)
	if err != nil {
		return nil, err
	}
	replicas, err := r.log.Replicas(ctx)
	if err != nil {
		return nil, err
	}
	live := make(map[string]bool)
	for _, other := range replicas {
		live[other.ID] = true
	}
	own := make(map[eventlog.Partition]*consumer)
	for _, c := range r.consumers() {
		if !c.lost() {
			own[c.lease().Partition] = c
		}
	}
	all := make([]PartitionStatus, 0, len(cursors))
	for _, c := range cursors {
		p := PartitionStatus{Cursor: c, Held: live[c.Owner]}
		if mine := own[c.Partition]; mine != nil && mine.lease().Same(c.Lease) {
			p.Status, p.Cursor.Sequence = mine.current(), max(mine.progress.position.Load().cursor, c.Sequence)
		} else {
			p.Status = lastSaved(c).Status
		}
		all = append(all, p)
	}
	return all, nil
}

// Held returns how many leases this process holds.
func (r *Relay) Held() int { return len(r.consumers()) }

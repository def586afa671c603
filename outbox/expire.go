package outbox

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Retention is how long data is kept. 0 has the same meaning as in [Options].
type Retention struct {
	// Events is how long events are kept, and how long the undelivered events of a
	// removed endpoint are.
	Events time.Duration
	// History is how long attempts, replays and gaps are kept.
	History time.Duration
	// DeadLetters is how long dead letters are kept.
	DeadLetters time.Duration
}

func (r *Retention) setDefaults() {
	r.Events = cmp.Or(r.Events, DefaultRetention)
	r.History = cmp.Or(r.History, r.Events)
	r.DeadLetters = cmp.Or(r.DeadLetters, DefaultDeadLetterRetention)
}

// Retention returns the current retention.
func (o *Outbox) Retention() Retention { return *o.retention.Load() }

// SetRetention changes the retention. All processes on one database must use the
// same.
func (o *Outbox) SetRetention(r Retention) {
	r.setDefaults()
	o.retention.Store(&r)
}

// soon is the share of the retention after which an event expires soon.
const soon = 0.9

// Age is the age of an event that an endpoint has not received.
type Age struct {
	// Position is the position of the event, and At its time.
	Position int64
	At       time.Time
	// Age is the time since the event was created.
	Age time.Duration
	// Used is the age as a share of the retention; at 1 the event expires.
	Used float64
	// Lost is when the event expires; Expires is the same, but set only within the
	// last tenth of the retention.
	Lost, Expires time.Time
}

// OldestAfter returns the ages of the oldest events after positions of the log, by
// position. It needs one query.
func (o *Outbox) OldestAfter(ctx context.Context, positions ...int64) (map[int64]Age, error) {
	slices.Sort(positions)
	events, err := o.home.log.Following(ctx, slices.Compact(positions))
	if err != nil {
		return nil, err
	}
	ages, now := make(map[int64]Age), time.Now()
	for _, position := range positions {
		for len(events) > 0 && events[0].Sequence <= position {
			events = events[1:]
		}
		if len(events) > 0 {
			ages[position] = o.age(events[0], now)
		}
	}
	return ages, nil
}

func (o *Outbox) age(e tidings.Event, now time.Time) Age {
	retention := o.Retention().Events
	a := Age{Position: e.Sequence, At: e.Time, Age: max(now.Sub(e.Time), 0)}
	a.Lost = now.Add(retention - a.Age)
	if a.Used = a.Age.Seconds() / retention.Seconds(); a.Used >= soon {
		a.Expires = a.Lost
	}
	return a
}

// expire removes data past its retention until the context ends.
func (o *Outbox) expire(ctx context.Context) {
	warned, missed := make(map[string]time.Time), newMissedLog()
	defer func() { missed.flush(o.logger, o.EndpointNames(), time.Now(), true) }()
	for {
		if err := errors.Join(o.expireOnce(ctx, missed), o.warn(ctx, warned)); err != nil && ctx.Err() == nil {
			o.logger.Warn("not everything past its retention could be removed", "error", err)
		}
		missed.flush(o.logger, o.EndpointNames(), time.Now(), false)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(max(o.Retention().Events/20, time.Second), 10*time.Minute)):
		}
	}
}

func (o *Outbox) expireOnce(ctx context.Context, missed *missedLog) error {
	log, keep := o.home.log, o.Retention()
	gone, err := log.ExpireEvents(ctx, keep.Events)
	for _, notice := range gone.Notices {
		o.logger.Warn("the event log was repaired", "what", notice)
	}
	if len(gone.Gaps) > 0 {
		o.noteMissed(gone.Gaps, missed)
		err = errors.Join(err, log.Nudge(ctx)) // makes consumers continue after the gap
	}
	if gone.At.IsZero() { // the clock may be wrong
		return err
	}
	before := gone.At.Add(-keep.History)
	return errors.Join(err, log.ExpireHistory(ctx, keep.History), log.ExpirePublications(ctx),
		log.ExpireReplays(ctx, before), log.ExpireParkedChanges(ctx, before),
		log.ExpireGaps(ctx, before), log.ExpireJournal(ctx, before), o.expireEndpoints(ctx),
		o.expireDead(ctx, gone.At.Add(-keep.DeadLetters)))
}

// noteMissed adds up what each endpoint missed.
func (o *Outbox) noteMissed(gaps []eventlog.Gap, missed *missedLog) {
	all := make(map[string]eventlog.Gap)
	for _, g := range gaps {
		if known, ok := all[g.Endpoint]; ok { // another partition's gap, which ends at the same position
			g.From = min(g.From, known.From)
		}
		all[g.Endpoint] = g
	}
	configured := o.EndpointNames()
	for name, g := range all {
		missed.add(g)
		if configured[name] {
			o.observers.Missed(g)
		}
	}
}

// EndpointNames returns the names of the current endpoints, disabled ones included. The
// caller must not change it.
func (o *Outbox) EndpointNames() map[string]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.configured
}

// warnInterval is how often a warning about an endpoint is repeated.
const warnInterval = time.Hour

// warn logs which endpoints will soon lose events, unless it warned about them recently.
func (o *Outbox) warn(ctx context.Context, warned map[string]time.Time) error {
	partitions, err := o.Relay().Statuses(ctx)
	if err != nil {
		return err
	}
	cursors := make(map[string]int64)
	for _, p := range partitions {
		at, known := cursors[p.Cursor.Endpoint]
		if !known || p.Cursor.Sequence < at {
			cursors[p.Cursor.Endpoint] = p.Cursor.Sequence
		}
	}
	ages, err := o.OldestAfter(ctx, slices.Collect(maps.Values(cursors))...)
	if err != nil {
		return err
	}
	for name := range o.EndpointNames() {
		cursor, known := cursors[name]
		if !known {
			continue
		}
		oldest := ages[cursor]
		if oldest.Expires.IsZero() {
			delete(warned, name)
			continue
		}
		if last, ok := warned[name]; ok && time.Since(last) < warnInterval {
			continue
		}
		warned[name] = time.Now()
		o.logger.Warn("events that the endpoint has not received expire soon: fix it, or keep events for longer",
			"endpoint", name, "after", cursor, "from", oldest.Expires.UTC())
	}
	maps.DeleteFunc(warned, func(name string, _ time.Time) bool { _, known := cursors[name]; return !known })
	return nil
}

// expireEndpoints removes the data of endpoints that were removed longer ago than
// the retention, unless the clock may be wrong.
func (o *Outbox) expireEndpoints(ctx context.Context) error {
	gone, err := o.home.log.ExpireEndpoints(ctx, o.Retention().Events)
	if clock, ok := errors.AsType[*eventlog.ClockError](err); ok {
		o.logger.Warn("the data of removed endpoints is kept for now", "error", clock)
		err = nil
	}
	for _, g := range gone {
		o.removed.endpoints.Add(g.Parked)
		o.logger.Warn("the data of an endpoint that is no longer configured was removed", "endpoint",
			g.Endpoint, "cursor", g.Cursor, "parked", g.Parked)
	}
	return err
}

func (o *Outbox) expireDead(ctx context.Context, before time.Time) error {
	gone, err := o.home.log.ExpireDead(ctx, before)
	for endpoint, n := range gone {
		o.removed.expired.Add(n)
		o.logger.Warn("dead letters past their retention were removed", "endpoint", endpoint, "count", n)
	}
	return err
}

package operator

import (
	"context"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

// ReplayPlan is what a replay would send.
type ReplayPlan struct {
	Endpoint     string  `json:"endpoint"`
	ToSend       int64   `json:"to_send" doc:"How many events would be sent."`
	LeftOut      int64   `json:"left_out" doc:"How many events of its range would not: the endpoint does not want them, the filter does not match them, or they were delivered."`
	Exact        bool    `json:"exact" doc:"False if there are too many events to look at all of them; the numbers are those of the first ones."`
	First        int64   `json:"first,omitempty" doc:"The first position that would be sent."`
	Last         int64   `json:"last,omitempty" doc:"The last one."`
	Seconds      float64 `json:"seconds,omitempty" doc:"About how long it would take at the endpoint's current rate."`
	WaitsBecause string  `json:"waits_because,omitempty" doc:"Why it would not begin at once."`
}

// PlanReplay returns what a replay would send.
func (s *Service) PlanReplay(ctx context.Context, in NewReplay) (*ReplayPlan, error) {
	r, e, err := s.prepare(ctx, &in)
	if err != nil {
		return nil, err
	}
	plan, err := s.plan(ctx, &r, &e)
	if err != nil {
		return nil, err
	}
	state, err := s.Endpoint(ctx, e.Name)
	if err != nil {
		return nil, err
	}
	plan.WaitsBecause = state.waitsBecause()
	rate := state.Delivered
	if e.RateLimit > 0 && (rate == 0 || e.RateLimit < rate) {
		rate = e.RateLimit
	}
	if rate > 0 && plan.Exact {
		plan.Seconds = float64(plan.ToSend) / rate
	}
	return plan, nil
}

// empty returns an error if nothing would be sent.
func (p *ReplayPlan) empty() error {
	if p.ToSend > 0 || !p.Exact {
		return nil
	}
	if p.LeftOut > 0 {
		return conflict("nothing would be sent: endpoint %s wants none of the %d events in the range, or has received them",
			p.Endpoint, p.LeftOut)
	}
	return conflict("nothing would be sent: there is no such event")
}

// plan counts what a replay would send, as far as scanLimit allows.
func (s *Service) plan(ctx context.Context, r *eventlog.Replay, e *relay.Endpoint) (*ReplayPlan, error) {
	p := &ReplayPlan{Endpoint: e.Name}
	var patterns []tidings.Pattern
	for _, text := range r.Patterns {
		pattern, err := tidings.ParsePattern(text)
		if err != nil {
			return nil, invalid("events", "%v", err)
		}
		patterns = append(patterns, pattern)
	}
	many := r.From < r.To && (e.Filter == nil || s.hooks.Unfiltered(e.Name))
	switch {
	case many && r.Dead && r.Since.IsZero() && r.Until.IsZero():
		return p, s.countDead(ctx, p, r, patterns)
	case many && !r.Dead:
		return p, s.countPlan(ctx, p, r, e, patterns)
	}
	settled, end, err := s.settled(ctx, r, e)
	if err != nil {
		return nil, err
	}
	after, looked := r.From-1, 0
	for looked < scanLimit {
		events, err := s.planned(ctx, r, after)
		if err != nil {
			return nil, err
		}
		for _, event := range events {
			if event.Sequence > end {
				p.Exact = end == r.To
				return p, nil
			}
			after = event.Sequence
			looked++
			if !e.Wants(r, patterns, event) || r.Missed && settled[event.Sequence-r.From] {
				p.LeftOut++
				continue
			}
			if p.ToSend++; p.First == 0 {
				p.First = event.Sequence
			}
			p.Last = event.Sequence
		}
		if len(events) == 0 || after >= r.To {
			p.Exact = true
			break
		}
	}
	return p, nil
}

// settled returns which events of a replay of missed ones are settled, by their distance
// from its beginning, and the last position that is looked at.
func (s *Service) settled(ctx context.Context, r *eventlog.Replay, e *relay.Endpoint) ([]bool, int64, error) {
	if !r.Missed {
		return nil, r.To, nil
	}
	end := min(r.To, r.From+int64(scanLimit)-1)
	settled := make([]bool, max(end-r.From+1, 0))
	err := s.log().Settled(ctx, e.Name, r.From, end, func(sequence int64) { settled[sequence-r.From] = true })
	return settled, end, err
}

// countPlan makes the database count what a replay would send, which is possible without
// a filter of the endpoint.
func (s *Service) countPlan(
	ctx context.Context, p *ReplayPlan, r *eventlog.Replay, e *relay.Endpoint, patterns []tidings.Pattern,
) error {
	settled, end, err := s.settled(ctx, r, e)
	if err != nil {
		return err
	}
	end = min(end, r.From+int64(scanLimit)-1)
	p.Exact = end == r.To
	all := eventlog.Range{From: r.From, To: end}
	ranges := []eventlog.Range{all}
	if r.Missed {
		ranges = unsettled(all, settled)
	}
	toSend, err := s.log().Count(ctx, eventlog.EventFilter{
		Patterns: patterns, Wanted: e.Patterns, Resource: r.Resource, Since: r.Since, Until: r.Until,
	}, ranges)
	if err != nil {
		return err
	}
	total, err := s.log().Count(ctx, eventlog.EventFilter{}, []eventlog.Range{all})
	p.ToSend, p.First, p.Last = toSend.Events, toSend.First, toSend.Last
	p.LeftOut = total.Events - toSend.Events
	return err
}

// countDead makes the database count the dead letters that a replay would send, which is
// possible without a filter of the endpoint and without limits of time. Patterns of the
// endpoint have no meaning: it wanted the events.
func (s *Service) countDead(
	ctx context.Context, p *ReplayPlan, r *eventlog.Replay, patterns []tidings.Pattern,
) error {
	f := eventlog.ParkedFilter{Endpoint: r.Endpoint, Dead: true}
	all, err := s.log().CountParked(ctx, f)
	if err != nil {
		return err
	}
	f.Patterns, f.Resource = patterns, r.Resource
	toSend, err := s.log().CountParked(ctx, f)
	p.ToSend, p.First, p.Last, p.Exact = toSend.Events, toSend.First, toSend.Last, true
	p.LeftOut = all.Events - toSend.Events
	return err
}

// unsettled returns the ranges within a range in which nothing is settled.
func unsettled(all eventlog.Range, settled []bool) (ranges []eventlog.Range) {
	for i := 0; i < len(settled); i++ {
		begin := i
		for i < len(settled) && !settled[i] {
			i++
		}
		if i > begin {
			ranges = append(ranges, eventlog.Range{From: all.From + int64(begin), To: all.From + int64(i) - 1})
		}
	}
	return ranges
}

// planned returns the next events in the range of a replay.
func (s *Service) planned(ctx context.Context, r *eventlog.Replay, after int64) ([]tidings.Event, error) {
	if !r.Dead {
		return s.log().Read(ctx, after, eventBatch)
	}
	rows, err := s.log().Parked(ctx, eventlog.ParkedFilter{
		Endpoint: r.Endpoint, Dead: true, After: after, Limit: eventBatch,
	})
	events := make([]tidings.Event, len(rows))
	for i, row := range rows {
		events[i] = row.Event
	}
	return events, err
}

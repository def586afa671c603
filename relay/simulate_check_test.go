package relay_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// noticeTime is how long an event may still be sent after it was discarded: its owner may
// learn of it late, and an attempt may be in flight.
const noticeTime = time.Minute

// check compares the history with the promises.
func (s *simulation) check() {
	byEndpoint := make(map[string][]*request)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		byEndpoint[r.endpoint] = append(byEndpoint[r.endpoint], r)
	}
	for who := range s.settings {
		s.checkEndpoint(who, byEndpoint[who])
	}
	s.checkLeft()
	if s.limit > 0 && s.atOnce > s.limit {
		s.complain("a process had %d requests in flight, at most %d were allowed", s.atOnce, s.limit)
	}
}

// checkEndpoint checks what an endpoint received.
func (s *simulation) checkEndpoint(who string, requests []*request) {
	complain := func(format string, args ...any) { s.complain(who+": "+format, args...) }
	dead := make(map[string]bool)
	rows, err := s.Parked(s.Context(), eventlog.ParkedFilter{Endpoint: s.settings[who].Name, Limit: 1 << 20})
	if err != nil {
		s.Fatal(err)
	}
	for _, row := range rows {
		if row.Dead.IsZero() {
			complain("%s is still parked, next at %v", row.Event.ID, row.Next)
		}
		dead[row.Event.ID] = true
	}
	got := make(map[string]bool)
	highest := make(map[string]int64) // first deliveries, by resource
	allowed := s.allowedAgain(requests)
	before := make(map[string]*request) // delivered last
	slices.SortStableFunc(requests, func(a, b *request) int { return a.ended.Compare(b.ended) })
	for _, r := range requests {
		owed, earlier := s.owedAt(who, r.began), s.owedAt(who, r.began.Add(-leaseTime))
		if from := min(owed.most, earlier.most); s.index[r.event.ID] < from && !r.replay {
			complain("%s came at %v, although the endpoint had started over at number %d", r.event.ID,
				s.at(r.began), from+1)
		}
		if r.verdict != tidings.Delivered || r.ended.IsZero() {
			continue
		}
		d, discarded := s.discarded[who+r.event.ID]
		if late := d.at.Add(noticeTime); discarded && !r.replay && d.failovers == s.failovers && r.began.After(late) {
			complain("%s was discarded at %v and sent at %v; before: %s", r.event.ID, s.at(d.at), s.at(r.began),
				s.before(r.began))
		}
		switch {
		case got[r.event.ID]:
			if last := before[r.event.ID]; !r.replay && !allowed[last] {
				complain("%s was delivered by %s at %v and again by %s at %v; no trouble explains it; before that: %s",
					r.event.ID, last.process, s.at(last.ended), r.process, s.at(r.began), s.before(r.began))
			}
			before[r.event.ID] = r
			continue
		case s.lost[r.event.ID]: // its version was used again
			got[r.event.ID], before[r.event.ID] = true, r
			continue
		case s.dead[who+r.event.ID], s.restored[r.event.ID], discarded: // a replay may send it later
		case r.replay && s.index[r.event.ID] < owed.from: // an operator requested an event that it was not owed
			got[r.event.ID], before[r.event.ID] = true, r
			continue
		case r.event.ResourceVersion < highest[r.event.Resource()] && !dead[r.event.ID] && !r.dead && who != "merging":
			complain("first delivery of %s at %v came after version %d; before: %s",
				r.event.ID, s.at(r.began), highest[r.event.Resource()], s.before(r.began))
		}
		got[r.event.ID], before[r.event.ID] = true, r
		highest[r.event.Resource()] = max(highest[r.event.Resource()], r.event.ResourceVersion)
	}
	missed := s.missed(who)
	newer := make(map[string]bool) // resources of which a later event is accounted for
	for i := len(s.written) - 1; i >= s.owedAt(who, time.Now()).from; i-- {
		e := s.written[i]
		_, discarded := s.discarded[who+e.ID]
		switch merged := who == "merging" && newer[e.Resource()]; {
		case s.lost[e.ID] || merged:
		case got[e.ID] || dead[e.ID] || discarded || missed(e):
			newer[e.Resource()] = true
		default:
			complain("%s (number %d, written at %v, expired at position %d) was lost; %s",
				e.ID, i+1, s.at(e.Time), s.expired[e.ID], s.state(s.T))
		}
	}
}

// missed returns a function that reports whether a gap says that an endpoint did not get an
// event because it expired.
func (s *simulation) missed(who string) func(e tidings.Event) bool {
	gaps, err := s.Gaps(s.Context(), 1<<20)
	if err != nil {
		s.Fatal(err)
	}
	gaps = slices.DeleteFunc(gaps, func(g eventlog.Gap) bool {
		return g.Endpoint != s.settings[who].Name || g.Reason == eventlog.GapLost
	})
	return func(e tidings.Event) bool {
		at, expired := s.expired[e.ID]
		return expired && slices.ContainsFunc(gaps, func(g eventlog.Gap) bool { return g.From <= at && at <= g.To })
	}
}

// checkLeft checks that nothing is left over that nobody takes care of, and that everything has
// finished.
func (s *simulation) checkLeft() {
	head, _ := s.Advance(s.Context())
	cursors, err := s.Cursors(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	configured := make(map[string]bool)
	for _, e := range s.settings {
		configured[e.Name] = true
	}
	for _, c := range cursors {
		switch {
		case configured[c.Endpoint] != c.Removed.IsZero():
			s.complain("%s: configured %t, and removed at %v", c.Endpoint, configured[c.Endpoint], c.Removed)
		case configured[c.Endpoint] && (c.Sequence != head || c.Former != ""):
			s.complain("%s: its cursor is at %d of %d, its former name %q", c.Endpoint, c.Sequence, head, c.Former)
		}
	}
	replays, err := s.Replays(s.Context(), true, 1<<20)
	if err != nil {
		s.Fatal(err)
	}
	for _, r := range replays {
		s.complain("%s: a replay does not end: %+v", r.Endpoint, r)
	}
}

// before lists the last events before a time.
func (s *simulation) before(t time.Time) string {
	at, _ := slices.BinarySearchFunc(s.steps, t, func(step taken, t time.Time) int { return step.at.Compare(t) })
	var b strings.Builder
	for _, step := range s.steps[max(at-8, 0):at] {
		fmt.Fprintf(&b, "%s of %s at %v, ", step.kind, step.process, s.at(step.at))
	}
	return b.String()
}

// allowedAgain returns the deliveries to an endpoint that may be repeated: for each trouble
// of a process, what it had in flight, and what it had delivered in the preceding cursor
// interval. A response that did not arrive counts, too.
func (s *simulation) allowedAgain(requests []*request) map[*request]bool {
	const interval = time.Second // saving cursors takes two intervals of 250 ms, and some time
	allowed := make(map[*request]bool)
	for _, r := range requests {
		if r.verdict != tidings.Delivered {
			continue
		}
		for _, trouble := range s.troubles {
			if (r.process == trouble.process || trouble.process == "") &&
				!r.began.After(trouble.at.Add(interval+trouble.lasts)) &&
				(r.ended.IsZero() || r.ended.After(trouble.at.Add(-interval-trouble.lost))) {
				allowed[r] = true
			}
		}
	}
	return allowed
}

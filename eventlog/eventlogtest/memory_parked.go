package eventlogtest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Parked implements [eventlog.Retries].
func (m *Memory) Parked(_ context.Context, f eventlog.ParkedFilter) ([]eventlog.Retry, error) {
	found := m.sorted(f.Limit, func(r eventlog.Retry) bool {
		return parkedMatch(f, r) && (r.Event.Sequence > f.After ||
			f.AfterEndpoint != "" && r.Event.Sequence == f.After && r.Endpoint > f.AfterEndpoint)
	})
	for i, r := range found {
		if !r.Next.IsZero() || !r.Dead.IsZero() {
			continue
		}
		first := m.sorted(1, func(o eventlog.Retry) bool {
			return o.Endpoint == r.Endpoint && o.Dead.IsZero() && o.Event.Resource() == r.Event.Resource()
		})
		if first[0].Event.Sequence < r.Event.Sequence {
			found[i].Behind = first[0].Event.Sequence
		}
	}
	return found, nil
}

func parkedMatch(f eventlog.ParkedFilter, r eventlog.Retry) bool {
	return (f.Endpoint == "" || r.Endpoint == f.Endpoint) && (f.Sequence == 0 || r.Event.Sequence == f.Sequence) &&
		(f.ID == "" || r.Event.ID == f.ID) && (!f.Dead || !r.Dead.IsZero()) &&
		(f.Reason == "" || r.Reason == f.Reason) &&
		(f.Resource == "" || f.Resource == r.Event.Resource() || f.Resource == r.Event.ResourceID) &&
		(len(f.Patterns) == 0 || slices.ContainsFunc(f.Patterns,
			func(p tidings.Pattern) bool { return p.Match(r.Event.Type, r.Event.Action) }))
}

// Discarded implements [eventlog.Retries].
func (m *Memory) Discarded(_ context.Context, p eventlog.Partition, limit int) (found []eventlog.Retry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.discarded {
		if r.Endpoint == p.Endpoint && p.Has(r.Event) && len(found) < limit {
			found = append(found, r)
		}
	}
	return found, nil
}

// ParkedCounts implements [eventlog.ParkedKeeper].
func (m *Memory) ParkedCounts(context.Context) (map[string]eventlog.ParkedCount, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := make(map[string]eventlog.ParkedCount)
	for key, r := range m.retries {
		c := counts[key.endpoint]
		switch {
		case !r.Dead.IsZero():
			c.Dead++
		case c.Oldest == 0 || r.Event.Sequence < c.Oldest:
			c.Oldest, c.At = r.Event.Sequence, r.Event.Time
			fallthrough
		default:
			c.Live++
		}
		counts[key.endpoint] = c
	}
	return counts, nil
}

// ParkedGroups implements [eventlog.ParkedKeeper].
func (m *Memory) ParkedGroups(
	ctx context.Context, f eventlog.ParkedFilter, limit int,
) (groups []eventlog.ParkedGroup, err error) {
	earlier := func(a, b time.Time) time.Time {
		if a.IsZero() || !b.IsZero() && b.Before(a) {
			return b
		}
		return a
	}
	for _, r := range m.sorted(len(m.retries), func(r eventlog.Retry) bool { return parkedMatch(f, r) }) {
		i := slices.IndexFunc(groups, func(g eventlog.ParkedGroup) bool {
			return g.Endpoint == r.Endpoint && g.Reason == r.Reason && g.Response == r.Response
		})
		if i < 0 {
			i = len(groups)
			groups = append(groups, eventlog.ParkedGroup{
				Endpoint: r.Endpoint, Reason: r.Reason, Response: r.Response, First: r.Event.Sequence,
			})
		}
		g := &groups[i]
		g.Count++
		g.Last, g.FirstAt = r.Event.Sequence, earlier(g.FirstAt, r.First)
		if r.Last.After(g.LastAt) {
			g.LastAt = r.Last
		}
		if r.Dead.IsZero() {
			g.Next = earlier(g.Next, r.Next)
		} else {
			g.Dead++
		}
	}
	slices.SortStableFunc(groups, func(a, b eventlog.ParkedGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Endpoint, b.Endpoint),
			strings.Compare(a.Reason, b.Reason), strings.Compare(a.Response, b.Response))
	})
	return groups[:min(limit, len(groups))], nil
}

// CountParked implements [eventlog.ParkedKeeper].
func (m *Memory) CountParked(_ context.Context, f eventlog.ParkedFilter) (c eventlog.Count, err error) {
	for _, r := range m.sorted(len(m.retries), func(r eventlog.Retry) bool { return parkedMatch(f, r) }) {
		if c.Events++; c.First == 0 {
			c.First = r.Event.Sequence
		}
		c.Last = r.Event.Sequence
	}
	return c, nil
}

// RetryParked implements [eventlog.ParkedKeeper].
func (m *Memory) RetryParked(_ context.Context, endpoint string, events []tidings.Event, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touchParked(endpoint)
	for _, e := range events {
		for key, r := range m.retries {
			switch {
			case key.endpoint != endpoint:
				continue
			case key.sequence == e.Sequence && !r.Dead.IsZero():
				r.Dead, r.Attempts, r.First, r.Next = time.Time{}, 0, time.Time{}, now
			case r.Event.Resource() == e.Resource() && r.Dead.IsZero() && r.Next.After(now):
				r.Next = now
			}
			m.retries[key] = r
		}
	}
	return nil
}

func (m *Memory) touchParked(endpoint string) {
	c := m.controls[endpoint]
	c.Endpoint, c.Parked = endpoint, c.Parked.Add(time.Microsecond)
	m.controls[endpoint] = c
}

// Discard implements [eventlog.ParkedKeeper].
func (m *Memory) Discard(
	ctx context.Context, endpoint string, sequences []int64, d eventlog.Discard,
) (n int64, err error) {
	block := &eventlog.HistoryBlock{Endpoint: endpoint}
	m.mu.Lock()
	m.touchParked(endpoint)
	for _, s := range sequences {
		key := retryKey{endpoint, s}
		r, found := m.retries[key]
		if !found {
			continue
		}
		n++
		block.Add(d.Record(r))
		delete(m.retries, key)
		if r.Dead.IsZero() {
			m.discarded[key] = r
		}
	}
	m.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	return n, m.AppendHistory(ctx, []*eventlog.HistoryBlock{block})
}

// Settled implements [eventlog.Replays].
func (m *Memory) Settled(ctx context.Context, endpoint string, from, to int64, found func(int64)) error {
	records, _, err := m.ReadHistory(ctx, eventlog.HistoryFilter{Endpoint: endpoint, Limit: 1 << 30})
	for _, r := range records {
		if r.Sequence >= from && r.Sequence <= to && !r.Failed() {
			found(r.Sequence)
		}
	}
	return err
}

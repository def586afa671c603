package eventlogtest

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

// Jump sets the clock for leases and expiry forward or back.
func (m *Memory) Jump(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jumped += d
}

func (m *Memory) now() time.Time { return time.Now().Add(m.jumped) }

// Join implements [eventlog.Leases].
func (m *Memory) Join(_ context.Context, r eventlog.Replica, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replicas[r.ID] = replica{r, m.now().Add(ttl)}
	return nil
}

// KeepAlive implements [eventlog.Leases].
func (m *Memory) KeepAlive(_ context.Context, r eventlog.Replica, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.replicas[r.ID]; !known {
		return false, nil
	}
	m.replicas[r.ID] = replica{r, m.now().Add(ttl)}
	for id, other := range m.replicas {
		if other.expires.After(m.now().Add(eventlog.LongestLife * ttl)) {
			other.expires = m.now().Add(ttl)
			m.replicas[id] = other
		}
	}
	return true, nil
}

// Leave implements [eventlog.Leases].
func (m *Memory) Leave(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.replicas, id)
	return nil
}

// Replicas implements [eventlog.Leases].
func (m *Memory) Replicas(context.Context) ([]eventlog.Replica, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var live []eventlog.Replica
	for _, r := range m.replicas {
		if r.expires.After(m.now()) {
			live = append(live, r.Replica)
		}
	}
	slices.SortFunc(live, func(a, b eventlog.Replica) int { return cmp.Compare(a.ID, b.ID) })
	return live, nil
}

// Acquire implements [eventlog.Leases].
func (m *Memory) Acquire(_ context.Context, owner string, want []eventlog.Partition) ([]eventlog.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.replicas {
		if !r.expires.After(m.now()) {
			delete(m.replicas, id)
		}
	}
	var got []eventlog.Cursor
	for _, p := range want {
		key := cursorKey{p.Endpoint, p.Index}
		c, known := m.cursors[key]
		if _, taken := m.replicas[c.Owner]; !known || taken || c.Partition != p || c.Former != "" {
			continue
		}
		c.Owner = owner
		c.Generation++
		c.Epoch = m.epochs.Current().ID
		m.cursors[key] = c
		got = append(got, c)
	}
	return got, nil
}

// Release implements [eventlog.Leases].
func (m *Memory) Release(_ context.Context, leases []eventlog.Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range leases {
		if !errors.Is(m.held(l), eventlog.ErrLeaseLost) {
			c := m.cursors[cursorKey{l.Endpoint, l.Index}]
			c.Owner = ""
			m.cursors[cursorKey{l.Endpoint, l.Index}] = c
		}
	}
	return nil
}

// held returns an error unless a lease is held and its epoch is the log's.
func (m *Memory) held(l eventlog.Lease) error {
	switch c, known := m.cursors[cursorKey{l.Endpoint, l.Index}]; {
	case !known || c.Partition != l.Partition || c.Generation != l.Generation || c.Owner != l.Owner:
		return eventlog.ErrLeaseLost
	case c.Epoch != l.Epoch || m.started && len(m.epochs) > 0:
		return eventlog.ErrNewEpoch
	}
	return nil
}

// Prepare implements [eventlog.Cursors].
func (m *Memory) Prepare(_ context.Context, s eventlog.Setup) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	configured := make(map[string]bool)
	for key, c := range m.cursors {
		configured[key.endpoint] = c.Removed.IsZero()
	}
	if s.Outdated(configured) {
		return eventlog.ErrEndpointsChanged
	}
	m.noteRemoved(s.Names())
	before := make(map[string]eventlog.Cursor) // the old partitions combined
	parts := make(map[string][]eventlog.Cursor)
	for key, c := range m.cursors {
		parts[key.endpoint] = append(parts[key.endpoint], c)
		old, seen := before[key.endpoint]
		if seen {
			c.Sequence, c.Generation, c.Owner = min(c.Sequence, old.Sequence),
				max(c.Generation, old.Generation), max(c.Owner, old.Owner)
		}
		before[key.endpoint] = c
	}
	for _, p := range s.Partitions {
		old, known := before[p.Endpoint]
		if known && old.Of == p.Of {
			continue
		}
		if p.Index == 0 {
			for i := range old.Of {
				delete(m.cursors, cursorKey{p.Endpoint, i})
			}
		}
		c := eventlog.Cursor{
			Lease:    eventlog.Lease{Partition: p, Generation: 1},
			Sequence: min(s.Begin(p.Endpoint), m.head()), Saved: time.Now(),
		}
		c.Epoch = m.epochs.Current().ID
		if !known {
			m.forget(p.Endpoint)
		} else {
			c.Sequence, c.Owner, c.Generation = old.Sequence, old.Owner, old.Generation+1
			c.Marks, c.Former = eventlog.Divide(parts[p.Endpoint]), old.Former
		}
		m.cursors[cursorKey{p.Endpoint, p.Index}] = c
	}
	return nil
}

// noteRemoved records which endpoints are configured and ends the replays of
// others.
func (m *Memory) noteRemoved(configured map[string]bool) {
	for key, c := range m.cursors {
		switch {
		case configured[key.endpoint]:
			c.Removed = time.Time{}
		case c.Removed.IsZero():
			c.Removed = m.now()
		}
		m.cursors[key] = c
	}
	for i := range m.replays {
		if r := &m.replays[i]; r.State == eventlog.ReplayRunning && !configured[r.Endpoint] {
			r.State, r.Reason, r.Updated = eventlog.ReplayCanceled, eventlog.RemovedReason, time.Now()
		}
	}
}

// forget removes an endpoint's data except its cursors, and returns the number of
// parked events removed.
func (m *Memory) forget(endpoint string) (parked int64) {
	delete(m.controls, endpoint)
	for key := range m.retries {
		if key.endpoint == endpoint {
			delete(m.retries, key)
			parked++
		}
	}
	m.gaps = slices.DeleteFunc(m.gaps, func(g eventlog.Gap) bool { return g.Endpoint == endpoint })
	return parked
}

// ExpireEndpoints removes endpoints as an [eventlog.Expirer] does.
func (m *Memory) ExpireEndpoints(_ context.Context, age time.Duration) (gone []eventlog.Removed, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.expiry, err = m.expiry.At(m.now(), max(age, 0)); err != nil {
		return nil, err
	}
	low := make(map[string]int64)
	for key, c := range m.cursors {
		if at, seen := low[key.endpoint]; !seen || c.Sequence < at {
			low[key.endpoint] = c.Sequence
		}
	}
	for key, c := range m.cursors {
		if _, taken := m.replicas[c.Owner]; taken || c.Removed.IsZero() || !c.Removed.Before(m.now().Add(-age)) {
			delete(low, key.endpoint)
		}
	}
	for endpoint, at := range low {
		maps.DeleteFunc(m.cursors, func(key cursorKey, _ eventlog.Cursor) bool { return key.endpoint == endpoint })
		gone = append(gone, eventlog.Removed{Endpoint: endpoint, Cursor: at, Parked: m.forget(endpoint)})
	}
	return gone, nil
}

// ExpireDead removes dead letters as an [eventlog.Expirer] does.
func (m *Memory) ExpireDead(_ context.Context, before time.Time) (map[string]int64, error) {
	return m.discard(func(r eventlog.Retry) bool { return r.Dead.Before(before) }), nil
}

func (m *Memory) discard(unwanted func(eventlog.Retry) bool) map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := make(map[string]int64)
	for key, r := range m.retries {
		if !r.Dead.IsZero() && unwanted(r) {
			delete(m.retries, key)
			n[key.endpoint]++
		}
	}
	return n
}

// Rename implements [eventlog.Cursors].
func (m *Memory) Rename(_ context.Context, from, to string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moveParked() // from an earlier rename
	var moving []eventlog.Cursor
	for key, c := range m.cursors {
		switch key.endpoint {
		case to:
			return false, nil
		case from:
			moving = append(moving, c)
		}
	}
	m.forget(to)
	for _, c := range moving {
		delete(m.cursors, cursorKey{from, c.Index})
		c.Endpoint, c.Former, c.Removed, c.Generation = to, from, time.Time{}, c.Generation+1
		m.cursors[cursorKey{to, c.Index}] = c
	}
	if c, said := m.controls[from]; said && moving != nil {
		delete(m.controls, from)
		c.Endpoint = to
		m.controls[to] = c
	}
	for i := range m.gaps {
		if m.gaps[i].Endpoint == from {
			m.gaps[i].Endpoint = to
		}
	}
	for i := range m.replays {
		if m.replays[i].Endpoint == from {
			m.replays[i].Endpoint = to
		}
	}
	return moving != nil, nil
}

// MoveParked implements [eventlog.Cursors].
func (m *Memory) MoveParked(context.Context) (more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moveParked()
	return false, nil
}

func (m *Memory) moveParked() {
	for key, c := range m.cursors {
		if c.Former == "" {
			continue
		}
		for old, r := range m.retries {
			if old.endpoint == c.Former {
				delete(m.retries, old)
				r.Endpoint = c.Endpoint
				m.retries[retryKey{c.Endpoint, old.sequence}] = r
			}
		}
		c.Former = ""
		m.cursors[key] = c
	}
}

// Cursors implements [eventlog.Cursors].
func (m *Memory) Cursors(context.Context) ([]eventlog.Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []eventlog.Cursor
	for _, c := range m.cursors {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b eventlog.Cursor) int {
		return cmp.Or(cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Index, b.Index))
	})
	return all, nil
}

// SaveCursors implements [eventlog.Cursors].
func (m *Memory) SaveCursors(_ context.Context, cursors []eventlog.Cursor) (lost []eventlog.Lease, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range cursors {
		if errors.Is(m.held(c.Lease), eventlog.ErrNewEpoch) {
			return nil, eventlog.ErrNewEpoch
		}
	}
	for _, c := range cursors {
		if m.held(c.Lease) != nil {
			lost = append(lost, c.Lease)
			continue
		}
		saved := m.cursors[cursorKey{c.Endpoint, c.Index}]
		saved.Sequence, saved.Marks, saved.Status, saved.Saved = max(saved.Sequence, c.Sequence),
			c.Marks, c.Status, time.Now()
		m.cursors[cursorKey{c.Endpoint, c.Index}] = saved
	}
	return lost, nil
}

// SaveGap implements [eventlog.Cursors].
func (m *Memory) SaveGap(_ context.Context, g eventlog.Gap) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saveGap(g)
	return nil
}

// saveGap records a gap, or extends one that it touches, and returns the part that
// is new.
func (m *Memory) saveGap(g eventlog.Gap) (fresh eventlog.Gap) {
	for i := range m.gaps {
		known := &m.gaps[i]
		if known.Endpoint == g.Endpoint && known.Index == g.Index && known.Reason == g.Reason &&
			known.From <= g.From && known.To >= g.From-1 {
			g.From = known.To + 1
			known.To, known.At = max(known.To, g.To), g.At
			return g
		}
	}
	m.gaps = append(m.gaps, g)
	return g
}

// Gaps returns the newest gaps, as an [eventlog.Archive] does.
func (m *Memory) Gaps(_ context.Context, limit int) ([]eventlog.Gap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gaps := slices.Clone(m.gaps)
	slices.SortFunc(gaps, func(a, b eventlog.Gap) int { return b.At.Compare(a.At) })
	return gaps[:min(limit, len(gaps))], nil
}

// Park implements [eventlog.Retries].
func (m *Memory) Park(_ context.Context, all ...eventlog.Parking) (refused map[eventlog.Lease]error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused = make(map[eventlog.Lease]error)
	for _, p := range all {
		if err := m.held(p.Lease); err != nil {
			refused[p.Lease] = err
			continue
		}
		for _, sequence := range p.Done {
			delete(m.retries, retryKey{p.Lease.Endpoint, sequence})
			delete(m.discarded, retryKey{p.Lease.Endpoint, sequence})
		}
		for _, r := range p.Retries {
			key := retryKey{r.Endpoint, r.Event.Sequence}
			if _, exists := m.retries[key]; exists && r.Next.IsZero() && r.Dead.IsZero() || m.discarded[key].Endpoint != "" {
				continue
			}
			m.retries[key] = r
		}
	}
	return refused, nil
}

// ParkedLanes implements [eventlog.Retries].
func (m *Memory) ParkedLanes(
	_ context.Context, p eventlog.Partition, after int64, limit int,
) ([]eventlog.Retry, error) {
	seen := make(map[string]bool)
	return m.sorted(limit, func(r eventlog.Retry) bool {
		if r.Endpoint != p.Endpoint || !r.Dead.IsZero() || !p.Has(r.Event) || seen[r.Event.Resource()] {
			return false
		}
		seen[r.Event.Resource()] = true
		return r.Event.Sequence > after
	}), nil
}

// Due implements [eventlog.Retries].
func (m *Memory) Due(
	_ context.Context, p eventlog.Partition, now time.Time, limit int,
) (due []eventlog.Retry, next time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []eventlog.Retry
	for _, r := range m.retries {
		if r.Endpoint == p.Endpoint && r.Dead.IsZero() && !r.Next.IsZero() && p.Has(r.Event) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b eventlog.Retry) int {
		return cmp.Or(a.Next.Compare(b.Next), cmp.Compare(a.Event.Sequence, b.Event.Sequence))
	})
	for _, r := range all {
		if r.Next.After(now) {
			return due[:min(limit, len(due))], r.Next, nil
		}
		due = append(due, r)
	}
	return due[:min(limit, len(due))], time.Time{}, nil
}

// Requeue implements [eventlog.Retries].
func (m *Memory) Requeue(
	_ context.Context, l eventlog.Lease, reason string, since, now time.Time,
) (n int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.held(l); err != nil {
		return 0, err
	}
	for key, r := range m.retries {
		if r.Endpoint == l.Endpoint && r.Dead.IsZero() && l.Has(r.Event) && r.Reason == reason &&
			!r.First.Before(since) && r.Next.After(now) {
			r.Next = now
			m.retries[key] = r
			n++
		}
	}
	return n, nil
}

// NextParked implements [eventlog.Retries].
func (m *Memory) NextParked(_ context.Context, endpoint string, e tidings.Event, limit int) ([]eventlog.Retry, error) {
	return m.sorted(limit, func(r eventlog.Retry) bool {
		return r.Endpoint == endpoint && r.Dead.IsZero() && r.Event.Resource() == e.Resource()
	}), nil
}

// sorted returns the parked events that match, in log order.
func (m *Memory) sorted(limit int, want func(eventlog.Retry) bool) []eventlog.Retry {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(m.retries), func(a, b retryKey) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.endpoint, b.endpoint))
	})
	var found []eventlog.Retry
	for _, key := range keys {
		if r := m.retries[key]; len(found) < limit && want(r) {
			found = append(found, r)
		}
	}
	return found
}

package relay_test

import (
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

// standby is a database that follows asynchronously, and how far it has come.
type standby struct {
	at       time.Time
	restore  func()
	written  int
	staged   []tidings.Event
	versions map[int]int
	owed     map[string]beginning
}

// follow lets the standby catch up.
func (s *simulation) follow() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.standby = standby{
		time.Now(), s.Backup(), len(s.written), slices.Clone(s.staged),
		maps.Clone(s.versions), s.owedNow(),
	}
}

// failover promotes the standby, or restores the file from a backup while no
// process runs: what was written since is lost. Processes that had read some of it notice
// that immediately.
func (s *simulation) failover() {
	if s.standby.restore == nil {
		return
	}
	if !s.staging {
		s.processes[0].kill()
	}
	for _, endpoints := range []map[string]relay.Endpoint{s.settings, s.removed} {
		for who, e := range endpoints {
			rows, _ := s.Parked(s.Context(), eventlog.ParkedFilter{Endpoint: e.Name, Dead: true, Limit: 1 << 20})
			for _, row := range rows {
				s.dead[who+row.Event.ID] = true
			}
		}
	}
	before, lasts := s.partitions(), leaseTime
	s.cluster.mu.Lock()
	s.standby.restore()
	s.staged, s.versions = slices.Clone(s.standby.staged), maps.Clone(s.standby.versions)
	s.cluster.mu.Unlock()
	s.forget()
	if !maps.Equal(before, s.partitions()) {
		lasts *= 3 // they are divided again once others have left and some time has passed
	}
	s.failovers++
	s.clockSeen = false
	s.mu.Lock()
	s.troubles = append(s.troubles, trouble{at: time.Now(), lasts: lasts, lost: time.Since(s.standby.at)})
	s.mu.Unlock()
	if !s.staging {
		s.processes[0] = s.begin()
		return
	}
	head := int64(0)
	for _, p := range s.processes {
		if silence, ever := s.silences[s.name(p)]; s.able(p) && (!ever || time.Since(silence[1]) > 2*statementTime) {
			head = max(head, p.relay.Head())
		}
	}
	kept, _ := s.Advance(s.Context())
	time.Sleep(5 * time.Second)
	gaps, _ := s.Gaps(s.Context(), 1<<20)
	noted := slices.ContainsFunc(gaps, func(g eventlog.Gap) bool {
		return personality(g.Endpoint) == "well" && g.Reason == eventlog.GapLost && g.From == kept+1 && g.To >= head
	})
	if head > kept && !noted {
		s.complain("at %v positions %d to %d were lost, and nothing records it: %+v",
			s.at(time.Now()), kept+1, head, gaps)
	}
}

// forget reverts to what the standby knew.
func (s *simulation) forget() {
	for _, e := range s.written[s.standby.written:] {
		s.lost[e.ID] = true
	}
	events, err := s.Read(s.Context(), 0, 1<<20)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range events {
		if s.expired[e.ID] > 0 {
			delete(s.expired, e.ID)
			s.restored[e.ID] = true
		}
	}
	for who, b := range s.standby.owed {
		s.begins(who, b.from, b.most)
	}
	known := make(map[string]bool)
	for name := range s.partitions() {
		known[personality(name)] = true
	}
	first := s.standby.written // for the events that are numbered next
	for _, e := range s.standby.staged {
		first = min(first, s.index[e.ID])
	}
	for who := range s.settings {
		if !known[who] { // it starts where the standby's log ended
			s.begins(who, s.standby.written, first)
		}
	}
}

package relay_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

var simulatedTypes = []tidings.ResourceType{"context", "file", "provider"}

// kinds are the things that can happen, and their relative frequency.
var kinds = []struct {
	name   string
	weight int
	do     func(s *simulation, at int)
}{
	{"write", 52, func(s *simulation, _ int) { s.write() }},
	{"crash", 4, func(s *simulation, at int) {
		s.suffer(s.processes[at], 0)
		s.processes[at].kill()
		s.processes[at] = s.begin()
	}},
	{"restart", 4, func(s *simulation, at int) {
		s.suffer(s.processes[at], 0) // it may be disconnected, or have been until now
		s.processes[at].exit()
		s.processes[at] = s.begin()
	}},
	{"stop", 5, func(s *simulation, at int) {
		s.suffer(s.processes[at], 0)
		s.processes[at].stop()
	}},
	{"revive", 8, func(s *simulation, at int) { s.revive(s.processes[at]) }},
	{"cut", 3, func(s *simulation, at int) {
		s.suffer(s.processes[at], leaseTime)
		s.processes[at].set(&s.processes[at].cut, true)
	}},
	{"silence", 3, func(s *simulation, at int) { s.silence(at) }},
	{"clock", 2, func(s *simulation, _ int) { s.jump() }},
	{"expire", 5, func(s *simulation, _ int) { s.expire() }},
	{"reload", 6, func(s *simulation, _ int) { s.reload() }},
	{"remove", 2, func(s *simulation, _ int) { s.remove() }},
	{"return", 2, func(s *simulation, _ int) { s.comeBack() }},
	{"rename", 3, func(s *simulation, _ int) { s.rename() }},
	{"replay", 4, func(s *simulation, _ int) { s.replay() }},
	{"redelivery", 2, func(s *simulation, _ int) { s.redeliver() }},
	{"retry", 3, func(s *simulation, _ int) { s.retryParked() }},
	{"discard", 2, func(s *simulation, _ int) { s.discardParked() }},
	{"pause", 4, func(s *simulation, _ int) { s.pause() }},
	{"standby", 6, func(s *simulation, _ int) { s.follow() }},
	{"failover", 2, func(s *simulation, _ int) { s.failover() }},
}

// leaseTime is how long a process that lost its leases continues to deliver.
const leaseTime = 10 * time.Second

// step does one random thing.
func (s *simulation) step() {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	at, what := s.random.IntN(len(s.processes)), s.random.IntN(total)
	for _, k := range kinds {
		if what -= k.weight; what < 0 {
			if !slices.Contains(s.without, k.name) {
				s.steps = append(s.steps, taken{time.Now(), k.name, s.name(s.processes[at])})
				k.do(s, at)
			}
			return
		}
	}
}

// write appends events, sometimes many.
func (s *simulation) write() {
	many := 8
	if s.random.IntN(10) == 0 {
		many = 80
	}
	for range 1 + s.random.IntN(many) {
		n := s.random.IntN(30)
		e := ofType(simulatedTypes[n%3], n, s.versions[n])
		e.Time = time.Now()
		s.versions[n]++
		e.ID += strings.Repeat("'", s.failovers) // the lost events had the same versions
		s.append(e)
		s.index[e.ID] = len(s.written)
		s.written = append(s.written, e)
	}
}

// suffer records that a process may have to send things again.
func (s *simulation) suffer(p *process, lasts time.Duration) {
	name, lost := s.name(p), time.Duration(0)
	if silence, ever := s.silences[name]; ever && (silence[1].IsZero() || time.Since(silence[1]) < 2*statementTime) {
		lost = time.Since(silence[0]) // it may still be waiting for an answer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles = append(s.troubles, trouble{process: name, at: time.Now(), lasts: lasts, lost: lost})
}

// silence makes the connections of one process, or of all, go silent.
func (s *simulation) silence(at int) {
	all := s.processes[at : at+1]
	if s.random.IntN(2) == 0 {
		all = s.processes
	}
	for _, p := range all {
		if _, silent := s.silent(p); silent {
			continue
		}
		s.silences[s.name(p)] = [2]time.Time{time.Now()}
		s.suffer(p, leaseTime)
		p.set(&p.silent, true)
	}
}

// silent returns when a process's connections went silent, and whether they still are.
func (s *simulation) silent(p *process) (from time.Time, is bool) {
	silence, ever := s.silences[s.name(p)]
	return silence[0], ever && silence[1].IsZero()
}

// revive ends the troubles of a process.
func (s *simulation) revive(p *process) {
	if from, silent := s.silent(p); silent {
		s.suffer(p, leaseTime)
		s.silences[s.name(p)] = [2]time.Time{from, time.Now()}
		p.set(&p.silent, false)
	}
	p.goOn()
	p.set(&p.cut, false)
	s.configure(p)
}

// able reports whether a process runs and reaches the database.
func (s *simulation) able(p *process) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped == nil && !p.cut && !p.dead && !p.silent
}

// jump sets the database's clock, usually by a little, sometimes by more than the retention.
func (s *simulation) jump() {
	by := time.Duration(s.random.IntN(120)-60) * time.Second
	switch big := s.random.IntN(3) == 0; {
	case big && !s.clockSeen: // no server expires events so seldom
		return
	case big && s.jumped != 0:
		by, s.jumped, s.clockSeen = -s.jumped, 0, false
	case big:
		s.clockSeen = false
		by = s.retention + time.Hour + time.Duration(s.random.IntN(180))*time.Minute
		if s.random.IntN(2) == 0 {
			by = -by
		}
		s.jumped = by
	default:
		s.wandered += by.Abs()
	}
	for _, p := range s.processes {
		s.suffer(p, leaseTime)
	}
	if by.Abs() > time.Minute { // a standby from before does not know what the clock was at the last expiry
		s.standby = standby{}
	}
	s.Jump(by)
}

// expire removes what is past its retention, as the server does periodically, and
// notifies consumers.
func (s *simulation) expire() {
	if !slices.ContainsFunc(s.processes, s.able) {
		return
	}
	before, err := s.Read(s.Context(), 0, 1<<20)
	if err != nil {
		s.Fatal(err)
	}
	_, err = s.ExpireEvents(s.Context(), s.retention)
	oldest, _ := s.Oldest(s.Context())
	for _, e := range before {
		if e.Sequence >= oldest {
			break
		}
		s.expired[e.ID] = e.Sequence
		if age := time.Since(e.Time); age < s.retention-s.wandered {
			s.complain("at %v: %s expired at the age of %v; before: %s", s.at(time.Now()), e.ID,
				age, s.before(time.Now()))
		}
	}
	s.clockSeen = true
	if err != nil { // the clock may be wrong
		return
	}
	gone, err := s.ExpireEndpoints(s.Context(), s.retention)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range gone { // a replica with an old configuration may begin it anew, anywhere
		s.begins(personality(e.Endpoint), len(s.written), 0)
	}
	s.nudge()
}

// reload changes an endpoint in every process.
func (s *simulation) reload() {
	names := slices.Sorted(maps.Keys(s.settings))
	name := names[s.random.IntN(len(names))]
	e := s.settings[name]
	e.Fingerprint = fmt.Sprint(s.random.IntN(1 << 30))
	e.MaxInFlight = 3 + s.random.IntN(14)
	if e.Coalesce == "" {
		e.Partitions = 1 + s.random.IntN(min(e.MaxInFlight, 3))
	}
	s.settings[name] = e
	s.configureAll()
}

// configureAll gives every process the current settings, sometimes one well after another.
func (s *simulation) configureAll() {
	pause := time.Duration(0)
	if s.random.IntN(3) == 0 {
		pause = time.Duration(s.random.IntN(30)) * time.Second
	}
	for _, p := range s.processes {
		s.configure(p)
		time.Sleep(pause)
	}
}

// configure gives a process the current settings, unless it can't accept any.
func (s *simulation) configure(p *process) {
	if !s.able(p) {
		return
	}
	next := s.endpoints(s.name(p))
	for i := range next {
		next[i].Sender = p.sender(next[i].Sender)
	}
	before := s.partitions()
	s.noteNew()
	if err := p.relay.Update(s.Context(), next); err != nil {
		s.complain("update: %v", err)
	}
	s.divided(before)
}

// remove removes an endpoint from the configuration.
func (s *simulation) remove() {
	who := []string{"flapping", "slow", "throttles", "refuses-all"}[s.random.IntN(4)]
	if e, configured := s.settings[who]; configured {
		s.removed[who] = e
		delete(s.settings, who)
		s.configureAll()
	}
}

// comeBack adds endpoints that were removed to the configuration again.
func (s *simulation) comeBack() {
	for _, who := range slices.Sorted(maps.Keys(s.removed)) {
		s.settings[who] = s.removed[who]
		delete(s.removed, who)
	}
	s.configureAll()
}

// rename corrects the URL of an endpoint that has no name of its own, and may set cursor_from.
func (s *simulation) rename() {
	who := []string{"refuses-one", "hangs", "merging", "away"}[s.random.IntN(4)]
	n, said := s.random.IntN(3), s.random.IntN(2) == 0
	e := s.settings[who]
	former := ""
	for name := range s.partitions() {
		if personality(name) == who {
			former = name
		}
	}
	// The database, or the standby, may not know the last name yet.
	unknown := former != e.Name || !s.renamed[who].Before(s.standby.at) && !s.standby.at.IsZero()
	if e.Name == s.nameOf(who, n) || unknown {
		return
	}
	e.Name, e.CursorFrom = s.nameOf(who, n), ""
	e.URL = "https://" + e.Name
	if said {
		e.CursorFrom = former
	}
	s.settings[who], s.renamed[who] = e, time.Now()
	s.configureAll()
}

func (s *simulation) replay() {
	head, _ := s.Advance(s.Context())
	from := max(head-int64(s.random.IntN(200)), 1)
	s.sendAgain(from, head, s.random.IntN(3) == 0)
}

// redeliver sends one event again.
func (s *simulation) redeliver() {
	if head, _ := s.Advance(s.Context()); head > 0 {
		at := max(head-int64(s.random.IntN(100)), 1)
		s.sendAgain(at, at, false)
	}
}

func (s *simulation) sendAgain(from, to int64, dead bool) {
	who := []string{"well", "refuses-one", "slow", "flapping"}[s.random.IntN(4)]
	e, configured := s.settings[who]
	if !configured {
		return
	}
	r := eventlog.Replay{
		ID: fmt.Sprint("replay", s.random.Int64()), Endpoint: e.Name, From: from, To: to, State: eventlog.ReplayRunning,
		Created: time.Now(), Updated: time.Now(), Dead: dead,
	}
	_ = s.AddReplay(s.Context(), r)
	s.nudge()
}

// someParked returns parked events of an endpoint, all or some.
func (s *simulation) someParked() (who string, rows []eventlog.Retry) {
	all := slices.Sorted(maps.Keys(s.settings))
	who = all[s.random.IntN(len(all))]
	rows, err := s.Parked(s.Context(), eventlog.ParkedFilter{Endpoint: s.settings[who].Name, Limit: 1000})
	if err != nil {
		s.Fatal(err)
	}
	if s.random.IntN(2) == 0 && len(rows) > 0 {
		at := s.random.IntN(len(rows))
		rows = rows[at:min(at+3, len(rows))]
	}
	return who, rows
}

// retryParked retries parked events and dead letters, as an operator does.
func (s *simulation) retryParked() {
	who, rows := s.someParked()
	var events []tidings.Event
	for _, r := range rows {
		events = append(events, r.Event)
		if !r.Dead.IsZero() {
			s.dead[who+r.Event.ID] = true // later ones may have been delivered before it
		}
	}
	if err := s.RetryParked(s.Context(), s.settings[who].Name, events, time.Now()); err != nil {
		s.Fatal(err)
	}
	s.nudge()
}

// discardParked discards parked events and dead letters, as an operator does.
func (s *simulation) discardParked() {
	who, rows := s.someParked()
	var sequences []int64
	for _, r := range rows {
		sequences = append(sequences, r.Event.Sequence)
		s.discarded[who+r.Event.ID] = discarding{time.Now(), s.failovers}
	}
	_, err := s.Discard(s.Context(), s.settings[who].Name, sequences, eventlog.Discard{At: time.Now()})
	if err != nil {
		s.Fatal(err)
	}
	s.nudge()
}

func (s *simulation) pause() {
	c := eventlog.Control{Endpoint: s.settings["well"].Name, Since: time.Now()}
	if s.random.IntN(2) == 0 {
		c.Disabled = relay.PausedReason
	}
	_ = s.SaveControl(s.Context(), c)
	s.nudge()
}

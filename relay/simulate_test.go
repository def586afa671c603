package relay_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

var (
	simulateSeeds   = flag.Uint64("simulate.seeds", 2, "how many simulated runs of six hours; 1460 are a year")
	simulateFirst   = flag.Uint64("simulate.first", 1, "the seed of the first run")
	simulateWithout = flag.String("simulate.without", "", "kinds of trouble that are left out, with commas")
)

// simulatedTime is how long trouble lasts in one run.
const simulatedTime = 6 * time.Hour

// TestSimulatedYear runs the real relay in virtual time, three replicas on a log like
// PostgreSQL's or one process on a log like SQLite's, against endpoints with
// personalities, while processes crash, stand still, lose their leases and are
// configured anew, clocks jump, and operators replay and pause. A checker of the whole
// history then states what is promised. A seed decides everything but the interleaving
// of goroutines. For one that failed, kinds of trouble that it does not need are left
// out, and the command is printed that does the rest.
func TestSimulatedYear(t *testing.T) {
	without := strings.FieldsFunc(*simulateWithout, func(r rune) bool { return r == ',' })
	run := func(t *testing.T, seed uint64, without []string) (problems []string) {
		synctest.Test(t, func(t *testing.T) { problems = newSimulation(t, seed, without).run() })
		return problems
	}
	for seed := *simulateFirst; seed < *simulateFirst+*simulateSeeds; seed++ {
		problems := run(t, seed, without)
		if len(problems) == 0 {
			continue
		}
		needless := slices.Clone(without)
		for _, k := range kinds {
			if slices.Contains(needless, k.name) || k.name == "write" {
				continue
			}
			if fewer := run(t, seed, append(slices.Clone(needless), k.name)); len(fewer) > 0 {
				needless, problems = append(needless, k.name), fewer
			}
		}
		t.Fatalf("seed %d:\n\t%s\nmake simulate SEEDS=1 FIRST=%d WITHOUT=%s", seed,
			strings.Join(problems[:min(len(problems), 10)], "\n\t"), seed, strings.Join(needless, ","))
	}
}

// request is one that an endpoint got.
type request struct {
	endpoint, process string
	event             tidings.Event
	number            int
	replay, dead      bool      // sent again, and it had been given up
	began, ended      time.Time // ended is zero while it is under way
	verdict           tidings.Verdict
}

// simulation is one run.
type simulation struct {
	*testing.T
	*cluster
	seed      uint64
	random    *rand.Rand // of a step; the receivers have their own
	without   []string
	processes []*process
	names     int
	settings  map[string]relay.Endpoint
	moods     map[string]func(e tidings.Event, at time.Duration, r *rand.Rand) (tidings.Outcome, time.Duration)
	began     time.Time
	healed    bool
	versions  map[int]int
	written   []tidings.Event
	lost      map[string]bool // by the database
	dead      map[string]bool // by endpoint and id, given up when the database lost that, too
	standby   standby
	failovers int
	steps     []taken

	mu       sync.Mutex
	requests []*request
	answers  *rand.Rand
	troubles []trouble // that make duplicates
}

// taken is a step that was, and for which process if it is about one.
type taken struct {
	at            time.Time
	kind, process string
}

// trouble is a process that ended without a word, or lost what it had leased, or
// had it divided in another way.
type trouble struct {
	process string // empty for all
	at      time.Time
	lasts   time.Duration // it delivers for so long without being able to note it
	lost    time.Duration // what it noted for so long before is lost
}

// standby is a database that follows asynchronously, as far as it has come.
type standby struct {
	at       time.Time
	restore  func()
	written  int
	staged   []tidings.Event
	versions map[int]int
}

func newSimulation(t *testing.T, seed uint64, without []string) *simulation {
	return &simulation{
		T: t, cluster: &cluster{Memory: eventlogtest.NewMemory(), staging: seed%4 != 0},
		seed: seed, without: without, answers: rand.New(rand.NewPCG(seed, 0)),
		settings: make(map[string]relay.Endpoint), versions: make(map[int]int), began: time.Now(),
		lost: make(map[string]bool), dead: make(map[string]bool),
		moods: map[string]func(tidings.Event, time.Duration, *rand.Rand) (tidings.Outcome, time.Duration){
			"well": func(tidings.Event, time.Duration, *rand.Rand) (tidings.Outcome, time.Duration) {
				return delivered, 5 * time.Millisecond
			},
			"flapping": func(_ tidings.Event, at time.Duration, r *rand.Rand) (tidings.Outcome, time.Duration) {
				if int(at.Minutes())/7%2 == 0 || r.IntN(20) == 0 {
					return failed, 10 * time.Millisecond
				}
				return delivered, 10 * time.Millisecond
			},
			"refuses one": func(e tidings.Event, _ time.Duration, _ *rand.Rand) (tidings.Outcome, time.Duration) {
				if strings.HasSuffix(e.ResourceID, "3") {
					return refused, time.Millisecond
				}
				return delivered, 3 * time.Millisecond
			},
			"refuses all": func(_ tidings.Event, at time.Duration, _ *rand.Rand) (tidings.Outcome, time.Duration) {
				if at > time.Hour && at < 3*time.Hour {
					return refused, time.Millisecond
				}
				return delivered, time.Millisecond
			},
			"throttles": func(_ tidings.Event, _ time.Duration, r *rand.Rand) (tidings.Outcome, time.Duration) {
				if r.IntN(5) == 0 {
					return tidings.Outcome{Verdict: tidings.Throttled, Reason: "http_429", Status: 429}, time.Millisecond
				}
				return delivered, 20 * time.Millisecond
			},
			"hangs": func(_ tidings.Event, _ time.Duration, r *rand.Rand) (tidings.Outcome, time.Duration) {
				if r.IntN(50) == 0 {
					return tidings.Outcome{Verdict: tidings.Failed, Reason: tidings.ReasonTimeout}, 15 * time.Second
				}
				return delivered, 5 * time.Millisecond
			},
			"slow": func(tidings.Event, time.Duration, *rand.Rand) (tidings.Outcome, time.Duration) {
				return delivered, 2 * time.Second
			},
			"merging": func(_ tidings.Event, at time.Duration, _ *rand.Rand) (tidings.Outcome, time.Duration) {
				if int(at.Minutes())/20%2 == 0 {
					return unreachable, time.Millisecond
				}
				return delivered, 50 * time.Millisecond
			},
		},
	}
}

func (s *simulation) run() []string {
	for name := range s.moods {
		e := endpoint(name, nil)
		e.MaxInFlight, e.Fingerprint, e.Timeout = 8, "0", 15*time.Second
		e.Retry.Delays = []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute}
		if name == "merging" {
			e.Coalesce = tidings.CoalesceUpdates
		}
		s.settings[name] = e
	}
	s.processes = []*process{s.begin()}
	if s.staging { // a SQLite file belongs to one process
		s.processes = append(s.processes, s.begin(), s.begin())
	}
	for number := uint64(1); time.Since(s.began) < simulatedTime; number++ {
		s.random = rand.New(rand.NewPCG(s.seed, number)) // what is left out changes nothing else
		pause := time.Duration(s.random.IntN(20_000)) * time.Millisecond
		if s.random.IntN(10) == 0 {
			pause *= 30
		}
		s.step()
		time.Sleep(pause)
	}
	s.heal()
	problems := s.check()
	for _, p := range s.processes {
		p.exit()
	}
	return problems
}

// begin starts a process with the settings of now.
func (s *simulation) begin() *process {
	s.names++
	name := fmt.Sprint("process", s.names)
	before := s.partitions()
	p := s.start(s.T, nil, s.endpoints(name)...)
	s.divided(before)
	return p
}

// divided notes that endpoints may have been divided into other partitions: what each
// process delivered a moment ago is not known to the others.
func (s *simulation) divided(before map[string]int) {
	if !maps.Equal(before, s.partitions()) {
		for _, p := range s.processes {
			s.suffer(p, 0)
		}
	}
}

// endpoints are the settings of now, with senders of a process.
func (s *simulation) endpoints(process string) (all []relay.Endpoint) {
	for name, e := range s.settings {
		e.Sender = s.sender(name, process)
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b relay.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (s *simulation) sender(endpoint, process string) relay.Sender {
	return relay.SenderFunc(func(ctx context.Context, a tidings.Attempt) tidings.Outcome {
		s.mu.Lock()
		r := &request{endpoint: endpoint, process: process, event: a.Event, number: a.Number, replay: a.Replay, began: time.Now()}
		if r.replay {
			rows, _ := s.Parked(ctx, eventlog.ParkedFilter{Endpoint: endpoint, Sequence: a.Event.Sequence, Dead: true, Limit: 1})
			r.dead = len(rows) > 0
		}
		s.requests = append(s.requests, r)
		outcome, took := s.moods["well"](a.Event, 0, s.answers)
		if !s.healed {
			outcome, took = s.moods[endpoint](a.Event, time.Since(s.began), s.answers)
		}
		s.mu.Unlock()
		timer := time.NewTimer(took)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			outcome = tidings.Outcome{Verdict: tidings.Interrupted}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		r.ended, r.verdict = time.Now(), outcome.Verdict
		outcome.Duration = time.Since(r.began)
		return outcome
	})
}

var simulatedTypes = []tidings.ResourceType{"context", "file", "provider"}

// kinds are what can happen, and how often in a hundred steps.
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
		s.suffer(s.processes[at], 0) // it may be cut off, or have been until now
		s.processes[at].exit()
		s.processes[at] = s.begin()
	}},
	{"stop", 5, func(s *simulation, at int) {
		s.suffer(s.processes[at], 0)
		s.processes[at].stop()
	}},
	{"revive", 6, func(s *simulation, at int) { s.revive(s.processes[at]) }},
	{"cut", 3, func(s *simulation, at int) {
		s.suffer(s.processes[at], leaseTime)
		s.processes[at].set(&s.processes[at].cut, true)
	}},
	{"clock", 2, func(s *simulation, _ int) {
		for _, p := range s.processes {
			s.suffer(p, leaseTime)
		}
		s.Jump(time.Duration(s.random.IntN(120)-60) * time.Second)
	}},
	{"reload", 6, func(s *simulation, _ int) { s.reload() }},
	{"replay", 4, func(s *simulation, _ int) { s.replay() }},
	{"redelivery", 2, func(s *simulation, _ int) { s.redeliver() }},
	{"pause", 4, func(s *simulation, _ int) { s.pause() }},
	{"standby", 6, func(s *simulation, _ int) { s.follow() }},
	{"failover", 2, func(s *simulation, _ int) { s.failover() }},
}

// leaseTime is for how long a process that lost its leases delivers on.
const leaseTime = 10 * time.Second

// step does one thing that the seed draws.
func (s *simulation) step() {
	at, what := s.random.IntN(len(s.processes)), s.random.IntN(100)
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
		e.ID += strings.Repeat("'", s.failovers) // what was lost had the same versions
		s.append(e)
		s.written = append(s.written, e)
	}
}

// follow lets the standby catch up.
func (s *simulation) follow() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.standby = standby{time.Now(), s.Backup(), len(s.written), slices.Clone(s.staged), maps.Clone(s.versions)}
}

// failover has the standby take over, or the file be restored from a backup while no
// process runs: what was written since is lost. Processes that had read some of it note
// that at once.
func (s *simulation) failover() {
	if s.standby.restore == nil {
		return
	}
	if !s.staging {
		s.processes[0].kill()
	}
	for name := range s.settings {
		rows, _ := s.Parked(s.Context(), eventlog.ParkedFilter{Endpoint: name, Dead: true, Limit: 1 << 20})
		for _, row := range rows {
			s.dead[name+row.Event.ID] = true
		}
	}
	before, lasts := s.partitions(), leaseTime
	s.cluster.mu.Lock()
	s.standby.restore()
	s.staged, s.versions = slices.Clone(s.standby.staged), maps.Clone(s.standby.versions)
	s.cluster.mu.Unlock()
	for _, e := range s.written[s.standby.written:] {
		s.lost[e.ID] = true
	}
	if !maps.Equal(before, s.partitions()) {
		lasts *= 3 // they are divided again, once others have left and it was so for a while
	}
	s.failovers++
	s.mu.Lock()
	s.troubles = append(s.troubles, trouble{at: time.Now(), lasts: lasts, lost: time.Since(s.standby.at)})
	s.mu.Unlock()
	if !s.staging {
		s.processes[0] = s.begin()
		return
	}
	head := int64(0)
	for _, p := range s.processes {
		p.mu.Lock()
		if !p.dead && !p.cut && p.stopped == nil {
			head = max(head, p.relay.Head())
		}
		p.mu.Unlock()
	}
	kept, _ := s.Advance(s.Context())
	time.Sleep(5 * time.Second)
	gaps, _ := s.Gaps(s.Context(), 1<<20)
	noted := slices.ContainsFunc(gaps, func(g eventlog.Gap) bool {
		return g.Endpoint == "well" && g.Reason == eventlog.GapLost && g.From == kept+1 && g.To >= head
	})
	if head > kept && !noted {
		s.Errorf("at %v positions %d to %d were lost, and nothing notes it: %+v", s.at(time.Now()), kept+1, head, gaps)
	}
}

// suffer notes that a process may have to send things again.
func (s *simulation) suffer(p *process, lasts time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles = append(s.troubles, trouble{process: s.name(p), at: time.Now(), lasts: lasts})
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
	for _, p := range s.processes {
		s.configure(p)
	}
}

// configure gives a process the settings of now, unless it can't take any.
func (s *simulation) configure(p *process) {
	p.mu.Lock()
	unable := p.stopped != nil || p.cut || p.dead
	p.mu.Unlock()
	if unable {
		return
	}
	next := s.endpoints(s.name(p))
	for i := range next {
		next[i].Sender = p.sender(next[i].Sender)
	}
	before := s.partitions()
	if err := p.relay.Update(s.Context(), next); err != nil {
		s.Errorf("update: %v", err)
	}
	s.divided(before)
}

// partitions are how many each endpoint has now.
func (s *simulation) partitions() map[string]int {
	of := make(map[string]int)
	cursors, _ := s.Cursors(s.Context())
	for _, c := range cursors {
		of[c.Endpoint] = c.Of
	}
	return of
}

// revive ends the troubles of a process.
func (s *simulation) revive(p *process) {
	p.goOn()
	p.set(&p.cut, false)
	s.configure(p)
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
	name := []string{"well", "refuses one", "slow", "flapping"}[s.random.IntN(4)]
	r := eventlog.Replay{
		ID: fmt.Sprint("replay", s.random.Int64()), Endpoint: name, From: from, To: to, State: eventlog.ReplayRunning,
		Created: time.Now(), Updated: time.Now(), Dead: dead,
	}
	_ = s.AddReplay(s.Context(), r)
	s.nudge()
}

func (s *simulation) pause() {
	c := eventlog.Control{Endpoint: "well", Since: time.Now()}
	if s.random.IntN(2) == 0 {
		c.Disabled = relay.PausedReason
	}
	_ = s.SaveControl(s.Context(), c)
	s.nudge()
}

func (s *simulation) nudge() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	for _, v := range s.views {
		v.nudged.Give()
	}
}

// heal ends all trouble and waits until everything has had its time.
func (s *simulation) heal() {
	s.mu.Lock()
	s.healed = true
	s.mu.Unlock()
	for _, p := range s.processes {
		s.revive(p)
	}
	_ = s.SaveControl(s.Context(), eventlog.Control{Endpoint: "well", Since: time.Now()})
	s.nudge()
	time.Sleep(time.Hour)
}

func (s *simulation) name(p *process) string {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	return fmt.Sprint("process", slices.Index(s.views, p.view)+1)
}

// check compares the history with what is promised.
func (s *simulation) check() (problems []string) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	byEndpoint := make(map[string][]*request)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		byEndpoint[r.endpoint] = append(byEndpoint[r.endpoint], r)
	}
	for name := range s.settings {
		dead := make(map[string]bool)
		rows, err := s.Parked(s.Context(), eventlog.ParkedFilter{Endpoint: name, Limit: 1 << 20})
		if err != nil {
			s.Fatal(err)
		}
		for _, row := range rows {
			if row.Dead.IsZero() {
				complain("%s: %s is parked still, next at %v", name, row.Event.ID, row.Next)
			}
			dead[row.Event.ID] = true
		}
		got := make(map[string]bool)
		highest := make(map[string]int64) // first deliveries, by resource
		allowed := s.allowedAgain(byEndpoint[name])
		before := make(map[string]*request) // delivered last
		requests := byEndpoint[name]
		slices.SortStableFunc(requests, func(a, b *request) int { return a.ended.Compare(b.ended) })
		for _, r := range requests {
			if r.verdict != tidings.Delivered || r.ended.IsZero() {
				continue
			}
			switch {
			case got[r.event.ID]:
				if last := before[r.event.ID]; !r.replay && !allowed[last] {
					complain("%s: %s was delivered by %s at %v and again by %s at %v; no trouble explains it; before: %s",
						name, r.event.ID, last.process, s.at(last.ended), r.process, s.at(r.began), s.before(r.began))
				}
				before[r.event.ID] = r
				continue
			case s.lost[r.event.ID]: // its version was used again
				got[r.event.ID], before[r.event.ID] = true, r
				continue
			case s.dead[name+r.event.ID]:
			case r.event.ResourceVersion < highest[r.event.Resource()] && !dead[r.event.ID] && !r.dead && name != "merging":
				complain("%s: first delivery of %s came after version %d", name, r.event.ID, highest[r.event.Resource()])
			}
			got[r.event.ID], before[r.event.ID] = true, r
			highest[r.event.Resource()] = max(highest[r.event.Resource()], r.event.ResourceVersion)
		}
		for i, e := range s.written {
			told := got[e.ID] || s.lost[e.ID] || dead[e.ID] || (name == "merging" && e.ResourceVersion < highest[e.Resource()])
			if !told {
				complain("%s: %s (position %d) was lost; %s", name, e.ID, i+1, s.state(s.T))
			}
		}
	}
	return problems
}

// at is a time as one of the run.
func (s *simulation) at(t time.Time) time.Duration { return t.Sub(s.began) }

// before lists what happened last before a time.
func (s *simulation) before(t time.Time) string {
	at, _ := slices.BinarySearchFunc(s.steps, t, func(step taken, t time.Time) int { return step.at.Compare(t) })
	var b strings.Builder
	for _, step := range s.steps[max(at-8, 0):at] {
		fmt.Fprintf(&b, "%s of %s at %v, ", step.kind, step.process, s.at(step.at))
	}
	return b.String()
}

// allowedAgain is the deliveries to an endpoint that may be made again: for each trouble
// of a process what it had under way, and what it had delivered in an interval of the
// cursors before. An answer that was not heard counts, too.
func (s *simulation) allowedAgain(requests []*request) map[*request]bool {
	const interval = time.Second // saving cursors takes a quarter, twice, and some time
	allowed := make(map[*request]bool)
	for _, r := range requests {
		if r.verdict != tidings.Delivered {
			continue
		}
		for _, trouble := range s.troubles {
			if (r.process == trouble.process || trouble.process == "") && !r.began.After(trouble.at.Add(interval+trouble.lasts)) &&
				(r.ended.IsZero() || r.ended.After(trouble.at.Add(-interval-trouble.lost))) {
				allowed[r] = true
			}
		}
	}
	return allowed
}

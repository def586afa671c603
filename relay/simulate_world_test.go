package relay_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// simulation is one run. Endpoints are identified by their personality here, whatever their names.
type simulation struct {
	*testing.T
	*cluster
	seed      uint64
	random    *rand.Rand // for steps; the receivers have their own
	without   []string
	processes []*process
	names     int // number of processes so far
	settings  map[string]relay.Endpoint
	removed   map[string]relay.Endpoint // currently not configured
	renamed   map[string]time.Time
	retention time.Duration
	began     time.Time
	healed    bool
	versions  map[int]int
	written   []tidings.Event
	index     map[string]int          // into written
	lost      map[string]bool         // by the database
	expired   map[string]int64        // at which position
	restored  map[string]bool         // had expired before
	dead      map[string]bool         // by endpoint and id, given up when the database lost that, too
	discarded map[string]discarding   // by endpoint and id
	owed      map[string][]beginning  // by endpoint, in order
	silences  map[string][2]time.Time // by process, start and end
	wandered  time.Duration           // the most that small jumps of the clock add up to
	jumped    time.Duration           // by a big one
	clockSeen bool                    // events expired, or should have, since then and since a failover
	standby   standby
	failovers int
	steps     []taken
	problems  []string

	mu       sync.Mutex
	requests []*request
	inFlight map[string]int // by process
	atOnce   int            // the maximum
	answers  *rand.Rand
	troubles []trouble // that cause duplicates
}

// request is a request that an endpoint received.
type request struct {
	endpoint, process string
	event             tidings.Event
	number            int
	replay, dead      bool      // sent again; it had been given up
	began, ended      time.Time // ended is zero while it is in flight
	verdict           tidings.Verdict
}

// taken is a step that was taken, and the process if it is about one.
type taken struct {
	at            time.Time
	kind, process string
}

// trouble is a process that ended abruptly, or lost what it had leased, or
// had it divided differently.
type trouble struct {
	process string // empty for all
	at      time.Time
	lasts   time.Duration // how long it delivers without being able to save that
	lost    time.Duration // how much of what it had saved before is lost
}

// mood is how an endpoint answers, and how long that takes.
type mood func(e tidings.Event, at time.Duration, r *rand.Rand) (tidings.Outcome, time.Duration)

var moods = map[string]mood{
	"well": func(tidings.Event, time.Duration, *rand.Rand) (tidings.Outcome, time.Duration) {
		return delivered, 5 * time.Millisecond
	},
	"flapping": func(_ tidings.Event, at time.Duration, r *rand.Rand) (tidings.Outcome, time.Duration) {
		if int(at.Minutes())/7%2 == 0 || r.IntN(20) == 0 {
			return failed, 10 * time.Millisecond
		}
		return delivered, 10 * time.Millisecond
	},
	"refuses-one": func(e tidings.Event, _ time.Duration, _ *rand.Rand) (tidings.Outcome, time.Duration) {
		if strings.HasSuffix(e.ResourceID, "3") {
			return refused, time.Millisecond
		}
		return delivered, 3 * time.Millisecond
	},
	"refuses-all": func(_ tidings.Event, at time.Duration, _ *rand.Rand) (tidings.Outcome, time.Duration) {
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
	"away": func(_ tidings.Event, at time.Duration, _ *rand.Rand) (tidings.Outcome, time.Duration) {
		if int(at.Minutes())/100%2 == 0 { // longer than the retention, in some runs
			return unreachable, time.Millisecond
		}
		return delivered, time.Millisecond
	},
}

// personality returns the personality that has a name.
func personality(name string) string {
	before, _, _ := strings.Cut(name, ".")
	return before
}

// name returns the name of an endpoint whose URL was corrected some times. It has none except
// its host and path.
func (s *simulation) nameOf(personality string, n int) string {
	return fmt.Sprintf("%s.example/%d", personality, n)
}

func newSimulation(t *testing.T, seed uint64, without []string) *simulation {
	s := &simulation{
		T: t, cluster: &cluster{
			Memory: eventlogtest.NewMemory(), staging: seed%4 != 0, limit: []int{0, 4, 0, 12, 30}[seed%5],
		},
		seed: seed, without: without, answers: rand.New(rand.NewPCG(seed, 0)), began: time.Now(),
		retention: []time.Duration{40 * time.Minute, 90 * time.Minute, 3 * time.Hour}[seed%3],
		settings:  make(map[string]relay.Endpoint), removed: make(map[string]relay.Endpoint),
		renamed:  make(map[string]time.Time),
		versions: make(map[int]int), index: make(map[string]int), lost: make(map[string]bool),
		expired:  make(map[string]int64),
		restored: make(map[string]bool),
		dead:     make(map[string]bool), discarded: make(map[string]discarding), owed: make(map[string][]beginning),
		silences: make(map[string][2]time.Time), inFlight: make(map[string]int),
	}
	for who := range moods {
		e := endpoint(s.nameOf(who, 0), nil)
		e.URL = "https://" + e.Name
		e.MaxInFlight, e.Fingerprint, e.Timeout = 8, "0", 15*time.Second
		e.Retry.Delays = []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute}
		if who == "merging" {
			e.Coalesce = tidings.CoalesceUpdates
		}
		s.settings[who] = e
	}
	return s
}

func (s *simulation) run() []string {
	s.processes = []*process{s.begin()}
	if s.staging { // a SQLite file belongs to one process
		s.processes = append(s.processes, s.begin(), s.begin())
	}
	if !slices.Contains(s.without, "expire") {
		s.expire() // a server does so as it starts
	}
	for number := uint64(1); time.Since(s.began) < simulatedTime; number++ {
		s.random = rand.New(rand.NewPCG(s.seed, number)) // leaving it out changes nothing else
		pause := time.Duration(s.random.IntN(20_000)) * time.Millisecond
		if s.random.IntN(10) == 0 {
			pause *= 30
		}
		s.step()
		time.Sleep(pause)
	}
	s.heal()
	s.check()
	for _, p := range s.processes {
		p.exit()
	}
	return s.problems
}

func (s *simulation) complain(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

// begin starts a process with the current settings.
func (s *simulation) begin() *process {
	s.names++
	name := fmt.Sprint("process", s.names)
	before := s.partitions()
	s.noteNew()
	p := s.start(s.T, nil, s.endpoints(name)...)
	s.divided(before)
	return p
}

// noteNew records that endpoints without a cursor start with what is written from now on.
func (s *simulation) noteNew() {
	known := make(map[string]bool)
	cursors, _ := s.Cursors(s.Context())
	for _, c := range cursors {
		known[personality(c.Endpoint)] = true
	}
	for who := range s.settings {
		if !known[who] {
			s.begins(who, len(s.written), len(s.written))
		}
	}
}

// discarding is when an operator discarded an event, and how many failovers there had
// been, because a later one may undo it.
type discarding struct {
	at        time.Time
	failovers int
}

// beginning is the first event that an endpoint must get since a time, and the
// first that it may get.
type beginning struct {
	at         time.Time
	from, most int
}

func (s *simulation) begins(who string, from, most int) {
	s.owed[who] = append(s.owed[who], beginning{time.Now(), from, most})
}

// owedAt returns where an endpoint had started at a time.
func (s *simulation) owedAt(who string, at time.Time) (last beginning) {
	for _, b := range s.owed[who] {
		if !b.at.After(at) {
			last = b
		}
	}
	return last
}

func (s *simulation) owedNow() map[string]beginning {
	now := make(map[string]beginning)
	for who := range moods {
		now[who] = s.owedAt(who, time.Now())
	}
	return now
}

// divided records that endpoints may have been divided into different partitions, or renamed:
// what each process has just delivered is not known to the others.
func (s *simulation) divided(before map[string]int) {
	if !maps.Equal(before, s.partitions()) {
		for _, p := range s.processes {
			s.suffer(p, 0)
		}
	}
}

// partitions returns how many partitions each endpoint has now, by name.
func (s *simulation) partitions() map[string]int {
	of := make(map[string]int)
	cursors, _ := s.Cursors(s.Context())
	for _, c := range cursors {
		of[c.Endpoint] = c.Of
	}
	return of
}

// endpoints returns the current settings, with the senders of a process.
func (s *simulation) endpoints(process string) (all []relay.Endpoint) {
	for who, e := range s.settings {
		e.Sender = s.sender(who, e.Name, process)
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b relay.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (s *simulation) sender(who, name, process string) relay.Sender {
	return relay.SenderFunc(func(ctx context.Context, a tidings.Attempt) tidings.Outcome {
		s.mu.Lock()
		r := &request{
			endpoint: who, process: process, event: a.Event, number: a.Number,
			replay: a.Replay, began: time.Now(),
		}
		if r.replay {
			rows, _ := s.Parked(ctx,
				eventlog.ParkedFilter{Endpoint: name, Sequence: a.Event.Sequence, Dead: true, Limit: 1})
			r.dead = len(rows) > 0
		}
		s.requests = append(s.requests, r)
		s.inFlight[process]++
		s.atOnce = max(s.atOnce, s.inFlight[process])
		answer := moods[who]
		if s.healed {
			answer = moods["well"]
		}
		outcome, took := answer(a.Event, time.Since(s.began), s.answers)
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
		s.inFlight[process]--
		r.ended, r.verdict = time.Now(), outcome.Verdict
		outcome.Duration = time.Since(r.began)
		return outcome
	})
}

// heal ends all trouble and waits until everything has had time to finish.
func (s *simulation) heal() {
	s.mu.Lock()
	s.healed = true
	s.mu.Unlock()
	maps.Copy(s.settings, s.removed)
	clear(s.removed)
	s.Jump(-s.jumped)
	for _, p := range s.processes {
		s.revive(p)
	}
	_ = s.SaveControl(s.Context(), eventlog.Control{Endpoint: s.settings["well"].Name, Since: time.Now()})
	s.nudge()
	time.Sleep(time.Hour)
}

// name returns the name of a process.
func (s *simulation) name(p *process) string {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	return fmt.Sprint("process", slices.Index(s.views, p.view)+1)
}

// at formats a time of the run.
func (s *simulation) at(t time.Time) time.Duration { return t.Sub(s.began) }

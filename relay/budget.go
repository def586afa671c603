package relay

import (
	"slices"
	"sync"
	"time"
)

const (
	// DefaultMaxInFlight is how many attempts may be in flight to all endpoints together.
	DefaultMaxInFlight = 512

	// An endpoint whose last attempt took longer than quickTime, or that has made none,
	// may be hanging. Together, such endpoints leave one attempt in quickPart to the others.
	quickTime = time.Second
	quickPart = 4

	// turnTime is how long an endpoint may keep sending while others wait: each turn may need a
	// new connection.
	turnTime = 500 * time.Millisecond
)

// budget bounds the attempts in flight of the process, and thereby its goroutines and
// connections. Endpoints that have something to send may use equal parts of it, and one
// part is left for the next such endpoint. An endpoint that finds the budget or its part used up
// waits in line.
type budget struct {
	limit int

	mu       sync.Mutex
	accounts map[string]*account // by endpoint
	busy     int                 // number of accounts that send or want to
	used     int                 // attempts in flight, and turns granted
	slow     int                 // those of endpoints that may be hanging
	line     []*seat             // waiting seats, longest first
}

// account is an endpoint's share of the budget.
type account struct {
	seats, wanting, used int
	quick                bool
}

func (a *account) busy() bool { return a.used > 0 || a.wanting > 0 }

// seat is a consumer's access to its endpoint's account. Its methods except finished
// belong to the consumer's goroutine.
type seat struct {
	*budget
	endpoint string
	account  *account
	turn     chan struct{} // signaled when a turn was granted
	since    time.Time     // when the last turn began
	wants    bool
	waits    bool // in line
	granted  bool
}

func newBudget(limit int) *budget {
	return &budget{limit: limit, accounts: make(map[string]*account)}
}

// open returns a seat, which counts as wanting to send until it says otherwise:
// endpoints that start together share from the start.
func (b *budget) open(endpoint string) *seat {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[endpoint]
	if a == nil {
		a = new(account)
		b.accounts[endpoint] = a
	}
	a.seats++
	b.change(a, 1, 0)
	return &seat{budget: b, endpoint: endpoint, account: a, turn: make(chan struct{}, 1), wants: true}
}

// close ends the use of a seat. Its attempts must have finished.
func (s *seat) close() {
	s.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account.seats--; s.account.seats == 0 {
		delete(s.accounts, s.endpoint)
	}
	s.grant()
}

// take reserves an attempt. If none is available, the seat waits in line until it
// leaves.
func (s *seat) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wants {
		s.wants = true
		s.change(s.account, 1, 0)
	}
	switch {
	case s.granted:
		s.granted = false
		return true
	case s.waits:
		return false
	case s.fits(s.account):
		s.since = time.Now()
		s.change(s.account, 0, 1)
		return true
	}
	s.waits = true
	s.line = append(s.line, s)
	return false
}

// putBack reverts [seat.take].
func (s *seat) putBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granted = true
}

// leave notes that there is nothing to send now.
func (s *seat) leave() {
	if !s.wants {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quitLine()
	if s.granted {
		s.change(s.account, 0, -1)
	}
	s.wants, s.granted = false, false
	s.change(s.account, -1, 0)
	s.grant()
}

// finished ends an attempt that took the given time.
func (s *seat) finished(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account
	s.change(a, 0, -1)
	if quick := took <= quickTime; quick != a.quick {
		a.quick = quick
		if quick {
			s.slow -= a.used
		} else {
			s.slow += a.used
		}
	}
	if s.waits && a.quick && time.Since(s.since) < turnTime && s.fits(a) {
		s.quitLine()
		s.granted = true
		s.change(a, 0, 1)
	}
	s.grant()
}

func (s *seat) quitLine() {
	if s.waits {
		s.waits = false
		s.line = slices.DeleteFunc(s.line, func(other *seat) bool { return other == s })
	}
}

// change adds to what an account wants and uses.
func (b *budget) change(a *account, wanting, used int) {
	before := a.busy()
	a.wanting += wanting
	a.used += used
	b.used += used
	if !a.quick {
		b.slow += used
	}
	switch after := a.busy(); {
	case after && !before:
		b.busy++
	case before && !after:
		b.busy--
	}
}

// fits reports whether an account may use one more attempt.
func (b *budget) fits(a *account) bool {
	part, slow := b.limit, b.limit
	if others := len(b.accounts) > 1; others {
		part = max(b.limit/min(b.busy+1, len(b.accounts)), 1)
		slow -= b.limit / quickPart
	}
	return b.used < b.limit && a.used < part && (a.quick || b.slow < slow)
}

// grant gives turns to the seats in line.
func (b *budget) grant() {
	now := time.Now()
	for i := 0; i < len(b.line) && b.used < b.limit; {
		s := b.line[i]
		if !b.fits(s.account) {
			i++
			continue
		}
		b.line = slices.Delete(b.line, i, i+1)
		s.waits, s.granted, s.since = false, true, now
		b.change(s.account, 0, 1)
		notify(s.turn)
	}
}

// Load is how much of [Options.MaxInFlight] is in use.
type Load struct {
	// InFlight is the number of attempts in flight, and Limit how many there may be.
	InFlight, Limit int
	// Waiting is the number of endpoints, or partitions, that wait for others'
	// attempts to finish.
	Waiting int
}

// Load returns how much of [Options.MaxInFlight] is in use.
func (r *Relay) Load() Load {
	b := r.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	return Load{InFlight: b.used, Limit: b.limit, Waiting: len(b.line)}
}

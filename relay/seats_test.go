package relay

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// budgetModel is a budget and what its seats have in flight.
type budgetModel struct {
	*budget
	seats  []*seat
	flying map[*seat]int
}

func (m *budgetModel) take(s *seat) {
	if s.take() {
		m.flying[s]++
	}
}

func (m *budgetModel) finish(s *seat, took time.Duration) {
	if m.flying[s] > 0 {
		m.flying[s]--
		s.finished(took)
	}
}

func (m *budgetModel) check() error {
	used, slow, busy, flying := 0, 0, 0, 0
	for _, a := range m.accounts {
		used += a.used
		if !a.quick {
			slow += a.used
		}
		if a.busy() {
			busy++
		}
	}
	for _, s := range m.seats {
		flying += m.flying[s]
		if s.granted {
			flying++
		}
	}
	switch {
	case used != m.used || slow != m.slow || busy != m.busy || used != flying:
		return fmt.Errorf("used %d, slow %d, busy %d; want %d, %d, %d; in flight %d",
			m.used, m.slow, m.busy, used, slow, busy, flying)
	case used > m.limit:
		return fmt.Errorf("%d are used of %d", used, m.limit)
	}
	for _, s := range m.line {
		if m.fits(s.account) {
			return fmt.Errorf("a seat of %s waits in vain", s.endpoint)
		}
	}
	return nil
}

// Whatever consumers do, the budget adds up, no seat waits in vain, and each seat gets
// its turn once those before it are done.
func TestBudgetAddsUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &budgetModel{budget: newBudget(rapid.IntRange(1, 9).Draw(rt, "limit")), flying: make(map[*seat]int)}
		check := func() {
			if err := m.check(); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			what := rapid.IntRange(0, 9).Draw(rt, "what")
			if what == 0 || len(m.seats) == 0 {
				m.seats = append(m.seats, m.open(fmt.Sprint(rapid.IntRange(0, 5).Draw(rt, "endpoint"))))
				continue
			}
			at := rapid.IntRange(0, len(m.seats)-1).Draw(rt, "seat")
			switch s := m.seats[at]; {
			case what < 5:
				m.take(s)
			case what == 5:
				s.leave()
			case what == 6 && m.flying[s] == 0:
				s.close()
				m.seats = append(m.seats[:at], m.seats[at+1:]...)
			case what == 7 && m.flying[s] > 0 && !s.granted && !s.waits && s.wants:
				m.flying[s]--
				s.putBack()
			case what == 8:
				m.finish(s, time.Millisecond)
			default:
				m.finish(s, time.Minute)
			}
			check()
		}
		for round := 0; len(m.line) > 0; round++ {
			if round > 3*len(m.seats) {
				rt.Fatalf("%d seats wait forever", len(m.line))
			}
			for _, s := range m.seats {
				for m.flying[s] > 0 {
					m.finish(s, time.Minute)
				}
				if s.granted {
					m.take(s)
				}
				check()
			}
		}
		for _, s := range m.seats {
			for m.flying[s] > 0 {
				m.finish(s, time.Minute)
			}
			s.close()
		}
		if m.used != 0 || m.busy != 0 || m.slow != 0 || len(m.accounts) != 0 {
			rt.Fatalf("at the end: %+v", m.budget)
		}
	})
}

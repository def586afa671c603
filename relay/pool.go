package relay

import (
	"sync"

	"github.com/tidings-dev/tidings"
)

// pool is the goroutines that make attempts, as many as were ever needed at once. Its
// fields but the channels belong to the consumer's goroutine.
type pool struct {
	work     chan job
	results  chan result
	workers  *sync.WaitGroup
	started  int
	inFlight int
	outdated int // of those in flight, sent before the last outage
}

type job struct {
	item *item
	do   func(*item) tidings.Outcome
}

// result is what came of an item.
type result struct {
	item    *item
	outcome tidings.Outcome
	fault   fault
	passed  bool // a replay's event that must not be sent out of turn
}

func newPool(limit int) pool {
	// Requests sent before an outage do not count against the probes.
	return pool{work: make(chan job, 2*limit), results: make(chan result, 2*limit), workers: new(sync.WaitGroup)}
}

func (p *pool) launch(it *item, do func(*item) tidings.Outcome) {
	if p.started == p.inFlight {
		p.started++
		p.workers.Go(func() {
			for j := range p.work {
				p.results <- result{item: j.item, outcome: j.do(j.item)}
			}
		})
	}
	p.inFlight++
	p.work <- job{it, do}
}

// finished notes that an attempt is over; late says that it was sent before the last
// outage.
func (p *pool) finished(late bool) {
	p.inFlight--
	if late {
		p.outdated--
	}
}

// outdate notes that an outage began.
func (p *pool) outdate() { p.outdated = p.inFlight }

// counted is how many attempts are under way, but for those that are outdated.
func (p *pool) counted() int { return p.inFlight - p.outdated }

// full reports whether no more attempts fit, outdated ones included.
func (p *pool) full() bool { return p.inFlight == cap(p.results) }

// close ends the workers once they have nothing to do.
func (p *pool) close() {
	close(p.work)
	p.workers.Wait()
}

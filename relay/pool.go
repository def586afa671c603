package relay

import (
	"sync"

	"github.com/tidings-dev/tidings"
)

// pool holds the goroutines that make attempts. It grows to the largest number
// needed at once. Its fields except the channels belong to the consumer's
// goroutine.
type pool struct {
	work     chan job
	results  chan result
	workers  *sync.WaitGroup
	started  int
	inFlight int
	outdated int // in flight since before the last outage
}

type job struct {
	item *item
	do   func(*item) tidings.Outcome
}

// result is the result of sending an item.
type result struct {
	item    *item
	outcome tidings.Outcome
	fault   fault
	passed  bool // a replayed event that was skipped because it would be out of order
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

// finished notes that an attempt is over. late means that it was sent before the
// last outage.
func (p *pool) finished(late bool) {
	p.inFlight--
	if late {
		p.outdated--
	}
}

// outdate notes that an outage began.
func (p *pool) outdate() { p.outdated = p.inFlight }

// counted returns the number of attempts in flight, excluding outdated ones.
func (p *pool) counted() int { return p.inFlight - p.outdated }

// full reports whether no more attempts fit, outdated ones included.
func (p *pool) full() bool { return p.inFlight == cap(p.results) }

// close stops the workers once they are idle.
func (p *pool) close() {
	close(p.work)
	p.workers.Wait()
}

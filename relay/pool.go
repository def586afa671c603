package relay

import (
	"sync"
	"sync/atomic"

	"github.com/tidings-dev/tidings"
)

// pool counts a consumer's attempts in flight and collects their results. Its fields
// except the channel belong to the consumer's goroutine.
type pool struct {
	results  chan *result // pointers, since most of its room is never used
	inFlight int
	outdated int // in flight since before the last outage
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
	return pool{results: make(chan *result, 2*limit)}
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

// workers are the goroutines that make the attempts of all consumers, one each. A few
// idle ones are kept for the next attempts.
type workers struct {
	work    chan func()
	idle    atomic.Int32
	started sync.WaitGroup
}

const keptIdle = 32

func newWorkers() *workers { return &workers{work: make(chan func())} }

func (w *workers) do(attempt func()) {
	select {
	case w.work <- attempt:
		return
	default:
	}
	w.started.Go(func() {
		for more := true; more; attempt, more = w.next() {
			attempt()
		}
	})
}

// next waits for another attempt, unless enough others do.
func (w *workers) next() (attempt func(), more bool) {
	if w.idle.Add(1) <= keptIdle {
		attempt, more = <-w.work
	}
	w.idle.Add(-1)
	return attempt, more
}

// close ends the workers once their attempts are over.
func (w *workers) close() {
	close(w.work)
	w.started.Wait()
}

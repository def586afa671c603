package relay

import (
	"context"
	"slices"
	"sync"

	"github.com/tidings-dev/tidings/eventlog"
)

// parker writes the parked and unparked events of all consumers in a process.
// Requests that arrive during a transaction share the next one, so that many
// failing endpoints use a single connection.
type parker struct {
	log     eventlog.Retries
	mu      sync.Mutex
	waiting []*parking
	writing bool
	writer  sync.WaitGroup
}

// parking is one consumer's request.
type parking struct {
	eventlog.Parking
	done chan error
}

// parkRows bounds the rows of one transaction, so that other writers need not wait
// long.
const parkRows = 512

// write waits until its rows are written or refused. If ctx ends first, the result
// is unknown. writes is the context of the transaction, which may be shared.
func (p *parker) write(ctx, writes context.Context, what eventlog.Parking) error {
	one := &parking{what, make(chan error, 1)}
	p.mu.Lock()
	p.waiting = append(p.waiting, one)
	if !p.writing {
		p.writing = true
		p.writer.Go(func() { p.run(writes) })
	}
	p.mu.Unlock()
	select {
	case err := <-one.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes until no requests are waiting.
func (p *parker) run(ctx context.Context) {
	for {
		batch := p.next()
		if len(batch) == 0 {
			return
		}
		var all []eventlog.Parking
		for _, one := range batch {
			all = append(all, one.Parking)
		}
		refused, err := p.log.Park(ctx, all...)
		for _, one := range batch {
			if err == nil {
				one.done <- refused[one.Lease]
			} else {
				one.done <- err
			}
		}
	}
}

// next removes and returns the requests that fit into one transaction, at least
// one.
func (p *parker) next() []*parking {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, rows := 0, 0
	for n < len(p.waiting) && (n == 0 || rows+p.waiting[n].Rows() <= parkRows) {
		rows += p.waiting[n].Rows()
		n++
	}
	batch := p.waiting[:n:n]
	p.waiting = slices.Clone(p.waiting[n:])
	p.writing = n > 0
	return batch
}

// park writes a consumer's parked and unparked events.
func (r *Relay) park(ctx context.Context, what eventlog.Parking) error {
	return r.parker.write(ctx, r.writes, what)
}

package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// HistoryMode selects which attempts are recorded.
type HistoryMode string

// The modes.
const (
	HistoryAll      HistoryMode = "all"
	HistoryFailures HistoryMode = "failures"
	HistoryOff      HistoryMode = "off"
)

const (
	historyInterval = 250 * time.Millisecond
	// historyLimit bounds the records waiting to be written. Records beyond it are
	// counted and dropped, so that deliveries never wait.
	historyLimit = 16 << 20
)

// history buffers records of attempts, which workers add without waiting, and
// writes them in blocks. A crash loses what is in memory.
type history struct {
	log    eventlog.Recorder
	logger *slog.Logger

	mu      sync.Mutex
	open    map[string]*eventlog.HistoryBlock // by endpoint
	full    []*eventlog.HistoryBlock
	size    int
	dropped atomic.Int64
	flush   chan struct{}
}

func newHistory(log eventlog.Recorder, logger *slog.Logger) *history {
	return &history{
		log: log, logger: logger, open: make(map[string]*eventlog.HistoryBlock),
		flush: make(chan struct{}, 1),
	}
}

func (h *history) attempted(e *Endpoint, a tidings.Attempt, o tidings.Outcome) {
	if e.History == HistoryOff || o.Verdict == tidings.Interrupted ||
		(e.History == HistoryFailures && o.Verdict == tidings.Delivered) {
		return
	}
	r := eventlog.Record{
		Endpoint: e.Name, At: time.Now(), Sequence: a.Event.Sequence, EventID: a.Event.ID, Event: a.Event.Name(),
		Resource: a.Event.Resource(),
		Outcome:  o.Verdict.String(), Attempt: a.Number, Replay: a.Replay, Probe: a.Probe, Reason: o.Reason,
		Detail: o.Detail, Status: o.Status, Address: o.Address,
		Resent: o.Resent, DNS: o.Timing.DNS.Microseconds(),
		Connect: o.Timing.Connect.Microseconds(), TLS: o.Timing.TLS.Microseconds(),
		FirstByte: o.Timing.FirstByte.Microseconds(), Total: o.Duration.Microseconds(),
	}
	if o.Verdict != tidings.Delivered {
		r.Response = string(o.Response)
	}
	h.add(r)
}

func (h *history) merged(e *Endpoint, gone, into tidings.Event) {
	if e.History == HistoryOff || e.History == HistoryFailures {
		return
	}
	h.add(eventlog.Record{
		Endpoint: e.Name, At: time.Now(), Sequence: gone.Sequence, EventID: gone.ID, Event: gone.Name(),
		Resource: gone.Resource(),
		Outcome:  eventlog.Merged, MergedInto: into.Sequence,
	})
}

func (h *history) add(r eventlog.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.size >= historyLimit {
		h.dropped.Add(1)
		return
	}
	b := h.open[r.Endpoint]
	if b == nil {
		b = &eventlog.HistoryBlock{Endpoint: r.Endpoint}
		h.open[r.Endpoint] = b
	}
	before := b.Size()
	b.Add(r)
	h.size += b.Size() - before
	if b.Full() {
		h.full = append(h.full, b)
		delete(h.open, r.Endpoint)
		notify(h.flush)
	}
}

// run writes until the context ends, and then once more before writes ends.
func (h *history) run(ctx, writes context.Context) {
	tick := time.NewTicker(historyInterval)
	defer tick.Stop()
	failing := false
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-h.flush:
		case <-ctx.Done():
			final, cancel := context.WithTimeout(writes, finalTime)
			if err := h.write(final); err != nil {
				h.logger.Error("the last records of the history could not be written", "error", err)
			}
			cancel()
			return
		}
		err := h.write(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			h.logger.Error("history cannot be written, trying again", "error", err)
		}
		if failing = err != nil; failing {
			wait(ctx, time.Second)
		}
	}
}

// write writes all buffered records and keeps them if that fails.
func (h *history) write(ctx context.Context) error {
	h.mu.Lock()
	for endpoint, b := range h.open {
		h.full = append(h.full, b)
		delete(h.open, endpoint)
	}
	blocks := h.full
	h.full = nil
	h.mu.Unlock()
	if len(blocks) == 0 {
		return nil
	}
	err := h.log.AppendHistory(ctx, blocks)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.full = append(blocks, h.full...)
		return err
	}
	for _, b := range blocks {
		h.size -= b.Size()
	}
	return nil
}

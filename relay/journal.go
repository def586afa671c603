package relay

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const (
	// journalLimit bounds the changes and the samples waiting to be written. Further
	// ones are dropped.
	journalLimit = 10_000
	// Samples are written at this interval, within limits.
	sampleTime                   = 100 * time.Millisecond
	leastSampleTime, sampleLimit = 2 * time.Second, 10 * time.Second
	// Frequent changes of state are not all recorded.
	changeTime, changeBurst = 30 * time.Second, 20
)

// journal collects how endpoints are doing until it is written: their changes of
// state, and a sample for each endpoint and minute.
type journal struct {
	mu      sync.Mutex
	changes []eventlog.StateChange
	samples map[sampleKey]*eventlog.Sample
	// waiting is each partition's contribution to a minute's sample.
	waiting map[eventlog.Partition]contribution
	written time.Time // samples
	failing bool
}

type sampleKey struct {
	endpoint string
	minute   int64
}

type contribution struct{ minute, waiting int64 }

func newJournal() *journal {
	return &journal{
		samples: make(map[sampleKey]*eventlog.Sample), waiting: make(map[eventlog.Partition]contribution),
	}
}

func (j *journal) changed(c eventlog.StateChange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.changes) < journalLimit {
		j.changes = append(j.changes, c)
	}
}

// sample returns the sample of an endpoint now. j.mu must be held.
func (j *journal) sample(endpoint string, now time.Time) *eventlog.Sample {
	key := sampleKey{endpoint, now.Unix() / 60}
	s := j.samples[key]
	if s == nil {
		s = &eventlog.Sample{Endpoint: endpoint, At: time.Unix(key.minute*60, 0).UTC()}
		if len(j.samples) < journalLimit {
			j.samples[key] = s
		}
	}
	return s
}

// attempted adds an attempt to the sample of its minute.
func (j *journal) attempted(endpoint string, it *item, o tidings.Outcome, now time.Time) {
	if o.Verdict == tidings.Interrupted {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.sample(endpoint, now)
	s.Answer.Observe(o.Duration)
	if o.Verdict != tidings.Delivered {
		s.Failed++
		return
	}
	s.Delivered++
	if it.replay == nil {
		s.Delay.Observe(now.Sub(it.event.Time))
	}
}

// measure adds a partition's waiting events to the samples.
func (j *journal) measure(p eventlog.Partition, waiting int64, oldest time.Duration, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	minute := now.Unix() / 60
	last := j.waiting[p]
	if last.minute != minute {
		last.waiting = 0
	}
	if waiting == last.waiting {
		return
	}
	s := j.sample(p.Endpoint, now)
	s.Waiting += waiting - last.waiting
	s.Oldest = max(s.Oldest, oldest)
	j.waiting[p] = contribution{minute, waiting}
}

// take removes and returns what is to be written now.
func (j *journal) take(now time.Time, final bool) ([]eventlog.StateChange, []eventlog.Sample) {
	j.mu.Lock()
	defer j.mu.Unlock()
	changes := j.changes
	j.changes = nil
	pause := min(max(time.Duration(len(j.samples))*sampleTime, leastSampleTime), sampleLimit)
	if len(j.samples) == 0 || !final && now.Sub(j.written) < pause {
		return changes, nil
	}
	j.written = now
	var samples []eventlog.Sample
	for _, s := range j.samples {
		samples = append(samples, *s)
	}
	clear(j.samples)
	maps.DeleteFunc(j.waiting, func(_ eventlog.Partition, c contribution) bool { return c.minute < now.Unix()/60 })
	return changes, samples
}

// giveBack keeps what could not be written.
func (j *journal) giveBack(changes []eventlog.StateChange, samples []eventlog.Sample) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes = slices.Concat(changes, j.changes)
	j.changes = j.changes[:min(len(j.changes), journalLimit)]
	for _, s := range samples {
		j.sample(s.Endpoint, s.At).Add(s)
	}
}

// together returns the samples, and their sum for each minute.
func together(samples []eventlog.Sample) []eventlog.Sample {
	sums := make(map[int64]*eventlog.Sample)
	for _, s := range samples {
		sum := sums[s.At.Unix()]
		if sum == nil {
			sum = &eventlog.Sample{At: s.At}
			sums[s.At.Unix()] = sum
		}
		sum.Add(s)
	}
	for _, sum := range sums {
		samples = append(samples, *sum)
	}
	return samples
}

// writeJournal writes what was collected, and keeps what could not be written.
func (r *Relay) writeJournal(ctx context.Context, final bool) {
	now := time.Now()
	for _, c := range r.consumers() {
		if !c.lost() {
			r.journal.measure(c.lease().Partition, c.backlog.waiting(r.tail.position()), c.backlog.age(now), now)
		}
	}
	changes, samples := r.journal.take(now, final)
	err := error(nil)
	if len(changes) > 0 {
		if err = r.log.AddStates(ctx, changes); err == nil {
			changes = nil
		}
	}
	if len(samples) > 0 && err == nil {
		if err = r.log.AddSamples(ctx, together(samples)); err == nil {
			samples = nil
		}
	}
	r.journal.giveBack(changes, samples)
	if err != nil && !r.journal.failing && ctx.Err() == nil {
		r.logger.Error("the history of endpoint states cannot be written, trying again", "error", err)
	}
	r.journal.failing = err != nil
}

// backlog is the number of events waiting at a partition. It may be read at any time.
type backlog struct {
	held   atomic.Int64 // events in memory
	read   atomic.Int64 // position up to which the log has been read
	oldest atomic.Int64 // time of the oldest event in memory, in microseconds
	share  atomic.Uint64
}

// set notes the backlog of a consumer.
func (b *backlog) set(o *order) {
	b.held.Store(int64(o.Len()))
	b.read.Store(o.window.read)
	oldest := int64(0)
	if len(o.window.items) > 0 {
		oldest = o.window.items[0].event.Time.UnixMicro()
	}
	b.oldest.Store(oldest)
}

// shareEvents is the number of events over which the share of wanted ones is taken.
const shareEvents = 1000

// saw records how many of the events read from the log were wanted.
func (b *backlog) saw(events, wanted int) {
	weight := min(float64(events)/shareEvents, 1)
	b.setShare(b.getShare() + (float64(wanted)/float64(events)-b.getShare())*weight)
}

func (b *backlog) setShare(share float64) { b.share.Store(math.Float64bits(share)) }

func (b *backlog) getShare() float64 { return math.Float64frombits(b.share.Load()) }

// rounded returns the share, rounded so that it seldom changes.
func (b *backlog) rounded() float64 { return math.Ceil(b.getShare()*100) / 100 }

// waiting returns the approximate number of waiting events: those in memory plus, of those
// not yet read, the share that was wanted lately.
func (b *backlog) waiting(head int64) int64 {
	unread := float64(max(head-b.read.Load(), 0))
	return b.held.Load() + int64(math.Ceil(unread*b.getShare()))
}

// exact reports whether waiting is exact rather than an estimate.
func (b *backlog) exact(head int64) bool { return head <= b.read.Load() }

func (b *backlog) age(now time.Time) time.Duration {
	oldest := b.oldest.Load()
	if oldest == 0 {
		return 0
	}
	return max(now.Sub(time.UnixMicro(oldest)), 0)
}

// noted is the last recorded state.
type noted struct {
	state   State
	reason  string
	at      time.Time
	limiter *rate.Limiter
}

func newNoted(last Status) noted {
	return noted{last.State, last.Reason, last.Since, rate.NewLimiter(rate.Every(changeTime), changeBurst)}
}

// note records a change of the endpoint's state.
func (c *consumer) note(now time.Time) {
	h, last := c.health, &c.noted
	outage := last.state == Down || last.state == Probing
	switch {
	case h.state == last.state && h.reason == last.reason:
		return
	case h.state == Probing && last.state == Down:
		return // a probe: there are many in an outage
	case h.state == Healthy && outage && h.successes == 0 && c.backlog.waiting(c.relay.tail.position()) > 0:
		return // this process has only just started
	case h.state != Disabled && last.state != Disabled && !last.limiter.AllowN(now, 1):
		return
	}
	change := eventlog.StateChange{
		Endpoint: c.endpoint.Name, Index: c.lease().Index, At: now, State: string(h.state), Reason: h.reason,
	}
	if outage && h.state == Down {
		change.At = last.at // it replaces the beginning of the outage
	}
	if h.state == Down || h.state == Probing {
		change.Detail = h.detail
	}
	operated := h.state == Disabled || last.state == Disabled && c.control.Disabled == ""
	if operated && (c.control.Disabled == "" || h.reason == c.control.Disabled) {
		change.By, change.Comment = c.control.By, c.control.Comment
	}
	last.state, last.reason, last.at = h.state, h.reason, change.At
	c.relay.journal.changed(change)
	notify(c.relay.moved)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/relay"
)

// running is a running relay.
type running struct {
	stop  context.CancelFunc
	ended chan error
}

func start(ctx context.Context, r *relay.Relay) running {
	ctx, stop := context.WithCancel(ctx)
	it := running{stop, make(chan error, 1)}
	go func() { it.ended <- r.Run(ctx) }()
	return it
}

func (r running) end() error {
	r.stop()
	return <-r.ended
}

func newRelay(ctx context.Context, log bench.Log, endpoints ...relay.Endpoint) (*relay.Relay, error) {
	return relay.New(ctx, log, endpoints,
		relay.Options{Logger: slog.New(slog.DiscardHandler), DrainTimeout: time.Second})
}

// drainer measures drains of backlogs to a receiver in a process of its own.
type drainer struct {
	database
	h        *bench.Home
	receiver *receiverProcess
}

func (d database) drainer(ctx context.Context) (*drainer, error) {
	h, err := d.home()
	if err != nil {
		return nil, err
	}
	receiver, err := startReceiver(ctx)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return &drainer{d, h, receiver}, nil
}

func (d *drainer) close() error {
	d.receiver.stop()
	return d.h.Close()
}

// drain measures events until as many webhooks have arrived, and adds them to usage.
func (d *drainer) drain(ctx context.Context, u *usage, events, webhooks int, endpoints ...relay.Endpoint) error {
	run, end, err := prepareDrain(ctx, d.h, d.receiver, events, webhooks, endpoints...)
	if err != nil {
		return err
	}
	return errors.Join(u.measure(d.database, run, os.Getpid(), d.receiver.cmd.Process.Pid, webhooks), end())
}

// fanout measures deliveries to 1, 10 and 1,000 healthy endpoints, compared with a
// net/http client that makes as many requests with new bodies.
func fanout(ctx context.Context, on database, deliveries int) (err error) {
	d, err := on.drainer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	for _, n := range []int{1, 10, 1000} {
		var bare, ours usage
		events := deliveries / n
		for round := range drainRounds {
			post := func() error {
				return errors.Join(postFresh(ctx, d.receiver.url, deliveries), d.receiver.wait(ctx, deliveries))
			}
			if err := bare.measure(on, post, os.Getpid(), d.receiver.cmd.Process.Pid, deliveries); err != nil {
				return err
			}
			endpoints := make([]relay.Endpoint, n)
			for i := range endpoints {
				name := fmt.Sprintf("fanout-%d-%d-%d", n, round, i)
				if endpoints[i], err = endpoint(name, d.receiver.url); err != nil {
					return err
				}
			}
			if err := d.drain(ctx, &ours, events, events*n, endpoints...); err != nil {
				return err
			}
		}
		units := []string{"deliveries/s", "sender-µs/delivery", "receiver-µs/delivery", "database-µs/delivery"}
		d.results.add(on, fmt.Sprintf("Fanout/%d endpoints", n), units, ours.rate, ours.sender, ours.receiver, ours.database)
		d.report("%d endpoints: %s; relative to a client with new bodies: rate %.2f, CPU of the sender %.2f",
			n, &ours, median(ours.rate)/median(bare.rate), median(ours.sender)/median(bare.sender))
	}
	return nil
}

// silentServer accepts connections and never responds.
func silentServer() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	return "http://" + l.Addr().String(), func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}, nil
}

const neighborTime = 8 * time.Second

// neighbor measures a healthy endpoint alone and next to one that never responds.
func neighbor(ctx context.Context, on database, events int) (err error) {
	d, err := on.drainer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	silent, stop, err := silentServer()
	if err != nil {
		return err
	}
	defer stop()
	var drained [2]usage // alone, and beside it
	var delays [2][]float64
	for round := range drainRounds {
		for i, beside := range []bool{false, true} {
			name := fmt.Sprint("neighbor", round, beside)
			endpoints, err := besideSilent(name, d.receiver.url, silent, beside)
			if err != nil {
				return err
			}
			if err := d.drain(ctx, &drained[i], events, events, endpoints...); err != nil {
				return err
			}
			p99, err := steadyDelay(ctx, d.h.Log, d.h.DB, name, silent, beside)
			if err != nil {
				return err
			}
			delays[i] = append(delays[i], p99)
		}
	}
	d.report("next to an endpoint that never responds: throughput %.2f of alone (%.0f/s), p99 %.2f times (%.2f ms alone)",
		median(drained[1].rate)/median(drained[0].rate), median(drained[0].rate),
		median(delays[1])/median(delays[0]), median(delays[0]))
	return nil
}

func besideSilent(name, url, silent string, beside bool) ([]relay.Endpoint, error) {
	e, err := endpoint(name, url)
	endpoints := []relay.Endpoint{e}
	if beside && err == nil {
		var other relay.Endpoint
		other, err = endpoint(name+"-silent", silent)
		endpoints = append(endpoints, other)
	}
	return endpoints, err
}

// steadyDelay measures the time from an event to its arrival at a steady rate and
// returns the 99th percentile in milliseconds.
func steadyDelay(ctx context.Context, log bench.Log, db appender, name, silent string, beside bool) (float64, error) {
	var mu sync.Mutex
	var delays []float64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		var e tidings.Event
		body := make([]byte, 2048)
		n, _ := r.Body.Read(body)
		if e.UnmarshalJSON(body[:n]) == nil {
			mu.Lock()
			delays = append(delays, now.Sub(e.Time).Seconds()*1000)
			mu.Unlock()
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	endpoints, err := besideSilent(name+"-steady", receiver.URL, silent, beside)
	if err != nil {
		return 0, err
	}
	r, err := newRelay(ctx, log, endpoints...)
	if err != nil {
		return 0, err
	}
	it := start(ctx, r)
	tick := time.NewTicker(time.Second / writeRate)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < neighborTime && err == nil; <-tick.C {
		err = appendBatch(ctx, log, db, []tidings.Event{bench.SampleEvent()})
	}
	<-time.After(200 * time.Millisecond)
	if err := errors.Join(err, it.end()); err != nil {
		return 0, err
	}
	mu.Lock()
	defer mu.Unlock()
	if len(delays) == 0 {
		return 0, errors.New("nothing arrived")
	}
	slices.Sort(delays)
	return delays[len(delays)*99/100], nil
}

// outage measures an endpoint that recovers after an outage, and another that
// coalesces: the requests during the outage and after it.
func outage(ctx context.Context, d database, events int, long time.Duration) (err error) {
	const resources = 1000
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	db, log := h.DB, h.Log
	var up atomic.Bool
	type arrivals struct {
		during, after atomic.Int64
		mu            sync.Mutex
		first, last   time.Time
		seconds       []int64 // deliveries in each second since the first
	}
	watch := func(a *arrivals) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !up.Load() {
				a.during.Add(1)
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			swallow(w, r)
			a.after.Add(1)
			now := time.Now()
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.first.IsZero() {
				a.first = now
			}
			a.last = now
			for int(now.Sub(a.first)/time.Second) >= len(a.seconds) {
				a.seconds = append(a.seconds, 0)
			}
			a.seconds[int(now.Sub(a.first)/time.Second)]++
		}))
	}
	var plain, coalescing arrivals
	plainReceiver, coalescingReceiver := watch(&plain), watch(&coalescing)
	defer plainReceiver.Close()
	defer coalescingReceiver.Close()
	one, err := endpoint("plain", plainReceiver.URL)
	if err != nil {
		return err
	}
	other, err := endpoint("coalescing", coalescingReceiver.URL)
	if err != nil {
		return err
	}
	other.Coalesce = tidings.CoalesceLatest
	r, err := newRelay(ctx, log, one, other)
	if err != nil {
		return err
	}
	it := start(ctx, r)
	down := time.Now()
	batch := make([]tidings.Event, 0, fillBatch)
	for i := range events {
		e := bench.SampleEvent()
		e.ResourceID, e.Action, e.ResourceVersion = fmt.Sprint("resource", i%resources),
			tidings.Updated, int64(i/resources)
		if batch = append(batch, e); len(batch) == fillBatch || i == events-1 {
			if err := appendBatch(ctx, log, db, batch); err != nil {
				return errors.Join(err, it.end())
			}
			batch = batch[:0]
		}
	}
	select {
	case <-time.After(long - time.Since(down)):
	case <-ctx.Done():
	}
	up.Store(true)
	returned := time.Now()
	for ctx.Err() == nil && (plain.after.Load() < int64(events) || !settledAt(ctx, log, "coalescing")) {
		<-time.After(20 * time.Millisecond)
	}
	if err := errors.Join(it.end(), ctx.Err()); err != nil {
		return err
	}
	plain.mu.Lock()
	defer plain.mu.Unlock()
	coalescing.mu.Lock()
	defer coalescing.mu.Unlock()
	most := slices.Max(plain.seconds)
	full := slices.IndexFunc(plain.seconds, func(n int64) bool { return n >= most*8/10 })
	d.report("outage of %v, %d events behind: %d requests meanwhile; recovery noticed after %.1f s, "+
		"then full speed in second %d, drained in %.1f s",
		long, events, plain.during.Load(), plain.first.Sub(returned).Seconds(), full+1,
		plain.last.Sub(plain.first).Seconds())
	d.report("the same with coalesce: latest and %d resources: %d requests meanwhile; "+
		"recovery noticed after %.1f s, then %d requests in %.2f s",
		resources, coalescing.during.Load(), coalescing.first.Sub(returned).Seconds(),
		coalescing.after.Load(), coalescing.last.Sub(coalescing.first).Seconds())
	return nil
}

// settledAt reports whether an endpoint's saved cursor is at the head.
func settledAt(ctx context.Context, log bench.Log, endpoint string) bool {
	head, err := log.Advance(ctx)
	if err != nil {
		return false
	}
	cursors, err := log.Cursors(ctx)
	if err != nil {
		return false
	}
	for _, c := range cursors {
		if c.Endpoint == endpoint {
			return c.Sequence == head
		}
	}
	return false
}

// history compares a drain with the history on and off.
func history(ctx context.Context, on database, events int) (err error) {
	d, err := on.drainer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	drained := map[relay.HistoryMode]*usage{relay.HistoryOff: {}, relay.HistoryAll: {}}
	for round := range 2*drainRounds - 1 {
		for mode, u := range drained {
			e, err := endpoint(fmt.Sprint("history-", mode, round), d.receiver.url)
			if err != nil {
				return err
			}
			e.History = mode
			if err := d.drain(ctx, u, events, events, e); err != nil {
				return err
			}
		}
	}
	with, without := drained[relay.HistoryAll], drained[relay.HistoryOff]
	d.report("history: %.2f of the throughput without (%.0f/s), and %.1f µs of the sender's CPU time more (%.1f without)",
		median(with.rate)/median(without.rate), median(without.rate),
		median(with.sender)-median(without.sender), median(without.sender))
	return nil
}

// growth measures the cost per event as their number grows.
func growth(ctx context.Context, on database) (err error) {
	d, err := on.drainer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	first := 0.0
	for _, events := range []int{10_000, 100_000, 1_000_000} {
		e, err := endpoint(fmt.Sprint("growth", events), d.receiver.url)
		if err != nil {
			return err
		}
		var u usage
		if err := d.drain(ctx, &u, events, events, e); err != nil {
			return err
		}
		cost := u.sender[0] + u.database[0]
		if first == 0 {
			first = cost
		}
		d.report("%d events: %s; CPU of the sender and the database %.2f times that of 10,000", events, &u, cost/first)
	}
	return nil
}

// Package bench measures how fast events reach endpoints, compared with a bare
// HTTP client that posts the same requests. The receiver is a separate process.
package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// Options configures a measurement.
type Options struct {
	Events, Endpoints, InFlight int
	Format                      tidings.Format
	// Delay is how long the receiver takes to respond, and Failures the share
	// of requests to which it responds with 500.
	Delay    time.Duration
	Failures float64
	// Rate (events per second) and Steady (duration) configure the second part.
	Rate        int
	Steady      time.Duration
	DatabaseURL string
	NoHistory   bool
	// Receiver is the URL of a receiver started with [Receive].
	Receiver string
	Logger   *slog.Logger
}

// The largest options with which one machine may measure something.
const (
	mostEvents    = 1_000_000_000
	mostEndpoints = 1000
	mostInFlight  = 1000
	mostRate      = 1_000_000
)

// Check returns an error if an option is out of range.
func (o *Options) Check() error {
	switch {
	case o.Events < 1, o.Endpoints < 1, o.InFlight < 1, o.Rate < 1:
		return errors.New("events, endpoints, in-flight and rate must be at least 1")
	case o.Events > mostEvents, o.Endpoints > mostEndpoints, o.InFlight > mostInFlight, o.Rate > mostRate:
		return fmt.Errorf("events, endpoints, in-flight and rate must be at most %d, %d, %d and %d",
			mostEvents, mostEndpoints, mostInFlight, mostRate)
	case !(o.Failures >= 0 && o.Failures < 1): // NaN is neither
		return errors.New("failures must be from 0 to less than 1")
	}
	return nil
}

// Result holds the results of a measurement.
type Result struct {
	DeliveredPerSecond float64 `json:"delivered_per_second"`
	BarePerSecond      float64 `json:"bare_client_per_second"`
	OfBareClient       float64 `json:"of_bare_client"`
	// CPU times are in microseconds.
	CPUPerDelivery    float64 `json:"cpu_us_per_delivery"`
	BareCPUPerRequest float64 `json:"bare_client_cpu_us_per_request"`
	Failed            int64   `json:"failed_attempts"`
	// Steady is the number of events in the steady part; P50 and P99 are
	// latencies from commit to arrival, in milliseconds.
	Steady     int     `json:"steady_events,omitempty"`
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	PeakMemory float64 `json:"peak_memory_mib"`
}

// Run performs a measurement.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "tidings-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	h, err := Open(o.DatabaseURL, folder)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if err := h.Migrate(ctx); err != nil {
		return nil, err
	}
	result := &Result{}
	deliveries := o.Events * o.Endpoints
	cpu := cpuTime()
	c := o.client()
	seconds, err := PostLoop(ctx, c, o.Receiver+"/bare", o.InFlight, deliveries)
	c.CloseIdleConnections()
	if err != nil {
		return nil, err
	}
	result.BarePerSecond = float64(deliveries) / seconds
	result.BareCPUPerRequest = (cpuTime() - cpu).Seconds() * 1e6 / float64(deliveries)
	if err := drain(ctx, o, h, result, deliveries); err != nil {
		return nil, err
	}
	result.OfBareClient = result.DeliveredPerSecond / result.BarePerSecond
	result.PeakMemory = peakMemory()
	return result, nil
}

func (o *Options) client() *http.Client {
	dialer := sender.NewDialer(sender.Egress{}, o.InFlight, 5*time.Second)
	return &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: o.InFlight,
		MaxConnsPerHost: o.InFlight,
	}}
}

// SampleEvent returns an event of a resource of its own.
func SampleEvent() tidings.Event {
	id := uuid.NewString()
	return tidings.Event{
		Type: "context", Action: tidings.Created, ResourceID: id, ResourceURL: "/api/v1/contexts/" + id,
		UserID: uuid.NewString(), Time: time.Now().UTC().Truncate(time.Microsecond), ResourceVersion: 1,
	}
}

// PostLoop posts webhook bodies with the given concurrency and does nothing
// else: a baseline for any sender.
func PostLoop(ctx context.Context, c *http.Client, url string, inFlight, requests int) (seconds float64, err error) {
	body := SampleEvent().AppendJSON(nil)
	var left atomic.Int64
	left.Store(int64(requests))
	var wg sync.WaitGroup
	errs := make(chan error, inFlight)
	begun := time.Now()
	for range inFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := post(ctx, c, url, body); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return time.Since(begun).Seconds(), <-errs
}

func post(ctx context.Context, c *http.Client, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// failures counts failed attempts.
type failures struct{ n atomic.Int64 }

func (f *failures) Attempted(_ string, _ tidings.Attempt, o tidings.Outcome) {
	if o.Verdict != tidings.Delivered {
		f.n.Add(1)
	}
}
func (*failures) Merged(string, tidings.Event, tidings.Event) {}
func (*failures) Filtered(string, tidings.Event)              {}
func (*failures) Missed(eventlog.Gap)                         {}

func drain(ctx context.Context, o Options, h *Home, result *Result, deliveries int) error {
	var endpoints []relay.Endpoint
	for i := range o.Endpoints {
		e := tidings.Endpoint{
			Name: fmt.Sprint("bench", i), URL: o.Receiver + "/webhook", Timeout: 15 * time.Second,
			MaxInFlight: o.InFlight, Format: o.Format,
		}
		dialer := sender.NewDialer(sender.Egress{}, o.InFlight, 5*time.Second)
		transport := sender.NewTransport(sender.TransportOptions{Dialer: dialer})
		s, err := sender.New(e, &http.Client{Transport: transport}, sender.Options{})
		if err != nil {
			return err
		}
		to := relay.Endpoint{
			Endpoint: e, Sender: s,
			Retry: relay.Schedule{Delays: []time.Duration{100 * time.Millisecond}, MaxAttempts: 100},
		}
		if o.NoHistory {
			to.History = relay.HistoryOff
		}
		endpoints = append(endpoints, to)
	}
	var failed failures
	r, err := relay.New(ctx, h.Log, endpoints, relay.Options{Logger: o.Logger, Observer: &failed})
	if err != nil {
		return err
	}
	for left := o.Events; left > 0; left -= fillBatch {
		if err := h.commit(ctx, min(left, fillBatch)); err != nil {
			return err
		}
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	cpu, begun := cpuTime(), time.Now()
	go func() { ended <- r.Run(running) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()
	if _, err := arrived(ctx, o, deliveries); err != nil {
		return err
	}
	result.DeliveredPerSecond = float64(deliveries) / time.Since(begun).Seconds()
	result.CPUPerDelivery = (cpuTime() - cpu).Seconds() * 1e6 / float64(deliveries)
	if o.Steady > 0 {
		if err := steady(ctx, o, h, result, deliveries); err != nil {
			return err
		}
	}
	result.Failed = failed.n.Load()
	return nil
}

const fillBatch = 500

func (h *Home) commit(ctx context.Context, events int) error {
	batch := make([]tidings.Event, events)
	for i := range batch {
		batch[i] = SampleEvent()
	}
	tx, err := h.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after a commit
	if err := h.Append(ctx, tx, batch...); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	h.Committed(batch...)
	return nil
}

// steady commits events one at a time, and has the receiver report the latency
// of each.
func steady(ctx context.Context, o Options, h *Home, result *Result, before int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.Receiver+"/reset", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < o.Steady; <-tick.C {
		if err := h.commit(ctx, 1); err != nil {
			return err
		}
		result.Steady++
	}
	stats, err := arrived(ctx, o, result.Steady*o.Endpoints)
	result.P50, result.P99 = stats.P50, stats.P99
	return err
}

// arrived waits until the given number of webhooks has arrived.
func arrived(ctx context.Context, o Options, deliveries int) (s stats, err error) {
	for {
		response, err := http.Get(o.Receiver + "/stats")
		if err != nil {
			return s, err
		}
		err = errors.Join(json.NewDecoder(response.Body).Decode(&s), response.Body.Close())
		if err != nil || s.Arrived >= deliveries {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

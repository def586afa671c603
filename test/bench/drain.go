package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/relay"
)

const drainRounds = 3

// usage is what a run took: the rate, and µs of CPU time per event.
type usage struct{ rate, sender, receiver, database []float64 }

func (u *usage) String() string {
	text := fmt.Sprintf("%.0f/s; CPU per event: sender %.1f µs, receiver %.1f µs", median(u.rate), median(u.sender),
		median(u.receiver))
	if db := median(u.database); db > 0 {
		text += fmt.Sprintf(", database %.1f µs", db)
	}
	return text
}

// drain measures how fast a backlog reaches one endpoint and what that costs, beside
// two clients of net/http that keep nothing: one that sends the same body again and
// again, and one with a new body, the headers of a webhook and a time limit each time.
// The receiver is another process. The runs take turns.
func drain(ctx context.Context, d database, events int) (err error) {
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	receiver, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	defer receiver.stop()
	server := 0 // the process of PostgreSQL
	if d.url != "" {
		var backend int
		if err := h.DB.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
			return err
		}
		_, server = statOf(backend)
	}
	var same, fresh, ours usage
	for round := range drainRounds {
		for _, one := range []struct {
			usage   *usage
			prepare func() (run func() error, err error)
		}{
			{&same, func() (func() error, error) { return func() error { return postSame(ctx, receiver.url, events) }, nil }},
			{&fresh, func() (func() error, error) { return func() error { return postFresh(ctx, receiver.url, events) }, nil }},
			{&ours, func() (func() error, error) {
				return prepareDrain(ctx, h.Log, h.DB, fmt.Sprint("drain", round), receiver, events)
			}},
		} {
			run, err := one.prepare()
			if err != nil {
				return err
			}
			if err := one.usage.measure(run, receiver.cmd.Process.Pid, server, events); err != nil {
				return err
			}
			if one.usage != &ours {
				if err := receiver.wait(ctx, events); err != nil {
					return err
				}
			}
		}
	}
	d.report("%d events, a client that sends the same body: %s", events, &same)
	d.report("%d events, a client with new bodies and headers: %s", events, &fresh)
	d.report("%d events, relay with history: %s", events, &ours)
	d.report("relay relative to the client with new bodies: rate %.2f, CPU of the sender %.2f",
		median(ours.rate)/median(fresh.rate), median(ours.sender)/median(fresh.sender))
	return nil
}

// measure adds what a run takes.
func (u *usage) measure(run func() error, receiver, server, events int) error {
	cpu := func() [3]float64 {
		all := [3]float64{cpuOf(os.Getpid(), false), cpuOf(receiver, false)}
		if server != 0 {
			all[2] = cpuOf(server, true)
		}
		return all
	}
	before, begun := cpu(), time.Now()
	err := run()
	seconds, after := time.Since(begun).Seconds(), cpu()
	n := float64(events)
	u.rate = append(u.rate, n/seconds)
	for i, list := range []*[]float64{&u.sender, &u.receiver, &u.database} {
		*list = append(*list, (after[i]-before[i])/n*1e6)
	}
	return err
}

func postSame(ctx context.Context, url string, events int) error {
	c := client()
	defer c.CloseIdleConnections()
	_, err := bench.PostLoop(ctx, c, url, inFlight, events)
	return err
}

// postFresh posts as a program would that sends webhooks itself.
func postFresh(ctx context.Context, url string, events int) error {
	c := client()
	c.Timeout = 15 * time.Second
	defer c.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(events))
	var wg sync.WaitGroup
	errs := make(chan error, inFlight)
	for range inFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := postEvent(ctx, c, url); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func postEvent(ctx context.Context, c *http.Client, url string) error {
	e := bench.SampleEvent()
	e.ID = e.ResourceID
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(e.AppendJSON(nil)))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "bench", "Webhook-Id": e.ID,
		"Webhook-Timestamp": strconv.FormatInt(e.Time.Unix(), 10), "Tidings-Sequence": "1", "Tidings-Event": e.Name(),
		"Tidings-Resource": e.Resource(), "Tidings-Resource-Version": "1",
	} {
		request.Header.Set(name, value)
	}
	response, err := c.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// prepareDrain logs events behind an endpoint's cursor and returns what lets it catch
// up.
func prepareDrain(
	ctx context.Context, log bench.Log, db appender, name string, to *receiverProcess, events int,
) (run func() error, err error) {
	e, err := endpoint(name, to.url)
	if err != nil {
		return nil, err
	}
	options := relay.Options{Logger: slog.New(slog.DiscardHandler)}
	if _, err := relay.New(ctx, log, []relay.Endpoint{e}, options); err != nil { // it creates the cursor
		return nil, err
	}
	if err := fill(ctx, log, db, events); err != nil {
		return nil, err
	}
	return func() error {
		r, err := relay.New(ctx, log, []relay.Endpoint{e}, options)
		if err != nil {
			return err
		}
		running, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- r.Run(running) }()
		err = to.wait(ctx, events)
		cancel()
		return errors.Join(err, <-ended)
	}, nil
}

// bareLoop posts with a client of net/http and nothing else.
func bareLoop(ctx context.Context, events int) (seconds float64, err error) {
	receiver := httptest.NewServer(http.HandlerFunc(swallow))
	defer receiver.Close()
	c := client()
	defer c.CloseIdleConnections()
	return bench.PostLoop(ctx, c, receiver.URL, inFlight, events)
}

// countingReceiver takes webhooks and closes all after so many.
func countingReceiver(events int) (receiver *httptest.Server, all <-chan struct{}) {
	var arrived atomic.Int64
	done := make(chan struct{})
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		swallow(w, r)
		if arrived.Add(1) == int64(events) {
			close(done)
		}
	})), done
}

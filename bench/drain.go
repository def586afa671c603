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
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
)

const drainRounds = 3

// drain measures how fast a backlog reaches one endpoint, against a bare client
// that posts the same body with the same concurrency.
func drain(ctx context.Context, d database, events int) (err error) {
	db, log, err := d.sqlDatabase()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var bare, ours []float64
	for round := range drainRounds {
		seconds, err := bareLoop(ctx, events)
		if err != nil {
			return err
		}
		bare = append(bare, float64(events)/seconds)
		if seconds, err = drainOnce(ctx, log, db, fmt.Sprint("drain", round), events); err != nil {
			return err
		}
		ours = append(ours, float64(events)/seconds)
	}
	d.report("drain of %d events: bare client %.0f/s; relay %.2f of that", events, median(bare), median(ours)/median(bare))
	return nil
}

func sampleEvent() tidings.Event {
	id := uuid.NewString()
	return tidings.Event{
		Type: tidings.Context, Action: tidings.Created, ResourceID: id, ResourceURL: "/api/v1/contexts/" + id,
		UserID: uuid.NewString(), Time: time.Now().UTC().Truncate(time.Microsecond), ResourceVersion: 1,
	}
}

// bareLoop posts bodies with a client of net/http and nothing else.
func bareLoop(ctx context.Context, events int) (seconds float64, err error) {
	receiver := httptest.NewServer(http.HandlerFunc(swallow))
	defer receiver.Close()
	body, err := sampleEvent().MarshalJSON()
	if err != nil {
		return 0, err
	}
	c := client()
	defer c.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(events))
	var wg sync.WaitGroup
	errs := make(chan error, inFlight)
	begun := time.Now()
	for range inFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := post(ctx, c, receiver.URL, body); err != nil {
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

// drainOnce logs events behind an endpoint's cursor and lets it catch up.
func drainOnce(ctx context.Context, log log, db appender, name string, events int) (seconds float64, err error) {
	receiver, all := countingReceiver(events)
	defer receiver.Close()
	e, err := endpoint(name, receiver.URL)
	if err != nil {
		return 0, err
	}
	r, err := relay.New(ctx, log, []relay.Endpoint{e}, relay.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	if err := fill(ctx, log, db, events); err != nil {
		return 0, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	begun := time.Now()
	go func() { ended <- r.Run(running) }()
	select {
	case <-all:
	case <-ctx.Done():
	}
	seconds = time.Since(begun).Seconds()
	cancel()
	return seconds, errors.Join(<-ended, ctx.Err())
}

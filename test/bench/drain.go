package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/relay"
)

const drainRounds = 3

// drain measures how fast a backlog reaches one endpoint, against a bare client
// that posts the same body with the same concurrency.
func drain(ctx context.Context, d database, events int) (err error) {
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	db, log := h.DB, h.Log
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
	d.report("drain of %d events: bare client %.0f/s; relay %.2f of that", events, median(bare),
		median(ours)/median(bare))
	return nil
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

// drainOnce logs events behind an endpoint's cursor and lets it catch up.
func drainOnce(ctx context.Context, log bench.Log, db appender, name string, events int) (seconds float64, err error) {
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

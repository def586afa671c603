package main

import (
	"context"
	"crypto/tls"
	"database/sql"
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
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

const (
	writers     = 16
	writeRounds = 9
	roundTime   = time.Second
)

// home opens the database as the server does.
func (d database) home() (*bench.Home, error) {
	h, err := bench.Open(d.url, d.folder)
	if err == nil && d.url != "" {
		h.DB.SetMaxOpenConns(writers)
		h.DB.SetMaxIdleConns(writers)
	}
	return h, err
}

// writes measures transactions that insert a context: without an event, with an event,
// and with an event that three endpoints receive. They do not go through HTTP, which
// would hide part of the difference.
func writes(ctx context.Context, d database) (err error) {
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	owner := uuid.NewString()
	if _, err := h.DB.ExecContext(ctx, `INSERT INTO `+d.schema()+`users (id, version, created_at, updated_at, email, role)
		VALUES ($1, 1, $2, $2, 'bench', 'user')`, owner, time.Now().UTC()); err != nil {
		return err
	}
	var without, with, delivered []float64
	measure := func(rates *[]float64, events bool) error {
		begun := time.Now()
		n, err := writeRound(ctx, h, d.schema(), owner, events)
		*rates = append(*rates, float64(n)/time.Since(begun).Seconds())
		return err
	}
	for range writeRounds { // alternating, so that conditions are equal
		if err := errors.Join(measure(&without, false), measure(&with, true)); err != nil {
			return err
		}
	}
	receiver := httptest.NewServer(http.HandlerFunc(swallow))
	defer receiver.Close()
	stop, err := threeEndpoints(ctx, h.Log, "bench", receiver.URL)
	if err != nil {
		return err
	}
	for range writeRounds / 2 {
		if err := measure(&delivered, true); err != nil {
			return errors.Join(err, stop())
		}
	}
	units := []string{"writes/s"}
	d.results.add(d, "Writes/without events", units, without)
	d.results.add(d, "Writes/with events", units, with)
	d.results.add(d, "Writes/with three live endpoints", units, delivered)
	d.report("writes: %.0f/s without events; with events %.2f of that; with three live endpoints as well %.2f",
		median(without), median(with)/median(without), median(delivered)/median(without))
	return stop()
}

// writeRound writes for roundTime and returns the number of transactions.
func writeRound(
	ctx context.Context, h *bench.Home, schema, owner string, events bool,
) (int, error) {
	var done atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	begun := time.Now()
	for range writers {
		wg.Go(func() {
			for time.Since(begun) < roundTime {
				if err := writeOnce(ctx, h, schema, owner, events); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	close(errs)
	return int(done.Load()), <-errs
}

func writeOnce(ctx context.Context, h *bench.Home, schema, owner string, events bool) error {
	return h.Transact(ctx, func(ctx context.Context, tx *sql.Tx) ([]tidings.Event, error) {
		return write(ctx, tx, schema, owner, events)
	})
}

func write(
	ctx context.Context, tx *sql.Tx, schema, owner string, events bool,
) ([]tidings.Event, error) {
	id, now := uuid.NewString(), time.Now().UTC().Truncate(time.Microsecond)
	_, err := tx.ExecContext(ctx, `INSERT INTO `+schema+`contexts
		(id, version, created_at, updated_at, created_by, metadata, last_active_at, history_count)
		VALUES ($1, 1, $2, $2, $3, '{"title":"A trip to Delft"}', $2, 0)`, id, now, owner)
	if err != nil || !events {
		return nil, err
	}
	return []tidings.Event{{
		Type: "context", Action: tidings.Created, ResourceID: id, ResourceURL: "/api/v1/contexts/" + id,
		UserID: owner, Time: now, ResourceVersion: 1,
	}}, nil
}

// threeEndpoints delivers to a receiver three times. A name that was used before has
// missed what was written since.
func threeEndpoints(ctx context.Context, log eventlog.Log, name, url string) (stop func() error, err error) {
	var endpoints []relay.Endpoint
	for n := range liveEndpoints {
		e, err := endpoint(fmt.Sprintf("%s.%d", name, n), url)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	r, err := relay.New(ctx, log, endpoints, relay.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(running) }()
	return func() error {
		cancel()
		return <-ended
	}, nil
}

const inFlight = 16

// endpoint returns an endpoint with the same client as the server's.
func endpoint(name, url string) (relay.Endpoint, error) {
	e := tidings.Endpoint{Name: name, URL: url, Timeout: 15 * time.Second, MaxInFlight: inFlight}
	s, err := newSender(e, nil)
	return relay.Endpoint{Endpoint: e, Sender: s}, err
}

func newSender(e tidings.Endpoint, trust *tls.Config) (*sender.Sender, error) {
	dialer := sender.NewDialer(sender.Egress{}, inFlight, 5*time.Second)
	transport := sender.NewTransport(sender.TransportOptions{Dialer: dialer, TLS: trust})
	return sender.New(e, &http.Client{Transport: transport}, sender.Options{})
}

func client() *http.Client {
	dialer := sender.NewDialer(sender.Egress{}, inFlight, 5*time.Second)
	return &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: inFlight, MaxConnsPerHost: inFlight,
	}}
}

func swallow(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // a truncated body counts as sent
	w.WriteHeader(http.StatusNoContent)
}

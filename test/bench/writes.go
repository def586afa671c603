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
	"os"
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

// plain opens the same database for transactions as an application has them: each commits
// alone, and each statement waits for the answer to the one before.
func (d database) plain(h *bench.Home) (db *sql.DB, closeDB func() error, err error) {
	if d.url == "" {
		return h.DB, func() error { return nil }, nil
	}
	db, err = sql.Open("pgx", d.url)
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(writers)
	db.SetMaxIdleConns(writers)
	return db, db.Close, nil
}

// writes measures transactions that insert a context: plain ones, the server's without an
// event and with one, and those with an event that three endpoints receive. They do not go
// through HTTP, which would hide part of the difference.
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
	db, closeDB, err := d.plain(h)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDB()) }()
	plain := kind{name: "plain, without events", once: func() error { return writeAlone(ctx, db, d.schema(), owner) }}
	without := kind{name: "without events", once: func() error { return writeOnce(ctx, h, d.schema(), owner, false) }}
	with := kind{name: "with events", once: func() error { return writeOnce(ctx, h, d.schema(), owner, true) }}
	delivered := kind{name: "with three live endpoints", once: with.once}
	for range writeRounds { // alternating, so that conditions are equal
		for _, k := range []*kind{&plain, &without, &with} {
			if err := k.measure(d); err != nil {
				return err
			}
		}
	}
	receiver := httptest.NewServer(http.HandlerFunc(swallow))
	defer receiver.Close()
	stop, err := threeEndpoints(ctx, h.Log, "bench", receiver.URL)
	if err != nil {
		return err
	}
	for range writeRounds / 2 {
		if err := delivered.measure(d); err != nil {
			return errors.Join(err, stop())
		}
	}
	for _, k := range []kind{plain, without, with, delivered} {
		d.results.add(d, "Writes/"+k.name, []string{"writes/s", "own-µs/write", "database-µs/write"}, k.rounds[:]...)
		d.report("writes %s: %.0f/s, which is %.2f of plain ones, %.2f of those without events; "+
			"%.0f µs of CPU time, and %.0f µs of PostgreSQL's", k.name, k.rate(), k.rate()/plain.rate(),
			k.rate()/without.rate(), median(k.rounds[1]), median(k.rounds[2]))
	}
	return stop()
}

// kind is a kind of transactions.
type kind struct {
	name   string
	once   func() error
	rounds [3][]float64 // rates, and CPU times of a write in µs: this process's, PostgreSQL's
}

// measure adds a round.
func (k *kind) measure(d database) error {
	used := func() [2]float64 { return [2]float64{cpuOf(os.Getpid(), false), d.cpu()} }
	begun, before := time.Now(), used()
	n, err := writeRound(k.once)
	took, after := time.Since(begun), used()
	k.rounds[0] = append(k.rounds[0], float64(n)/took.Seconds())
	for i := range after {
		k.rounds[i+1] = append(k.rounds[i+1], (after[i]-before[i])/float64(n)*1e6)
	}
	return err
}

func (k *kind) rate() float64 { return median(k.rounds[0]) }

// writeRound writes for roundTime and returns the number of transactions.
func writeRound(once func() error) (int, error) {
	var done atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	begun := time.Now()
	for range writers {
		wg.Go(func() {
			for time.Since(begun) < roundTime {
				if err := once(); err != nil {
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

func writeAlone(ctx context.Context, db *sql.DB, schema, owner string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := write(ctx, tx, schema, owner, false); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
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

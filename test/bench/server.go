package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// server is a tidings server process.
type server struct {
	url   string
	cmd   *exec.Cmd
	ready time.Duration // how long it took until it was ready
}

// startServer starts a server with endpoints.
func startServer(ctx context.Context, d database, receivers ...string) (*server, error) {
	return startProcess(ctx, d, "serve", receivers, map[string]any{
		// One user makes all requests.
		"limits": map[string]any{"requests_per_second": 1e6, "burst": 1_000_000, "contexts": 1_000_000_000},
	})
}

// startProcess builds the program and runs a command of it until it is ready. The settings
// are added to those that it needs, and replace them.
func startProcess(
	ctx context.Context, d database, command string, receivers []string, settings map[string]any,
) (*server, error) {
	binary := filepath.Join(d.folder, "tidings")
	if err := os.MkdirAll(d.folder, 0o700); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/tidings").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w: %s", err, out)
	}
	port, err := testtool.FreePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	var endpoints []any
	for _, url := range receivers {
		endpoints = append(endpoints, map[string]any{"url": url})
	}
	all := map[string]any{
		"listen": address, "data_dir": d.folder, "log": map[string]any{"level": "warn"},
		"auth": map[string]any{"tokens": []any{
			// A new user, because requests count their user's contexts.
			map[string]any{"sha256": auth.Hash("bench"), "user": uuid.NewString() + "@example.com", "role": "admin"},
		}},
		"webhook": map[string]any{"endpoints": endpoints},
	}
	if d.url != "" {
		all["database_url"] = d.url
	}
	maps.Copy(all, settings)
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(d.folder, "tidings.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	s := &server{url: "http://" + address, cmd: exec.Command(binary, command, "--config", file)}
	s.cmd.Stderr = os.Stderr
	child.EndWithUs(s.cmd, syscall.SIGKILL)
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		response, err := http.Get(s.url + "/readyz")
		if err == nil {
			err = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				s.ready = time.Since(begun)
				return s, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *server) stop() error {
	return errors.Join(s.cmd.Process.Signal(syscall.SIGTERM), s.cmd.Wait())
}

// peakMiB returns the peak memory of the process.
func (s *server) peakMiB() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmHWM in /proc")
}

const (
	writeRate   = 200
	latencyTime = 15 * time.Second

	latencyRounds = 3
)

// arrivals is a receiver that knows how long webhooks took, in milliseconds, from the
// time in the event.
type arrivals struct {
	mu     sync.Mutex
	delays []float64
}

// ServeHTTP receives a webhook.
func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	body, err := io.ReadAll(r.Body)
	var event tidings.Event
	if err == nil && event.UnmarshalJSON(body) == nil {
		a.mu.Lock()
		a.delays = append(a.delays, now.Sub(event.Time).Seconds()*1000)
		a.mu.Unlock()
	}
	w.WriteHeader(http.StatusNoContent)
}

// quantiles returns two quantiles and the number of webhooks.
func (a *arrivals) quantiles() (p50, p99 float64, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n = len(a.delays); n == 0 {
		return 0, 0, 0
	}
	p50 = median(a.delays) // sorts
	return p50, a.delays[n*99/100], n
}

// latency measures, at a steady rate of API writes, the time from the event's timestamp,
// which is when its transaction began, to the webhook's arrival, and what the webhook adds
// to the CPU time of the request.
func latency(ctx context.Context, d database) (err error) {
	arrived := new(arrivals)
	var idle float64
	var request, webhook, requestDB, webhookDB []float64
	for range latencyRounds {
		receiver := httptest.NewServer(arrived) // another one, which has missed nothing
		defer receiver.Close()
		var own, database [2]float64 // without a webhook, and with one
		for i, receivers := range [][]string{nil, {receiver.URL}} {
			s, err := startServer(ctx, d, receivers...)
			if err != nil {
				return err
			}
			if idle, err = s.peakMiB(); err == nil {
				own[i], database[i], err = s.writeSteadily(ctx, d)
			}
			if err = errors.Join(err, s.stop()); err != nil {
				return err
			}
		}
		request, webhook = append(request, own[0]), append(webhook, own[1]-own[0])
		requestDB, webhookDB = append(requestDB, database[0]), append(webhookDB, database[1]-database[0])
	}
	p50, p99, n := arrived.quantiles()
	if n == 0 {
		return errors.New("no webhook arrived")
	}
	d.results.add(d, "Latency", []string{"p50-ms", "p99-ms"}, []float64{p50}, []float64{p99})
	d.results.add(d, "Webhook",
		[]string{"request-CPU-ms", "webhook-CPU-ms", "request-database-CPU-ms", "webhook-database-CPU-ms"},
		request, webhook, requestDB, webhookDB)
	d.report("latency at %d writes/s: p50 %.1f ms, p99 %.1f ms (%d webhooks); memory idle %.0f MiB", writeRate, p50, p99, n,
		idle)
	d.report("  a request uses %.2f ms of CPU time, and %.2f ms of PostgreSQL's; its webhook %.2f and %.2f ms more",
		median(request), median(requestDB), median(webhook), median(webhookDB))
	return nil
}

// writeSteadily makes requests for latencyTime and returns the CPU time of one in
// milliseconds, of the server and of the database.
func (s *server) writeSteadily(ctx context.Context, d database) (own, database float64, err error) {
	const writes = int(latencyTime/time.Second) * writeRate
	used := func() (own, database float64) { return cpuOf(s.cmd.Process.Pid, false), d.cpu() }
	ownBefore, databaseBefore := used()
	var wg sync.WaitGroup
	errs := make(chan error, writes)
	ticker := time.NewTicker(time.Second / writeRate)
	defer ticker.Stop()
	for range writes {
		<-ticker.C
		wg.Go(func() { errs <- s.createContext(ctx) })
	}
	wg.Wait()
	<-time.After(time.Second) // for the last webhooks
	own, database = used()
	for range writes {
		err = errors.Join(err, <-errs)
	}
	return (own - ownBefore) / float64(writes) * 1e3, (database - databaseBefore) / float64(writes) * 1e3, err
}

const (
	restEvents = 300
	restPause  = 150 * time.Millisecond
)

// rest measures the same for single rows that are inserted into a table beside a relay,
// with pauses that have nothing to do with its polling.
func rest(ctx context.Context, d database) (err error) {
	if d.url == "" {
		return nil
	}
	db, err := sql.Open("pgx", d.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "CREATE TABLE public.orders (id int PRIMARY KEY)"); err != nil {
		return err
	}
	arrived := new(arrivals)
	receiver := httptest.NewServer(arrived)
	defer receiver.Close()
	s, err := startProcess(ctx, d, "relay", []string{receiver.URL}, map[string]any{"sources": map[string]any{
		"poll": "100ms", "tables": map[string]any{"public.orders": map[string]any{"type": "order"}},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for id := range restEvents {
		<-time.After(restPause/2 + rand.N(restPause))
		if _, err := db.ExecContext(ctx, "INSERT INTO public.orders VALUES ($1)", id); err != nil {
			return err
		}
	}
	<-time.After(time.Second) // for the last webhooks
	p50, p99, n := arrived.quantiles()
	if n < restEvents {
		return fmt.Errorf("%d of %d webhooks arrived", n, restEvents)
	}
	d.report("latency of a row at rest: p50 %.1f ms, p99 %.1f ms (%d webhooks)", p50, p99, n)
	return nil
}

func (s *server) createContext(ctx context.Context) error {
	body := bytes.NewReader([]byte("{}"))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/v1/contexts", body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer bench")
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if response.StatusCode != http.StatusCreated {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return errors.Join(err, response.Body.Close())
}

// memory measures the server's peak memory while a backlog drains to a number of
// endpoints, or to 1, 100 and 1,000, for at most some time. If there are several, the
// receiver takes 20 ms.
func memory(ctx context.Context, d database, events int, long time.Duration, only int) error {
	for _, endpoints := range []int{1, 100, 1000} {
		if only > 0 {
			endpoints = only
		}
		if d.url == "" {
			d.folder += "-" + strconv.Itoa(endpoints) // so that the cursors of the last run do not count
		}
		if err := memoryOf(ctx, d, events, endpoints, long); err != nil || only > 0 {
			return err
		}
	}
	return nil
}

func memoryOf(ctx context.Context, d database, events, endpoints int, long time.Duration) (err error) {
	var arrived atomic.Int64
	all := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if endpoints > 1 {
			<-time.After(20 * time.Millisecond)
		}
		swallow(w, r)
		if arrived.Add(1) == int64(events)*int64(endpoints) {
			close(all)
		}
	}))
	defer receiver.Close()
	urls := make([]string, endpoints)
	for n := range urls {
		urls[n] = fmt.Sprintf("%s/%d", receiver.URL, n)
	}
	first, err := startServer(ctx, d, urls...) // creates the endpoints' cursors
	if err != nil {
		return err
	}
	if err := first.stop(); err != nil {
		return err
	}
	h, err := d.home()
	if err != nil {
		return err
	}
	if err := errors.Join(fill(ctx, h.Log, h.DB, events), h.Close()); err != nil {
		return err
	}
	begun := time.Now()
	s, err := startServer(ctx, d, urls...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	sample := time.NewTicker(time.Second)
	defer sample.Stop()
	most := make(map[string]int)
	for running := true; running && time.Since(begun) < long; {
		select {
		case <-all:
			running = false
		case <-sample.C:
			now, err := s.metrics(ctx)
			if err != nil {
				return err
			}
			for name, n := range now {
				most[name] = max(most[name], n)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n := arrived.Load()
	peak, err := s.peakMiB()
	d.results.add(d, fmt.Sprintf("Memory/%d endpoints", endpoints), []string{"peak-MiB", "goroutines", "files"},
		[]float64{peak}, []float64{float64(most["go_goroutines"])}, []float64{float64(most["process_open_fds"])})
	const mib = 1 << 20
	d.report("%d endpoints, each %d events behind: peak memory %.0f MiB (stacks %d, next garbage collection at %d); "+
		"%d goroutines, %d open files; %.0f deliveries/s (%d in all)", endpoints, events, peak,
		most["go_memstats_stack_inuse_bytes"]/mib, most["go_memstats_next_gc_bytes"]/mib, most["go_goroutines"],
		most["process_open_fds"], float64(n)/time.Since(begun).Seconds(), n)
	return err
}

// metrics returns the metrics without labels.
func (s *server) metrics(ctx context.Context) (map[string]int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer bench")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	all := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] = int(n)
		}
	}
	return all, nil
}

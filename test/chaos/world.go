//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

const (
	writers  = 4
	token    = "chaos"
	diskSize = "768m"
)

// world is everything that runs in a test.
type world struct {
	database    string
	folder      string
	postgres    *testdb.Server
	databaseURL string
	disk        bool // folder is a separate file system
	receivers   []*receiver
	servers     []*server
	client      *http.Client
	webhook     map[string]any // settings besides the endpoints
	// Only driveFaults uses these.
	problems problems
	reloaded settable // what reloads change
	losses   []span   // when the database wrote what it later lost

	mu      sync.Mutex
	faults  map[string]int
	trouble []span         // when servers or their database had a fault
	reloads []span         // when the partitions of an endpoint changed
	acked   []acknowledged // acknowledged writes
	failed  atomic.Int64   // writes that were not acknowledged
	slow    atomic.Int64   // the slowest acknowledged write, in nanoseconds
}

// span is a period of time.
type span struct{ from, to time.Time }

// write is an acknowledged change of a context.
type write struct {
	resource string
	version  int64 // 0 for a deletion
}

// acknowledged is a write and the time of its acknowledgment.
type acknowledged struct {
	write
	at time.Time
}

// settable are the settings of the endpoint "reloaded" that reloads change.
type settable struct {
	path       string
	partitions int
	events     []string
}

// server is a server process with its own proxy to the database.
type server struct {
	name, binary, file, address string
	settings                    map[string]any
	proxy                       *proxy
	log                         *os.File

	mu  sync.Mutex
	cmd *exec.Cmd
}

// persona describes a receiver and its endpoint.
type persona struct {
	name     string
	faults   []fault
	oneIn    int // one in this many requests meets a fault
	tls      bool
	endpoint map[string]any // additional settings
}

// checkedReceivers are the receivers whose deliveries are compared with the log.
func checkedReceivers() []persona {
	return []persona{
		{name: "steady"},
		{name: "flaky", faults: allFaults(), oneIn: 4},
		{name: "outages"},
		{name: "partitioned", faults: allFaults()[:4], oneIn: 4, endpoint: map[string]any{"partitions": 2}},
		{name: coalescing, faults: allFaults()[:4], oneIn: 4, endpoint: map[string]any{"coalesce": "latest"}},
		{name: particular},
		{name: reloaded},
		{name: "encrypted", tls: true},
	}
}

func newWorld(
	ctx context.Context, database, folder, binary string, personas []persona, webhook map[string]any,
) (w *world, err error) {
	w = &world{
		database: database, folder: folder, faults: make(map[string]int),
		client:  &http.Client{Timeout: 5 * time.Second},
		webhook: webhook, reloaded: settable{"/", 1, []string{"*"}},
	}
	made := w
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close())
		}
	}()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	for _, p := range personas {
		receiver, err := newReceiver(p)
		if err != nil {
			return nil, err
		}
		w.receivers = append(w.receivers, receiver)
	}
	replicas := 1
	if database == "PostgreSQL" {
		replicas = 3
		if w.postgres, err = testdb.StartPostgres(); err != nil {
			return nil, err
		}
		if w.databaseURL, err = w.postgres.Create("chaos"); err != nil {
			return nil, err
		}
	} else {
		w.disk = exec.Command("mount", "-t", "tmpfs", "-o", "size="+diskSize, "tmpfs", folder).Run() == nil
		if !w.disk {
			fmt.Println("can't mount a file system here: skipping the full disk")
		}
	}
	for i := range replicas {
		s, err := w.newServer(fmt.Sprint("server", i+1), binary)
		if err != nil {
			return nil, err
		}
		w.servers = append(w.servers, s)
		if err := s.start(); err != nil {
			return nil, err
		}
		if err := w.ready(ctx, s); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) newServer(name, binary string) (*server, error) {
	port, err := testtool.FreePort()
	if err != nil {
		return nil, err
	}
	s := &server{
		name: name, binary: binary, address: "127.0.0.1:" + strconv.Itoa(port), file: filepath.Join(w.folder, name+".yaml"),
	}
	s.settings = map[string]any{
		"listen": s.address, "data_dir": filepath.Join(w.folder, "data"), "shutdown_timeout": "5s",
		// One user makes all requests.
		"limits": map[string]any{"requests_per_second": 1e6, "burst": 1_000_000, "contexts": 1_000_000_000},
		"auth": map[string]any{"tokens": []any{
			map[string]any{"sha256": auth.Hash(token), "user": "chaos@example.com", "role": "admin"},
		}},
	}
	if w.databaseURL != "" {
		u, err := url.Parse(w.databaseURL)
		if err != nil {
			return nil, err
		}
		if s.proxy, err = newProxy(u.Host); err != nil {
			return nil, err
		}
		u.Host = s.proxy.address()
		s.settings["database_url"] = u.String()
		s.settings["data_dir"] = filepath.Join(w.folder, name)
	}
	if s.log, err = os.OpenFile(w.folder+"-"+name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	return s, w.configure(s)
}

// configure writes the configuration of a server.
func (w *world) configure(s *server) error {
	var endpoints []any
	for _, r := range w.receivers {
		if r.removed.Load() {
			continue
		}
		e := map[string]any{
			"name": r.name, "url": r.server.URL, "secret": secret, "timeout": "1s",
			"retry": map[string]any{"schedule": []string{"200ms", "1s", "2s"}, "max_attempts": 100},
		}
		maps.Copy(e, r.endpoint)
		if r.name == reloaded {
			e["url"], e["partitions"], e["events"] = r.server.URL+w.reloaded.path,
				w.reloaded.partitions, w.reloaded.events
		}
		if r.tls {
			certificate := filepath.Join(w.folder, "ca.pem")
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
			if err := os.WriteFile(certificate, text, 0o600); err != nil {
				return err
			}
			e["http"] = map[string]any{"tls_config": map[string]any{"ca_file": certificate}}
		}
		endpoints = append(endpoints, e)
	}
	webhook := map[string]any{"endpoints": endpoints}
	maps.Copy(webhook, w.webhook)
	s.settings["webhook"] = webhook
	text, err := json.Marshal(s.settings)
	if err != nil {
		return err
	}
	return os.WriteFile(s.file, text, 0o600)
}

// reload changes the URL, partitions and patterns of an endpoint on every server. A
// server that is not running reads them when it starts.
func (w *world) reload(random *rand.Rand) error {
	w.reloaded = settable{
		path:       []string{"/", "/moved"}[random.IntN(2)],
		partitions: 1 + random.IntN(4),
		events:     [][]string{{"*"}, {"context.*"}, narrow}[random.IntN(3)],
	}
	return w.reloadAll()
}

func (w *world) reloadAll() error {
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, w.configure(s), s.signal(syscall.SIGHUP))
	}
	return errors.Join(errs...)
}

func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command(s.binary, "serve", "--config", s.file)
	cmd.Stderr = s.log
	child.EndWithUs(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	return nil
}

// signal sends a signal. After SIGKILL and SIGTERM it waits for the process to end.
func (s *server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		err := s.cmd.Wait()
		s.cmd = nil
		var exit *exec.ExitError
		if err != nil && (sig == syscall.SIGTERM || !errors.As(err, &exit)) {
			return err
		}
	}
	return nil
}

// ended reports whether the process ended on its own.
func (s *server) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd != nil && s.cmd.Process.Signal(syscall.Signal(0)) != nil
}

func (w *world) ready(ctx context.Context, s *server) error {
	deadline := time.Now().Add(time.Minute)
	for {
		response, err := w.client.Get("http://" + s.address + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s is not ready: %w", s.name, errors.Join(err, ctx.Err()))
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// call sends a request to a server.
func (w *world) call(s *server, method, path string, body any) (status int, answer map[string]any, err error) {
	status, answer, _, err = w.callVersion(s, method, path, body)
	return status, answer, err
}

// callVersion also returns the version in the response's ETag, or 0.
func (w *world) callVersion(s *server, method, path string, body any) (
	status int, answer map[string]any, version int64, err error,
) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, 0, err
	}
	r, err := http.NewRequest(method, "http://"+s.address+"/api/v1"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := w.client.Do(r)
	if err != nil {
		return 0, nil, 0, err
	}
	defer response.Body.Close()
	answerText, err := io.ReadAll(response.Body)
	if err == nil && len(answerText) > 0 {
		err = json.Unmarshal(answerText, &answer)
	}
	version, _ = strconv.ParseInt(strings.Trim(response.Header.Get("ETag"), `"`), 10, 64) // 0 without an ETag
	return response.StatusCode, answer, version, err
}

// write changes its own resources of type context until ctx ends.
func (w *world) write(ctx context.Context, random *rand.Rand) {
	known := make(map[string]bool)
	for ctx.Err() == nil {
		s := w.servers[random.IntN(len(w.servers))]
		method, path := http.MethodPost, "/contexts"
		var body any = map[string]any{"metadata": map[string]any{"n": fmt.Sprint(random.IntN(1000))}}
		id := ""
		if ids := slices.Sorted(maps.Keys(known)); len(ids) > 0 && (len(ids) > 20 || random.IntN(5) > 0) {
			id = ids[random.IntN(len(ids))]
			method, path = http.MethodPut, "/contexts/"+id
			if random.IntN(10) == 0 {
				method, body = http.MethodDelete, nil
			}
		}
		begun := time.Now()
		status, answer, version, err := w.callVersion(s, method, path, body)
		switch {
		case err != nil, status >= http.StatusInternalServerError, status == http.StatusNotFound:
			w.failed.Add(1) // it may have been committed
			if method == http.MethodDelete || status == http.StatusNotFound {
				delete(known, id)
			}
			pause(ctx, 50*time.Millisecond)
			continue
		case status >= http.StatusBadRequest:
			fmt.Fprintf(os.Stderr, "%s %s: %d %v\n", method, path, status, answer)
			continue
		case method == http.MethodPost:
			id = fmt.Sprint(answer["id"])
			known[id] = true
		case method == http.MethodDelete:
			delete(known, id)
		}
		w.mu.Lock()
		w.acked = append(w.acked, acknowledged{write{"context/" + id, version}, time.Now()})
		w.mu.Unlock()
		if took := int64(time.Since(begun)); took > w.slow.Load() {
			w.slow.Store(took)
		}
		pause(ctx, time.Duration(random.IntN(20))*time.Millisecond)
	}
}

func (w *world) close() error {
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, s.signal(syscall.SIGCONT), s.signal(syscall.SIGKILL))
		if s.proxy != nil {
			s.proxy.close()
		}
		errs = append(errs, s.log.Close())
	}
	for _, r := range w.receivers {
		r.server.CloseClientConnections()
		r.server.Close()
	}
	if w.postgres != nil {
		errs = append(errs, w.postgres.Close())
	}
	if w.disk {
		errs = append(errs, exec.Command("umount", w.folder).Run())
	}
	return errors.Join(errs...)
}

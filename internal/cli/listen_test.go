package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/receive"
)

// localReceiver is a program on this machine that listen posts to.
type localReceiver struct {
	address string
	handler http.Handler
	server  *http.Server

	mu  sync.Mutex
	got []string // ids of resources
}

func newLocalReceiver(t *testing.T, secret string) *localReceiver {
	t.Helper()
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &localReceiver{address: testtool.FreeAddress(t)}
	r.handler = receive.New(verifier, func(_ context.Context, e tidings.Event) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, e.ResourceID)
		return nil
	}, receive.Options{})
	return r
}

func (r *localReceiver) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.server = &http.Server{Handler: r.handler}
	go func() { _ = r.server.Serve(l) }()
	t.Cleanup(r.stop)
}

func (r *localReceiver) stop() { _ = r.server.Close() }

func (r *localReceiver) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// waitFor waits until a command has printed a text.
func (b *buffer) waitFor(t *testing.T, text string) {
	t.Helper()
	waitUntil(t, text, func() bool { return strings.Contains(b.String(), text) })
}

// waitUntil waits for a condition.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(testtool.Allow(30 * time.Second))
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

const serverConfig = `
types: {order: [updated]}
webhook: {endpoints: [{name: crm, url: "http://127.0.0.1:1/", format: cloudevents, events: [order.*]}]}
`

// publisher is a server, and numbers the events that it publishes.
type publisher struct {
	address, folder, program string
	process                  *exec.Cmd
	last                     int
}

func (p *publisher) start(t *testing.T) {
	t.Helper()
	file := filepath.Join(p.folder, "tidings.yaml")
	if err := os.WriteFile(file, []byte(serverConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	p.process = run(context.WithoutCancel(t.Context()), p.program, nil, "serve", "--config", file, "--listen",
		p.address, "--data-dir", filepath.Join(p.folder, "data"))
	child.EndWithUs(p.process, syscall.SIGKILL)
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	waitUntil(t, "the server", func() bool {
		response, err := http.Get("http://" + p.address + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func (p *publisher) kill() {
	_ = p.process.Process.Kill()
	_ = p.process.Wait() // it was killed
}

// publish publishes n events of different resources, whose ids are numbers.
func (p *publisher) publish(t *testing.T, n int) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(p.folder, "data", "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	events := []object{}
	for range n {
		p.last++
		events = append(events, object{"event": "order.updated", "resource_id": strconv.Itoa(p.last)})
	}
	body, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+p.address+"/api/v1/events", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s", response.Status, text)
	}
}

// runUntil runs a command until it has printed a text, and returns all that it printed.
func runUntil(t *testing.T, cmd *exec.Cmd, text string) string {
	t.Helper()
	var out buffer
	cmd.Stdout = &out
	child.EndWithUs(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, text)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return out.String()
}

// recordedAt returns the time of the nth event of a file, and the resource of the first
// one that is not older.
func recordedAt(t *testing.T, file string, n int) (at string, resource int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	times := make([]time.Time, len(lines))
	for i, line := range lines {
		var e struct{ Timestamp time.Time }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		times[i] = e.Timestamp
	}
	for i := range times {
		if !times[i].Before(times[n]) {
			return times[n].Format(time.RFC3339Nano), i + 1
		}
	}
	return "", 0
}

// Events arrive once and in order although the local program and the server are
// away for a while; the command says so.
func TestListenOutlivesBothSides(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	const share = 200 // of the events, five times
	folder, name := t.TempDir(), program(t)
	env := []string{"XDG_CONFIG_HOME=" + folder}
	secret, err := run(t.Context(), name, env, "listen", "--print-secret").Output()
	if err != nil {
		t.Fatal(err)
	}
	p := &publisher{address: testtool.FreeAddress(t), folder: folder, program: name}
	r := newLocalReceiver(t, strings.TrimSpace(string(secret)))
	record := filepath.Join(folder, "events.jsonl")
	var out buffer
	listen := run(context.WithoutCancel(t.Context()), name, env, "listen", "--forward-to", "http://"+r.address+"/hook",
		"--url", p.address, "--data-dir", filepath.Join(folder, "data"), "--types", "order.*", "--record", record)
	listen.Stdout, listen.Stderr = &out, &out
	child.EndWithUs(listen, syscall.SIGKILL)
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- listen.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%.4000s", out.String())
		}
	})

	out.waitFor(t, "not connected")
	p.start(t)
	out.waitFor(t, "following the events after position")
	r.start(t)
	p.publish(t, share)
	waitUntil(t, "the first events", func() bool { return len(r.received()) > share/2 })
	r.stop()
	p.publish(t, share)
	out.waitFor(t, "is unavailable")
	p.kill()
	r.start(t)
	out.waitFor(t, ", after ")
	out.waitFor(t, "connection lost")
	p.start(t)
	for range 3 {
		p.publish(t, share)
	}
	waitUntil(t, "all events", func() bool { return len(r.received()) >= p.last })
	for i, id := range r.received() {
		if id != strconv.Itoa(i+1) {
			t.Fatalf("event %d is of resource %s", i+1, id)
		}
	}
	if n := strings.Count(out.String(), "connected to http://"+p.address); n < 2 {
		t.Errorf("it says %d times that it is connected", n)
	}
	if err := listen.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}

	// It begins in the middle of the log, too.
	since, first := recordedAt(t, record, p.last/2)
	last := fmt.Sprintf("/order/%d\n", p.last)
	server := []string{"listen", "--url", p.address, "--data-dir", filepath.Join(folder, "data")}
	late := runUntil(t, run(t.Context(), name, env, append(server, "--since", since, "--record",
		filepath.Join(folder, "late.jsonl"))...), last)
	if want := fmt.Sprintf("--> order.updated /order/%d\n", first); !strings.HasPrefix(late, want) {
		t.Errorf("since %s it prints %.40q, want %q", since, late, want)
	}

	// Patterns and format are those of an endpoint.
	types := make(chan string, p.last)
	crm := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case types <- r.Header.Get("Content-Type"):
		default:
		}
	}))
	defer crm.Close()
	all := runUntil(t, run(t.Context(), name, env, append(server, "--since", "1h", "--endpoint", "crm", "--forward-to",
		crm.URL)...), last)
	if got := <-types; got != "application/cloudevents+json" || !strings.HasPrefix(all, "--> order.updated /order/1\n") {
		t.Errorf("with the settings of crm, it sends %s, and first %.40q", got, all)
	}

	// What was recorded replays without a server; the receiver knows all of it.
	replay, err := run(t.Context(), name, env, "listen", "--replay", record, "--forward-to",
		fmt.Sprintf("http://%s/hook", r.address)).CombinedOutput()
	if n := strings.Count(string(replay), "<-- 204"); err != nil || n != p.last {
		t.Errorf("%d of %d are replayed: %v", n, p.last, err)
	}
	if n := len(r.received()); n != p.last {
		t.Errorf("the receiver acted on %d of %d events", n, p.last)
	}
}

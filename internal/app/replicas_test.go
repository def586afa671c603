//go:build unix

package app_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// holders returns the number of leases of each replica.
func (p *process) holders() map[string]int {
	p.Helper()
	status, page, err := p.call("GET", "/webhooks/endpoints", nil)
	if err != nil || status != http.StatusOK {
		return nil
	}
	held := make(map[string]int)
	for _, e := range page["items"].([]any) {
		for _, part := range e.(map[string]any)["partitions"].([]any) {
			held[fmt.Sprint(part.(map[string]any)["replica"])]++
		}
	}
	return held
}

// Three processes share the endpoints of one PostgreSQL database. A killed process is
// replaced within 15 seconds, a suspended one has lost its leases when it resumes, and
// everything arrives in order.
func TestReplicas(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
	receiver := httptest.NewServer(got)
	t.Cleanup(receiver.Close) // runs after the clients have stopped
	var others []any
	for i := range 5 {
		others = append(others, map[string]any{
			"name": fmt.Sprint("other", i), "url": receiver.URL,
			"events": []any{"provider.*"},
		})
	}
	database := testdb.Postgres(t)
	start := func(pollOnly bool) *process {
		p := newProcess(t, map[string]any{
			"database_url": database, "poll_only": pollOnly,
			"webhook": map[string]any{"endpoints": append(others,
				map[string]any{"name": "receiver", "url": receiver.URL})},
		})
		p.start()
		return p
	}
	processes := []*process{start(false), start(false), start(true)}
	even := func(replicas int) {
		t.Helper()
		deadline := time.Now().Add(testTimeout)
		for {
			held := processes[0].holders()
			most, least := 0, 6
			for _, n := range held {
				most, least = max(most, n), min(least, n)
			}
			if len(held) == replicas && most-least <= 1 && held[""] == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("6 endpoints are not evenly held by %d replicas: %v", replicas, held)
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	even(3)
	stop := make(chan struct{})
	results := make(chan map[string]int64, writers)
	for range writers {
		go func() { results <- processes[0].write(stop) }()
	}
	<-time.After(500 * time.Millisecond)
	killed := time.Now()
	processes[1].end(syscall.SIGKILL)
	even(2)
	if took := time.Since(killed); took > testtool.Allow(15*time.Second) {
		t.Errorf("the killed process's endpoints were taken over after %v", took)
	}
	if err := processes[2].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	even(1)
	if err := processes[2].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	even(2)
	left := time.Now()
	if err := processes[2].end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	even(1)
	if took := time.Since(left); took > testtool.Allow(3*time.Second) {
		t.Errorf("the stopped process's endpoints were taken over after %v", took)
	}
	close(stop)
	for range writers {
		<-results
	}
	events := processes[0].checkDelivered(got)
	t.Logf("%d events, %d duplicates", events, got.duplicates)
}

// A mounted configuration that changes by symlink, like a ConfigMap, takes effect by
// itself. An invalid one changes nothing and is logged.
func TestReload(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var mu sync.Mutex
	arrived := map[string]int{}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrived[r.URL.Path+" "+r.Header.Get("X-Key")]++
	}))
	t.Cleanup(receiver.Close) // runs after the clients have stopped
	p := newProcess(t, map[string]any{})
	text, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	base := strings.TrimSuffix(string(text), "}")
	mounts := 0
	mount := func(endpoints, key string) {
		t.Helper()
		mounts++
		next := filepath.Join(folder, fmt.Sprint("..", mounts))
		for name, content := range map[string]string{"tidings.yaml": base + `,"webhook":{"endpoints":[` +
			endpoints + `]}}`, "key": key} {
			if err := os.MkdirAll(next, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(next, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(folder, "..data_tmp")
		if err := os.Symlink(next, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(folder, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	endpoint := func(path string) string {
		return fmt.Sprintf(`{"name":%q,"url":%q,"headers":{"X-Key":{"file":%q}}}`, path, receiver.URL+"/"+path,
			filepath.Join(folder, "..data", "key"))
	}
	mount(endpoint("a"), "one")
	p.file = filepath.Join(folder, "..data", "tidings.yaml")
	p.start()
	changesReach := func(want string, not ...string) {
		t.Helper()
		deadline := time.Now().Add(testTimeout)
		for {
			mu.Lock()
			clear(arrived)
			mu.Unlock()
			if _, _, err := p.call("POST", "/contexts", map[string]any{}); err != nil {
				t.Fatal(err)
			}
			<-time.After(100 * time.Millisecond)
			mu.Lock()
			done := arrived[want] > 0
			for _, other := range not {
				done = done && arrived[other] == 0
			}
			seen := fmt.Sprint(arrived)
			mu.Unlock()
			if done {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s never arrived without %v: %s; log:\n%s", want, not, seen, p.log)
			}
		}
	}
	changesReach("/a one")
	mount(endpoint("a")+","+endpoint("b"), "one")
	changesReach("/b one")
	mount(endpoint("b"), "two")
	changesReach("/b two", "/a one", "/a two", "/b one")
	mount(`{"name":"c","url":"nonsense"}`, "two")
	deadline := time.Now().Add(testTimeout)
	for !strings.Contains(p.log.String(), "the configuration was not reloaded") {
		if time.Now().After(deadline) {
			t.Fatalf("an invalid configuration was not logged; log:\n%s", p.log)
		}
		<-time.After(20 * time.Millisecond)
	}
	changesReach("/b two")
	if status, answer, err := p.call("POST", "/webhooks/reload", nil); err != nil ||
		status != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(answer), "the URL must begin with") {
		t.Errorf("reload: %d %v %v", status, answer, err)
	}
	mount(endpoint("a")+","+endpoint("b"), "three")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	changesReach("/a three")
}

// A request, its event and the attempt to deliver the event are one trace.
func TestTrace(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		spans := make(chan *trace.Span, 100)
		otel := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var body bytes.Buffer
			var export collector.ExportTraceServiceRequest
			if _, err := body.ReadFrom(r.Body); err != nil || r.URL.Path != "/v1/traces" ||
				proto.Unmarshal(body.Bytes(), &export) != nil {
				return
			}
			for _, resource := range export.ResourceSpans {
				for _, scope := range resource.ScopeSpans {
					for _, s := range scope.Spans {
						spans <- s
					}
				}
			}
		}))
		defer otel.Close()
		settings["tracing"] = object{"endpoint": otel.URL}
		w := newWorld(t, settings)
		w.user("ann")
		const parent = "0af7651916cd43dd8448eb211c80319c"
		w.wants(w.try("ann", "POST", "/contexts", object{}, "traceparent", "00-"+parent+"-b7ad6b7169203331-01"), 201)
		w.mark()
		if err := w.stop(); err != nil { // exports the remaining spans
			t.Error(err)
		}
		close(spans)
		found := map[string]*trace.Span{}
		for s := range spans {
			if fmt.Sprintf("%x", s.TraceId) == parent {
				found[s.Name] = s
			}
		}
		request, event, attempt := found["POST /api/v1/contexts"], found["event context.created"],
			found["deliver context.created"]
		if request == nil || event == nil || attempt == nil {
			t.Fatalf("spans: %v", found)
		}
		if !bytes.Equal(event.ParentSpanId, request.SpanId) || !bytes.Equal(attempt.ParentSpanId, event.SpanId) {
			t.Error("the attempt is not a child of the event, or the event not a child of the request")
		}
		sent := ""
		w.mu.Lock()
		for _, a := range w.arrived {
			if strings.Contains(a.header.Get("traceparent"), parent) {
				sent = a.header.Get("traceparent")
			}
		}
		w.mu.Unlock()
		if want := fmt.Sprintf("00-%s-%x-01", parent, attempt.SpanId); sent != want {
			t.Errorf("traceparent = %q, want %q", sent, want)
		}
	})
}

// A replica whose file still has the former name of an endpoint may reload it: that changes
// nothing, so the renamed endpoint keeps its cursor and its events their order.
func TestReloadOfAnUnchangedFile(t *testing.T) {
	t.Parallel()
	database := testdb.Postgres(t)
	w := newWentBack(t, 2, map[string]any{"database_url": database})
	w.up.Store(true)
	w.arrived(w.late, w.write(2))
	db := openDB(t, database)
	before := cursorsIn(t, db)
	first, second := w.processes[0], w.processes[1]
	w.up.Store(false)
	behind := w.write(10)
	first.reconfigure(object{"name": "well", "url": w.urls["well"]},
		object{"name": "renamed", "url": w.urls["late"], "cursor_from": "late"})
	if status, answer, err := second.call("POST", "/webhooks/reload", nil); err != nil || status != http.StatusOK {
		t.Errorf("reload: %d %v %v", status, answer, err)
	}
	want := strings.ReplaceAll(fmt.Sprint(before), "late", "renamed")
	if after := fmt.Sprint(cursorsIn(t, db)); after != want {
		t.Errorf("cursors: %v; want %v", after, want)
	}
	w.up.Store(true)
	w.arrived(w.late, append(behind, w.write(10)...))
}

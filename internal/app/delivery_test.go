package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// silent returns the URL of a server that accepts connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	})
	return "http://" + l.Addr().String()
}

// Writes never wait for endpoints: with one that never answers, one that refuses
// connections and one that fails, every write succeeds while none of their webhooks is
// delivered, and a healthy endpoint gets them all.
func TestWritesDoNotWaitForEndpoints(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		var failing atomic.Int64
		fails := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			failing.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		}))
		defer fails.Close()
		hang := make(chan struct{})
		defer close(hang)
		var waiting atomic.Int64
		hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			waiting.Add(1)
			<-hang
		}))
		w := newWorldWith(t, settings,
			object{"name": "silent", "url": silent(t), "timeout": "1h"},
			object{"name": "hangs", "url": hangs.URL, "timeout": "1h"},
			object{"name": "refuses", "url": "http://127.0.0.1:1"}, object{"name": "fails", "url": fails.URL})
		t.Cleanup(hangs.CloseClientConnections)
		id := w.call("ann", "POST", "/contexts", object{}).id()
		for n := range 200 {
			w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": fmt.Sprint(n)}})
		}
		w.mark() // the healthy endpoint has them all, while the others hang
		if waiting.Load() == 0 || failing.Load() == 0 {
			t.Errorf("nothing was sent to the others: %d hang, %d failed", waiting.Load(), failing.Load())
		}
		if n := waiting.Load(); n > 16 {
			t.Errorf("%d concurrent requests exceed max_in_flight", n)
		}
	})
}

// If a receiver closes a reused connection without a response, the event is sent once more
// within the same attempt, and the history says so.
func TestHistoryOfASecondRequest(t *testing.T) {
	var mu sync.Mutex
	closing, requests := 0, make(map[string]int)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests[r.Header.Get("Webhook-Id")]++
		if closing == 0 {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		closing--
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close()
		}
	}))
	defer receiver.Close()
	w := newWorldWith(t, nil, object{"name": "closes", "url": receiver.URL, "events": []any{"context.created"}})
	const attempts = "/webhooks/attempts?endpoint=closes"
	w.call("ann", "POST", "/contexts", object{})
	w.until("admin", "GET", attempts, nil, has(`"outcome":"delivered"`))
	mu.Lock()
	closing = 2
	mu.Unlock()
	w.call("ann", "POST", "/contexts", object{})
	found := w.until("admin", "GET", attempts, nil, func(a answer) bool {
		return strings.Count(a.text, `"outcome":"delivered"`) == 2
	})
	id, outcomes := "", []string{}
	for _, item := range found.body["items"].([]any)[:2] { // newest first
		a := item.(map[string]any)
		id = a["event_id"].(string)
		outcomes = append(outcomes, fmt.Sprint(a["outcome"], " ", a["reason"], " ", a["resent"]))
	}
	if diff := cmp.Diff([]string{"delivered <nil> <nil>", "unreachable reset true"}, outcomes); diff != "" {
		t.Errorf("attempts (-want +got):\n%s\n%s", diff, found.text)
	}
	mu.Lock()
	defer mu.Unlock()
	if requests[id] != 3 {
		t.Errorf("%d requests, want two for the first attempt and one for the second", requests[id])
	}
}

// No secret appears in the log at any level, in metrics or in answers.
func TestSecretsAreNotShown(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		status := new(atomic.Int64)
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(int(status.Load()))
			fmt.Fprint(w, "no")
		}))
		defer receiver.Close()
		status.Store(http.StatusInternalServerError)
		withUser := strings.Replace(receiver.URL, "http://", "http://someone:hidden-password@", 1) + "?key=hidden-query"
		headers := object{"X-Api-Key": "hidden-header"}
		w := newWorldWith(t, settings,
			object{"name": "fails", "url": withUser, "headers": headers, "secret": webhookSecret},
			object{
				"name": "closed", "url": "http://someone:hidden-password@127.0.0.1:1/?key=hidden-query",
				"headers": headers,
			},
			object{
				"name": "slow", "url": "http://someone:hidden-password@" + strings.TrimPrefix(silent(t), "http://"),
				"headers": headers, "timeout": "50ms",
			},
			object{
				"name": "unknown", "url": "http://name.invalid/hidden-path?key=hidden-query",
				"http": object{"basic_auth": object{"username": "x", "password": "hidden-basic"}},
			},
		)
		w.call("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "hidden-key"})
		w.try("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": "http://127.0.0.1:1", "api_key": "hidden-key"})
		w.call("ann", "PUT", "/variables", object{"variables": object{"A": "hidden-variable"}})
		w.try("hidden-token", "GET", "/users/me", nil)
		for _, s := range []int64{401, 403, 404, 410, 429, 503} {
			status.Store(s)
			w.call("ann", "POST", "/contexts", object{})
			w.mark()
		}
		w.logged("endpoint=closed", "endpoint=fails", "endpoint=slow", "endpoint=unknown")
		metrics := w.request("", "GET", "/metrics", nil, nil)
		if !strings.Contains(metrics.text, `tidings_webhook_attempts_total{endpoint="closed"`) {
			t.Errorf("metrics lack the attempts:\n%s", metrics.text)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		secrets := []string{
			"hidden-", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
			"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
		}
		for _, secret := range secrets {
			if strings.Contains(metrics.text, secret) {
				t.Errorf("metrics show %q", secret)
			}
			for line := range strings.Lines(w.log.String()) {
				if strings.Contains(line, secret) {
					t.Errorf("the log shows %q: %s", secret, line)
				}
			}
		}
		for line := range strings.Lines(w.log.String()) {
			if strings.Contains(line, "goroutine ") {
				t.Errorf("a stack trace for an expected error: %s", line)
			}
		}
	})
}

// logged waits until the log contains the texts.
func (w *world) logged(texts ...string) {
	w.Helper()
	deadline := time.After(testTimeout)
	for {
		log := w.log.String()
		texts = slices.DeleteFunc(texts, func(text string) bool { return strings.Contains(log, text) })
		if len(texts) == 0 {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			w.Fatalf("the log lacks %q:\n%s", texts, log)
		}
	}
}

// A stopping server answers requests in flight and no later ones, and is not ready.
func TestStopDrainsRequests(t *testing.T) {
	w := newWorld(t, map[string]any{})
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /api/v1/contexts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nContent-Type: "+
		"application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(c)
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} { // the handler waits for the body
		if line, err := r.ReadString('\n'); err != nil || line != want {
			t.Fatalf("got %q, %v, want %q", line, err, want)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	w.logged("stopping")
	fmt.Fprint(c, "{}")
	line, err := r.ReadString('\n')
	if err != nil || !strings.Contains(line, "201") {
		t.Errorf("request in flight: %q, %v", line, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// An event that fails while others are delivered is retried on the configured schedule,
// and given up after the configured number of attempts.
func TestRetrySchedule(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		var poison atomic.Pointer[string]
		receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if id := poison.Load(); err != nil || id != nil && strings.Contains(string(body), *id) {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		defer receiver.Close()
		w := newWorldWith(t, settings, object{
			"name": "chokes", "url": receiver.URL, "events": []any{"context.updated"},
			"retry": object{"schedule": []any{"10ms", "20ms"}, "max_attempts": 4},
		})
		bad, good := w.call("ann", "POST", "/contexts", object{}).id(),
			w.call("ann", "POST", "/contexts", object{}).id()
		poison.Store(&bad)
		w.call("ann", "PUT", "/contexts/"+bad, object{"metadata": object{"n": "x"}})
		n := 0
		dead := w.until("admin", "GET", "/webhooks/parked?dead=true", nil, func(a answer) bool {
			n++ // the endpoint is otherwise healthy
			w.call("ann", "PUT", "/contexts/"+good, object{"metadata": object{"n": fmt.Sprint(n)}})
			return len(items(a)) > 0
		})
		w.wants(dead, 200, bad, `"attempts":4`)
		w.logged("delivery given up, kept as dead letter")
	})
}

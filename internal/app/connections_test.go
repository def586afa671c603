package app_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtls"
)

// Connection failures are outages of the endpoint: it goes down with the reason, its
// events use up no attempts, and all arrive once it has recovered.
func TestConnectionFailures(t *testing.T) {
	ca := testtls.NewCA(t)
	certificate := ca.Issue("127.0.0.1")
	databases(t, func(t *testing.T, settings map[string]any) {
		var broken atomic.Bool
		var got atomic.Int64
		accept := func(w http.ResponseWriter, _ *http.Request) {
			got.Add(1)
			w.WriteHeader(http.StatusNoContent)
		}
		plain := httptest.NewServer(http.HandlerFunc(accept))
		defer plain.Close()
		mutual := func(http2 bool) string { // requires a client certificate while broken
			s := httptest.NewUnstartedServer(http.HandlerFunc(accept))
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.EnableHTTP2 = http2
			s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			s.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				c := s.TLS.Clone()
				if broken.Load() {
					c.ClientAuth, c.MinVersion = tls.RequireAndVerifyClientCert, tls.VersionTLS13
				}
				return c, nil
			}
			s.StartTLS()
			t.Cleanup(s.Close)
			return s.URL
		}
		resets := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() {
				c, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
				return
			}
			accept(w, r)
		}))
		defer resets.Close()
		garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() {
				c, buffer, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_, _ = buffer.WriteString("220 smtp.example.com ESMTP\r\n")
					_ = buffer.Flush()
					_ = c.Close()
				}
				return
			}
			accept(w, r)
		}))
		defer garbage.Close()
		tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"x","token_type":"Bearer","expires_in":1}`)
		}))
		defer tokens.Close()
		file := filepath.Join(t.TempDir(), "token")
		write := func() {
			if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write()
		trust := object{"tls_config": object{"ca": ca.PEM()}}
		faults := map[string]struct {
			url    string
			http   object
			reason string
		}{
			"tls1": {mutual(false), trust, "tls"}, "tls2": {mutual(true), trust, "tls"},
			"resets": {resets.URL, object{}, "reset"}, "garbage": {garbage.URL, object{}, "reset"},
			"tokens": {
				plain.URL,
				object{"oauth2": object{"client_id": "me", "client_secret": "x", "token_url": tokens.URL}},
				"credentials",
			},
			"file": {plain.URL, object{"authorization": object{"credentials_file": file}}, "credentials"},
		}
		var endpoints []any
		for name, f := range faults {
			endpoints = append(endpoints, object{
				"name": name, "url": f.url, "http": f.http, "events": []any{"context.*"}, "timeout": "5s",
				"retry": object{"schedule": []any{"10ms"}, "max_attempts": 2},
			})
		}
		broken.Store(true)
		if err := os.Remove(file); err == nil {
			write() // before the configuration is checked at startup
		}
		w := newWorldWith(t, settings, endpoints...)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		const resources = 3
		for range resources {
			id := w.call("ann", "POST", "/contexts", object{}).id()
			w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": "1"}})
		}
		for name, f := range faults {
			w.until("admin", "GET", "/webhooks/endpoints/"+name, nil, has(`"reason":"`+f.reason+`"`))
			// Several probes: if they used up attempts, events would be dead after two.
			a := w.until("admin", "GET", "/webhooks/attempts?outcome=failures&limit=100&endpoint="+
				url.QueryEscape(name), nil, func(a answer) bool {
				items, _ := a.body["items"].([]any)
				return len(items) >= 3
			})
			if n := strings.Count(a.text, `"outcome":"unreachable"`); n != len(a.body["items"].([]any)) {
				t.Errorf("%s: attempts: %s", name, a.text)
			}
			w.wants(w.call("admin", "GET", "/webhooks/endpoints/"+name, nil), 200, `"parked":0`, `"dead":0`,
				`"reason":"`+f.reason+`"`)
		}
		broken.Store(false)
		write()
		for name := range faults {
			w.until("admin", "GET", "/webhooks/endpoints/"+name, nil, has(`"lag_events":0`, `"parked":0`, `"dead":0`))
		}
		if n := got.Load(); n != int64(2*resources*len(faults)) {
			t.Errorf("%d delivered, want %d", n, 2*resources*len(faults))
		}
	})
}

// crowd is a receiver for many endpoints, some of which hang.
type crowd struct {
	*httptest.Server
	mu         sync.Mutex
	open, most int                 // connections
	hanging    map[string]bool     // paths that were asked
	got        map[string][]string // events by path: resource and version
}

func newCrowd() *crowd {
	c := &crowd{hanging: make(map[string]bool), got: make(map[string][]string)}
	c.Server = httptest.NewUnstartedServer(c)
	c.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch state {
		case http.StateNew:
			c.open++
			c.most = max(c.most, c.open)
		case http.StateClosed:
			c.open--
		}
	}
	c.Start()
	return c
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID string `json:"resource_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	c.mu.Lock()
	hangs := strings.HasPrefix(r.URL.Path, "/hung")
	if hangs {
		c.hanging[r.URL.Path] = true
	} else {
		c.got[r.URL.Path] = append(c.got[r.URL.Path], body.ID+" "+r.Header.Get("Tidings-Resource-Version"))
	}
	c.mu.Unlock()
	if hangs {
		<-r.Context().Done()
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// has returns how many events came, and how many connections are open.
func (c *crowd) has() (events, open int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, all := range c.got {
		events += len(all)
	}
	return events, c.open
}

// A low limit on open files leaves fewer connections than are configured, and some files
// for everything else.
func TestConnectionsLeaveFilesForOthers(t *testing.T) {
	t.Parallel()
	for files, want := range map[int]int{300: 150, 600: 344, 1024: 512} {
		p := newProcess(t, map[string]any{})
		p.limits = fmt.Sprint("ulimit -n ", files)
		p.start()
		response, err := client.Get("http://" + p.address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if line := fmt.Sprintf("tidings_in_flight_limit %d\n", want); err != nil || !strings.Contains(string(text), line) {
			t.Errorf("with %d open files: %v, the metrics lack %q", files, err, line)
		}
		if told := strings.Contains(p.log.String(), "raise it (ulimit -n, LimitNOFILE)"); told != (want < 512) {
			t.Errorf("with %d open files, told %v", files, told)
		}
		p.end(syscall.SIGTERM)
	}
}

// Half of 200 endpoints hang, and there may be 64 connections: the others get all events
// in order within seconds, and nothing is held for endpoints that are gone.
func TestConnectionsAreBounded(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		const limit, half, contexts, updates = 64, 100, 3, 3
		receiver := newCrowd()
		defer receiver.Close()
		var endpoints []any
		for i := range 2 * half {
			name := fmt.Sprint([]string{"hung", "well"}[i%2], i)
			endpoints = append(endpoints,
				object{"name": name, "url": receiver.URL + "/" + name, "events": []any{"context.*"}, "timeout": "2s"})
		}
		settings["webhook"] = object{"max_connections": limit, "endpoints": endpoints}
		w := newWorldWith(t, settings, option(reloads))
		for range contexts {
			id := w.call("ann", "POST", "/contexts", object{}).id()
			for n := range updates {
				w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": fmt.Sprint(n)}})
			}
		}
		begun := time.Now()
		w.until("", "GET", "/events", nil, func(answer) bool {
			events, _ := receiver.has()
			return events == half*contexts*(1+updates)
		})
		t.Logf("delivered after %v", time.Since(begun))
		w.wants(w.request("", "GET", "/metrics", nil, nil), 200, "tidings_in_flight_limit 64\n")
		w.settings["webhook"] = object{"max_connections": limit, "endpoints": []any{}}
		w.configure()
		w.call("admin", "POST", "/webhooks/reload", nil)
		w.until("", "GET", "/events", nil, func(answer) bool {
			_, open := receiver.has()
			return open == 0 && has("tidings_in_flight 0\n", "tidings_in_flight_waiting 0\n")(
				w.request("", "GET", "/metrics", nil, nil))
		})
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		if n := len(receiver.hanging); n < limit/2 {
			t.Errorf("only %d endpoints hang", n)
		}
		// A receiver may notice that a connection was closed after the next one was opened.
		if most := receiver.most; most > limit*3/2 {
			t.Errorf("%d connections at once, want %d", most, limit)
		}
		for path, events := range receiver.got {
			versions := make(map[string]int)
			for _, event := range events {
				id, version, _ := strings.Cut(event, " ")
				if versions[id]++; version != fmt.Sprint(versions[id]) {
					t.Errorf("%s: version %s of %s came as number %d", path, version, id, versions[id])
				}
			}
		}
	})
}

package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// slow returns the URL of a proxy that delays each direction of a database connection by
// half of the delay.
func slow(t *testing.T, database string, delay time.Duration) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	to := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	u.Host = l.Addr().String()
	type piece struct {
		at   time.Time
		data []byte
	}
	pass := func(to, from net.Conn) {
		pieces := make(chan piece, 1000)
		go func() {
			defer close(pieces)
			for {
				data := make([]byte, 16<<10)
				n, err := from.Read(data)
				if n > 0 {
					pieces <- piece{time.Now().Add(delay / 2), data[:n]}
				}
				if err != nil {
					return
				}
			}
		}()
		for p := range pieces {
			<-time.After(time.Until(p.at))
			if _, err := to.Write(p.data); err != nil {
				break
			}
		}
		to.Close()
		from.Close()
		for range pieces { // so that the other goroutine ends
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			go pass(server, client)
			go pass(client, server)
		}
	}()
	return u.String()
}

// beside measures the latency of deliveries to one endpoint alongside others, which the
// handler answers.
func beside(
	t *testing.T, settings map[string]any, others, events int, handler http.HandlerFunc,
) (p50, p99 time.Duration) {
	t.Helper()
	var mu sync.Mutex
	arrived := make(map[string]time.Time)
	news := make(chan struct{}, 1)
	healthy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event struct {
			ID string `json:"resource_id"`
		}
		if json.NewDecoder(r.Body).Decode(&event) == nil {
			mu.Lock()
			arrived[event.ID] = time.Now()
			mu.Unlock()
			select {
			case news <- struct{}{}:
			default:
			}
		}
	}))
	t.Cleanup(healthy.Close)
	rest := httptest.NewServer(handler)
	t.Cleanup(rest.Close)
	endpoints := []any{object{"name": "healthy", "url": healthy.URL}}
	for n := range others {
		endpoints = append(endpoints, object{"name": fmt.Sprint("other", n), "url": rest.URL})
	}
	settings["webhook"] = object{"endpoints": endpoints}
	w := newWorld(t, settings)
	begun := make(map[string]time.Time)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range events {
		<-tick.C
		id := w.call("ann", "POST", "/contexts", object{}).id()
		begun[id] = time.Now()
	}
	deadline := time.After(3 * testTimeout)
	var took []time.Duration
	for id, at := range begun {
		for {
			mu.Lock()
			then, ok := arrived[id]
			mu.Unlock()
			if ok {
				took = append(took, max(then.Sub(at), 0))
				break
			}
			select {
			case <-news:
			case <-deadline:
				t.Fatalf("%d of %d events arrived", len(arrived), events)
			}
		}
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

// Endpoints that refuse events do not slow down a healthy endpoint, even with a distant
// database.
func TestBesideEndpointsThatRefuse(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	const events, delay = 150, 10 * time.Millisecond
	others := 150
	if testtool.Raced {
		others = 30
	}
	measure := func(name string, handler http.HandlerFunc) (p50 time.Duration) {
		t.Run(name, func(t *testing.T) {
			settings := map[string]any{
				"database_url": slow(t, testdb.Postgres(t), delay),
				"log":          object{"level": "error"},
			}
			var p99 time.Duration
			p50, p99 = beside(t, settings, others, events, handler)
			t.Logf("p50 %v, p99 %v", p50, p99)
		})
		return p50
	}
	accept := measure("healthy", func(http.ResponseWriter, *http.Request) {})
	all := measure("all refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	some := measure("most refused", func(w http.ResponseWriter, r *http.Request) {
		// Nine of ten events fail because of the event, not the endpoint.
		body, _ := io.ReadAll(r.Body)
		var event struct {
			ID string `json:"resource_id"`
		}
		_ = json.Unmarshal(body, &event)
		if len(event.ID) > 0 && event.ID[0] != '0' {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	for _, p50 := range []time.Duration{all, some} {
		if p50 > 3*accept+500*time.Millisecond {
			t.Errorf("p50 is %v with endpoints that refuse, %v with healthy ones", p50, accept)
		}
	}
}

package app_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// movable is a TCP proxy whose target can be changed.
type movable struct {
	listener net.Listener
	cut      atomic.Int64 // how many transactions lose their connection at BEGIN

	mu    sync.Mutex
	to    string
	conns map[net.Conn]bool
}

func newMovable(t *testing.T, to string) *movable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &movable{listener: l, to: to, conns: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		l.Close()
		m.move("")
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go m.proxy(c)
		}
	}()
	return m
}

func (m *movable) proxy(c net.Conn) {
	defer c.Close()
	m.mu.Lock()
	to := m.to
	m.conns[c] = true
	m.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go io.Copy(m.cutter(server, c), c) //nolint:errcheck // ends with the connection
	io.Copy(c, server)                 //nolint:errcheck // likewise
}

// cutter forwards what a client sends, until its connection is to be cut.
func (m *movable) cutter(server io.Writer, client io.Closer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("begin isolation level")) && m.cut.Add(-1) >= 0 {
			return 0, client.Close()
		}
		return server.Write(p)
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A transaction whose connection is lost at BEGIN gets a new connection, up to twice.
func TestConnectionLostAtBegin(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	m := newMovable(t, u.Host)
	u.Host = m.listener.Addr().String()
	w := newWorld(t, map[string]any{"database_url": u.String()})
	for range 5 {
		m.cut.Store(2)
		for m.cut.Load() > 0 {
			w.call("ann", "POST", "/contexts", object{})
		}
	}
	m.cut.Store(1000)
	w.until("ann", "POST", "/contexts", object{}, has("try again"))
	m.cut.Store(0)
	w.call("ann", "POST", "/contexts", object{})
	w.mark()
}

// move changes the target and closes all connections.
func (m *movable) move(to string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.to = to
	for c := range m.conns {
		c.Close()
	}
	clear(m.conns)
}

// After a failover to a standby and back, the servers recover by themselves within
// seconds, and every acknowledged change arrives once and in order. While the database
// is read-only, requests get 503 and /readyz says why.
func TestFailover(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	const database = "/failover?sslmode=disable"
	for _, test := range []struct {
		name string
		// urls are the database's URLs for each replica; move gets the new primary.
		urls func(t *testing.T, a, b *testdb.Server) (urls []string, move func(to *testdb.Server))
	}{
		{"several hosts", func(_ *testing.T, a, b *testdb.Server) ([]string, func(*testdb.Server)) {
			return []string{
				"postgres://tidings@" + a.Address() + "," + b.Address() + database + "&target_session_attrs=read-write",
				"postgres://tidings@" + b.Address() + "," + a.Address() + database, // equivalent
			}, func(*testdb.Server) {}
		}},
		{"an address that moves", func(t *testing.T, a, _ *testdb.Server) ([]string, func(*testdb.Server)) {
			m := newMovable(t, a.Address())
			return []string{"postgres://tidings@" + m.listener.Addr().String() + database},
				func(to *testdb.Server) { m.move(to.Address()) }
		}},
		// Clients keep their connections to the pooler.
		{"a pooler that moves", func(t *testing.T, a, _ *testdb.Server) ([]string, func(*testdb.Server)) {
			m := newMovable(t, a.Address())
			url := testdb.PgBouncer(t, "postgres://tidings@"+m.listener.Addr().String()+database, "session")
			return []string{url}, func(to *testdb.Server) { m.move(to.Address()) }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			testFailover(t, test.urls)
		})
	}
}

func testFailover(
	t *testing.T, leading func(*testing.T, *testdb.Server, *testdb.Server) ([]string, func(*testdb.Server)),
) {
	primary := testdb.OwnServer(t)
	if _, err := primary.Create("failover"); err != nil {
		t.Fatal(err)
	}
	standby := primary.Standby(t)
	urls, move := leading(t, primary, standby)

	got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
	receiver := httptest.NewServer(got)
	t.Cleanup(receiver.Close) // runs after the clients have stopped
	var processes []*process
	for _, url := range urls {
		p := newProcess(t, map[string]any{
			"database_url": url,
			"webhook":      map[string]any{"endpoints": []any{map[string]any{"name": "receiver", "url": receiver.URL}}},
		})
		p.awayAllowed = true
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log:\n%s", p.log)
			}
		})
		p.start()
		processes = append(processes, p)
	}
	stop := make(chan struct{})
	results := make(chan map[string]int64, writers)
	for n := range writers {
		go func() { results <- processes[n%len(processes)].write(stop) }()
	}
	for range 2 { // there and back
		if err := primary.Kill(); err != nil {
			t.Fatal(err)
		}
		move(standby) // still a read-only standby
		for _, p := range processes {
			p.wait("the reason", func() bool {
				status, text := p.readyz()
				return status == http.StatusServiceUnavailable && strings.Contains(text, "database")
			})
		}
		if err := standby.Promote(); err != nil {
			t.Fatal(err)
		}
		promoted := time.Now()
		for _, p := range processes {
			p.wait("ready again", func() bool { status, _ := p.readyz(); return status == http.StatusOK })
			p.wait("writes again", func() bool { return p.create() == nil })
			for range 48 { // uses all connections
				if err := p.create(); err != nil {
					t.Errorf("write after the failover: %v", err)
				}
			}
		}
		if took := time.Since(promoted); took > testtool.Allow(20*time.Second) {
			t.Errorf("recovery took %v", took)
		} else {
			t.Logf("recovered after %v", took)
		}
		if err := primary.Follow(standby); err != nil {
			t.Fatal(err)
		}
		primary, standby = standby, primary
	}
	p := processes[0]
	close(stop)
	for range writers {
		for id, version := range <-results {
			status, answer, err := p.call("GET", "/contexts/"+id, nil)
			if err != nil || status != http.StatusOK || int64(answer["version"].(float64)) < version {
				t.Errorf("context %s was acknowledged at version %d, but is %v, %v", id, version, answer, err)
			}
		}
	}
	events := p.checkDelivered(got)
	t.Logf("%d events, %d duplicates", events, got.duplicates)
}

// create creates a context.
func (p *process) create() error {
	status, answer, err := p.call("POST", "/contexts", map[string]any{})
	if err == nil && status != http.StatusCreated {
		err = fmt.Errorf("%d %v", status, answer)
	}
	return err
}

func (p *process) readyz() (status int, text string) {
	p.Helper()
	response, err := client.Get("http://" + p.address + "/readyz")
	if err != nil {
		p.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// wait waits until done returns true.
func (p *process) wait(what string, done func() bool) {
	p.Helper()
	deadline := time.Now().Add(3 * testTimeout)
	for !done() {
		if time.Now().After(deadline) {
			p.Fatalf("timed out after %v: %s; log:\n%s", 3*testTimeout, what, p.log)
		}
		<-time.After(20 * time.Millisecond)
	}
}

package app_test

import (
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

// mute is a TCP proxy that can go silent: it keeps and accepts connections but forwards
// nothing, like a firewall that lost its state.
type mute struct {
	url string

	mu     sync.Mutex
	silent chan struct{} // closed when the current connections go silent
	deaf   atomic.Bool   // new connections are silent, too
}

func newMute(t *testing.T, database string) *mute {
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
	u.Host = l.Addr().String()
	m := &mute{url: u.String(), silent: make(chan struct{})}
	ended := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		close(ended)
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go m.proxy(c, to, ended)
		}
	}()
	return m
}

// silence makes all connections go silent and, if deaf, new ones, too.
func (m *mute) silence(deaf bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf.Store(deaf)
	close(m.silent)
	m.silent = make(chan struct{})
}

func (m *mute) proxy(client net.Conn, to string, ended <-chan struct{}) {
	defer client.Close()
	m.mu.Lock()
	silent := m.silent
	m.mu.Unlock()
	if m.deaf.Load() {
		<-ended
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		defer func() { done <- struct{}{} }()
		buffer := make([]byte, 16<<10)
		for {
			n, err := from.Read(buffer)
			select {
			case <-silent:
				<-ended
				return
			default:
			}
			if err != nil {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	go pass(server, client)
	go pass(client, server)
	<-done
}

// If database connections go silent without a reset, the server recovers within seconds.
// While new connections are silent, too, /readyz says so. Deliveries then resume by
// themselves.
func TestDatabaseGoesSilent(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	m := newMute(t, testdb.Postgres(t))
	got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
	receiver := httptest.NewServer(got)
	t.Cleanup(receiver.Close) // runs after the clients have stopped
	p := newProcess(t, map[string]any{
		"database_url": m.url,
		"webhook":      map[string]any{"endpoints": []any{map[string]any{"name": "receiver", "url": receiver.URL}}},
	})
	p.awayAllowed = true
	p.start()
	stop := make(chan struct{})
	results := make(chan map[string]int64, writers)
	for range writers { // so that all kinds of statements are in progress
		go func() { results <- p.write(stop) }()
	}
	arrived := func() int {
		got.mu.Lock()
		defer got.mu.Unlock()
		return len(got.bodies)
	}
	p.wait("deliveries", func() bool { return arrived() > 20 })
	for _, deaf := range []bool{false, true} {
		m.silence(deaf)
		if deaf {
			p.wait("not ready", func() bool {
				status, text := p.readyz()
				return status == http.StatusServiceUnavailable && strings.Contains(text, "database")
			})
			m.deaf.Store(false)
		}
		begun, before := time.Now(), arrived()
		p.wait("deliveries again", func() bool { return p.create() == nil && arrived() > before+20 })
		p.wait("ready again", func() bool { status, _ := p.readyz(); return status == http.StatusOK })
		if took := time.Since(begun); took > testtool.Allow(20*time.Second) {
			t.Errorf("recovery took %v", took)
		} else {
			t.Logf("recovered after %v", took)
		}
	}
	close(stop)
	for range writers {
		<-results
	}
	p.checkDelivered(got)
}

// /readyz fails while numbering is stuck, even though the database responds.
func TestNumberingIsStuck(t *testing.T) {
	t.Parallel()
	database := testdb.Postgres(t)
	w := newWorld(t, map[string]any{"database_url": database})
	w.mark()
	tx, err := openDB(t, database).BeginTx(t.Context(), nil)
	if err == nil {
		_, err = tx.Exec("SELECT seq FROM tidings.tidings_head FOR UPDATE")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // fails after a commit or rollback
	w.call("ann", "POST", "/contexts", object{})
	begun := time.Now()
	w.untilNotReady("could not be numbered")
	t.Logf("not ready after %v", time.Since(begun))
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	w.untilReady()
	w.mark()
}

// untilNotReady waits until /readyz returns 503 with the reason.
func (w *world) untilNotReady(reason string) {
	w.Helper()
	for deadline := time.Now().Add(testTimeout); ; <-time.After(10 * time.Millisecond) {
		a := w.request("", "GET", "/readyz", nil, nil)
		if a.status == http.StatusServiceUnavailable && strings.Contains(a.text, reason) {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("ready: %d %s; want %q", a.status, a.text, reason)
		}
	}
}

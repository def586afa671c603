package sender_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

// shared is a set of receivers whose senders share connections.
type shared struct {
	*testing.T
	connections *sender.Connections
	senders     []*sender.Sender
	dialers     []*sender.Dialer
	opened      []*atomic.Int64 // by receiver
	ports       []string        // as in /proc/net/tcp
}

// share starts receivers, with one kind of transport.
func share(t *testing.T, kind string, receivers, limit int, handler http.HandlerFunc) *shared {
	s := &shared{T: t, connections: sender.NewConnections(limit)}
	for range receivers {
		opened := new(atomic.Int64)
		server := httptest.NewUnstartedServer(handler)
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.EnableHTTP2 = true
		if kind == "http/1.1" {
			server.Start()
		} else {
			server.StartTLS()
		}
		t.Cleanup(server.Close)
		dialer := sender.NewDialer(sender.Egress{}, limit, 10*time.Second)
		dialer.Connections = s.connections
		t.Cleanup(func() { _ = dialer.Close() })
		trusted := x509.NewCertPool()
		if kind != "http/1.1" {
			trusted.AddCert(server.Certificate())
		}
		config := &tls.Config{RootCAs: trusted}
		var transport http.RoundTripper
		if kind == "net/http" {
			own := &http.Transport{TLSClientConfig: config}
			dialer.Serve(own)
			transport = own
		} else {
			transport = sender.NewTransport(sender.TransportOptions{Dialer: dialer, TLS: config, HTTP2: kind == "http/2"})
		}
		to, err := sender.New(tidings.Endpoint{URL: server.URL}, &http.Client{Transport: transport}, sender.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.senders, s.dialers, s.opened = append(s.senders, to), append(s.dialers, dialer), append(s.opened, opened)
		s.ports = append(s.ports, fmt.Sprintf(":%04X", server.Listener.Addr().(*net.TCPAddr).Port))
	}
	return s
}

func (s *shared) send(to int) {
	s.Helper()
	if o := s.senders[to].Send(s.Context(), tidings.Attempt{Event: event(), Number: 1}); o.Verdict != tidings.Delivered {
		s.Errorf("to %d: %+v", to, o)
	}
}

// established returns how many connections to the receivers are open in the system.
func (s *shared) established() (n int) {
	if runtime.GOOS != "linux" {
		return s.connections.Open()
	}
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		s.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[3] == "01" && slices.ContainsFunc(s.ports,
			func(port string) bool { return strings.HasSuffix(fields[1], port) }) {
			n++
		}
	}
	return n
}

// Senders to many receivers together stay within the limit on connections, idle ones
// included, and still deliver everything.
func TestConnectionsAreShared(t *testing.T) {
	const receivers, limit, rounds = 12, 4, 20
	for _, kind := range []string{"http/1.1", "https", "http/2", "net/http"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var s *shared
			var mu sync.Mutex
			looked, all, together := 0, 0, make(chan struct{})
			// While as many requests wait here as connections are allowed, none is opened,
			// and those that are being closed disappear.
			s = share(t, kind, receivers, limit, func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				if all++; all == limit {
					n := s.established()
					for try := 0; n > limit && try < 100; try++ {
						<-time.After(5 * time.Millisecond)
						n = s.established()
					}
					if n > limit {
						t.Errorf("%d connections at once, want at most %d", n, limit)
					}
					looked, all = looked+1, 0
					close(together)
					together = make(chan struct{})
				}
				now := together
				mu.Unlock()
				select {
				case <-now:
				case <-time.After(50 * time.Millisecond): // the others are done
					mu.Lock()
					if now == together {
						all--
					}
					mu.Unlock()
				}
				w.WriteHeader(http.StatusNoContent)
			})
			var sending sync.WaitGroup
			for first := range limit + 2 {
				sending.Go(func() {
					for i := range rounds {
						s.send((first + i*5) % receivers)
					}
				})
			}
			sending.Wait()
			if looked == 0 {
				t.Errorf("there were never %d requests at once", limit)
			}
			for _, d := range s.dialers {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
			if n := s.connections.Open(); n != 0 {
				t.Errorf("%d connections are counted after all were closed", n)
			}
		})
	}
}

// The connection that has been idle longest makes room; the others are reused.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	s := share(t, "http/1.1", 3, 2, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	for _, to := range []int{0, 1, 0, 2, 0, 2, 0, 1} {
		s.send(to)
	}
	var opened []int64
	for _, n := range s.opened {
		opened = append(opened, n.Load())
	}
	if want := []int64{1, 2, 1}; !slices.Equal(opened, want) {
		t.Errorf("connections opened to each: %d, want %d", opened, want)
	}
}

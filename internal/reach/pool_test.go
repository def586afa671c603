package reach_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testtls"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// forwarder is a TCP proxy that can freeze its connections: it keeps reading,
// forwards nothing, and closes nothing.
type forwarder struct {
	address string
	frozen  atomic.Int64 // flows up to that number
	flows   atomic.Int64
	ended   atomic.Int64 // number that the client closed
}

func forward(t testing.TB, target string) *forwarder {
	t.Helper()
	f := new(forwarder)
	f.address = listen(t, func(client net.Conn) {
		flow := f.flows.Add(1)
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer server.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.pipe(flow, client, server)
		}()
		f.pipe(flow, server, client)
		server.Close()
		f.ended.Add(1)
		<-done
	})
	return f
}

func (f *forwarder) pipe(flow int64, to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if flow > f.frozen.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

func (f *forwarder) freeze() { f.frozen.Store(f.flows.Load()) }

func protocols(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, true) })
}

// A silently dead connection costs one attempt, however many others are in the
// pool, and no more than its time limit.
func TestDeadFlows(t *testing.T) {
	const timeout = 2 * time.Second
	protocols(t, func(t *testing.T, http2 bool) {
		ca := testtls.NewCA(t)
		var together atomic.Pointer[chan struct{}] // takes one element of each request; full when all are there
		target := receiver(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue("localhost")}}, http2,
			func(w http.ResponseWriter, r *http.Request) {
				if want := r.ProtoMajor == 2; want != http2 {
					t.Errorf("%s, want HTTP/2 %v", r.Proto, http2)
				}
				_, _ = io.Copy(io.Discard, r.Body) // or a client that disconnects is not noticed
				all := *together.Load()
				select {
				case all <- struct{}{}:
				default:
				}
				for len(all) < cap(all) && r.Context().Err() == nil {
					<-time.After(time.Millisecond)
				}
				noContent(w, r)
			})
		f := forward(t, strings.Replace(strings.TrimPrefix(target, "https://"), "localhost", "127.0.0.1", 1))
		s := newSender(t, object{
			"url": "https://" + strings.Replace(f.address, "127.0.0.1", "localhost", 1), "timeout": timeout.String(),
			"http": object{"tls_config": object{"ca": ca.PEM()}, "enable_http2": http2},
		})
		send := func(n int) (outcomes []tidings.Outcome) {
			all := make(chan struct{}, n)
			together.Store(&all)
			outcomes = make([]tidings.Outcome, n)
			var sending sync.WaitGroup
			for i := range n {
				sending.Go(func() { outcomes[i] = s.Send(t.Context(), attempt()) })
			}
			sending.Wait()
			return outcomes
		}
		delivered := func(what string, outcomes []tidings.Outcome) {
			t.Helper()
			for _, o := range outcomes {
				if o.Verdict != tidings.Delivered {
					t.Fatalf("%s: %v %s %s", what, o.Verdict, o.Reason, o.Detail)
				}
			}
		}
		for range 2 {
			const parallel = 4
			delivered("before", send(parallel))
			f.freeze()
			begun := time.Now()
			// A ping that detects the dead connection leaves time to resend the request.
			if o := send(1)[0]; o.Verdict == tidings.Delivered && !o.Resent || o.Duration > timeout+time.Second {
				t.Fatalf("over a dead flow: %v after %v", o.Verdict, o.Duration)
			} else {
				t.Logf("noticed after %v: %v %s %s", o.Duration, o.Verdict, o.Reason, o.Detail)
			}
			delivered("after", send(parallel))
			t.Logf("%d delivered %v after the flows died", parallel, time.Since(begun))
		}
		if !http2 {
			return
		}
		f.freeze() // a ping detects that, with no request in flight
		begun := time.Now()
		for ; f.ended.Load() < f.frozen.Load() && time.Since(begun) < 20*time.Second; <-time.After(time.Millisecond) {
		}
		t.Logf("an idle dead flow was closed after %v", time.Since(begun))
		delivered("after the ping", send(1))
	})
}

// Connections in use are renewed, so a busy endpoint follows a changed DNS
// name; no request is disturbed.
func TestConnectionsAreRenewed(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		moved.Store([4]byte{127, 0, 0, 1})
		ca := testtls.NewCA(t)
		var served [2]atomic.Int64
		slow := make(chan struct{})
		port := ""
		for i, address := range []string{"127.0.0.1", "127.0.0.2"} {
			l, err := net.Listen("tcp", net.JoinHostPort(address, port))
			if err != nil {
				t.Skipf("a second loopback address with the same port: %v", err)
			}
			_, port, _ = net.SplitHostPort(l.Addr().String())
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Webhook-Id") == "slow" {
					<-slow
				} else {
					served[i].Add(1)
				}
				noContent(w, r)
			}))
			server.Listener.Close()
			server.Listener, server.EnableHTTP2 = l, http2
			server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue("moved.test")}}
			server.StartTLS()
			defer server.Close()
		}
		s := newSender(t, object{
			"url": "https://moved.test:" + port, "max_connection_age": "1s", "timeout": "15s",
			"http": object{"tls_config": object{"ca": ca.PEM()}, "enable_http2": http2},
		})
		var sending sync.WaitGroup
		sending.Go(func() { // on a connection past its maximum age
			a := attempt()
			a.Event.ID = "slow"
			if o := s.Send(t.Context(), a); o.Verdict != tidings.Delivered {
				t.Errorf("the slow request: %v %s %s", o.Verdict, o.Reason, o.Detail)
			}
		})
		var stop atomic.Bool
		for range 8 {
			sending.Go(func() {
				for !stop.Load() {
					if o := s.Send(t.Context(), attempt()); o.Verdict != tidings.Delivered {
						t.Errorf("%v %s %s", o.Verdict, o.Reason, o.Detail)
						return
					}
				}
			})
		}
		wait := func(what string, condition func() bool) {
			t.Helper()
			for deadline := time.Now().Add(20 * time.Second); !condition(); {
				if time.Now().After(deadline) {
					t.Errorf("%s: never", what)
					return
				}
				<-time.After(5 * time.Millisecond)
			}
		}
		wait("busy", func() bool { return served[0].Load() > 100 })
		begun := time.Now()
		moved.Store([4]byte{127, 0, 0, 2})
		wait("moved", func() bool { return served[1].Load() > 100 })
		took := time.Since(begun)
		before := served[0].Load()
		wait("busy there", func() bool { return served[1].Load() > 500 })
		t.Logf("moved after %v; %d requests at the old address, %d at the new one", took, before, served[1].Load())
		if n := served[0].Load() - before; n > 8 {
			t.Errorf("%d more requests went to the old address", n)
		}
		close(slow)
		stop.Store(true)
		sending.Wait()
	})
}

// A 2xx response whose body never ends is a delivery, and its cost is bounded.
func TestBodyThatNeverEnds(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		ca := testtls.NewCA(t)
		var status atomic.Int64
		var open atomic.Int64 // responses being written
		target := receiver(t, &tls.Config{Certificates: []tls.Certificate{ca.Issue("localhost")}}, http2,
			func(w http.ResponseWriter, r *http.Request) {
				open.Add(1)
				defer open.Add(-1)
				if r.Header.Get("Webhook-Id") == "cut" {
					w.Header().Set("Content-Length", "100")
					fmt.Fprint(w, "the beginning")
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(int(status.Load()))
				part := strings.Repeat("x", 8<<10)
				for r.Context().Err() == nil {
					if _, err := fmt.Fprint(w, part); err != nil || http.NewResponseController(w).Flush() != nil {
						return
					}
					if r.Header.Get("Webhook-Id") == "drip" {
						part = "x"
						select {
						case <-time.After(50 * time.Millisecond):
						case <-r.Context().Done():
						}
					}
				}
			})
		s := newSender(t,
			object{
				"url": target, "timeout": "15s",
				"http": object{"tls_config": object{"ca": ca.PEM()}, "enable_http2": http2},
			})
		send := func(id string, code int) tidings.Outcome {
			status.Store(int64(code))
			a := attempt()
			a.Event.ID = id
			return s.Send(t.Context(), a)
		}
		for _, tt := range []struct {
			id      string
			status  int
			verdict tidings.Verdict
			reason  string
		}{
			{"flood", 200, tidings.Delivered, ""},
			{"drip", 200, tidings.Delivered, ""},
			{"drip", 410, tidings.Gone, "http_410"},
			{"flood", 500, tidings.Failed, "http_500"},
			{"cut", 200, tidings.Failed, "reset"},
		} {
			o := send(tt.id, tt.status)
			if o.Verdict != tt.verdict || o.Reason != tt.reason || o.Status != tt.status || o.Duration > 5*time.Second {
				t.Errorf("%s %d: %v %q %d after %v, want %v %q", tt.id, tt.status, o.Verdict, o.Reason, o.Status,
					o.Duration, tt.verdict, tt.reason)
			}
			if len(o.Response) == 0 || len(o.Response) > 1<<10 {
				t.Errorf("%s %d: %d bytes of the response kept", tt.id, tt.status, len(o.Response))
			}
		}
		// The receiver has noticed that no response is read any longer.
		over := func(goroutines int) {
			t.Helper()
			deadline := time.Now().Add(testtool.Allow(10 * time.Second))
			for open.Load() > 0 || runtime.NumGoroutine() > goroutines {
				if time.Now().After(deadline) {
					t.Fatalf("%d responses are still being written, by %d goroutines", open.Load(), runtime.NumGoroutine())
				}
				<-time.After(5 * time.Millisecond)
			}
		}
		over(runtime.NumGoroutine())
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		var sending sync.WaitGroup
		for range 8 {
			sending.Go(func() {
				for range 25 {
					if o := send("flood", 200); o.Verdict != tidings.Delivered {
						t.Errorf("%v %s %s", o.Verdict, o.Reason, o.Detail)
					}
				}
			})
		}
		sending.Wait()
		over(goroutines + 50)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
}

package sender_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

type connKey struct{}

// A receiver that closes the connection without a response gets an event at
// most twice per attempt, however many idle connections there are: the second
// time on a new one. The outcome says so.
func TestConnectionThatDiesIsReplacedOnce(t *testing.T) {
	const connections = 8
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, recovers := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, recovers %v", protocol, recovers), func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				requests := make(map[string][]string) // the connections on which an event arrived
				opened := make(map[string]bool)       // those of others
				together := make(chan struct{})
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					id := r.Header.Get("Webhook-Id")
					if r.Proto != protocol {
						t.Errorf("%s is spoken, want %s", r.Proto, protocol)
					}
					mu.Lock()
					requests[id] = append(requests[id], r.RemoteAddr)
					if id != "bad" {
						opened[r.RemoteAddr] = true
						if len(requests) == connections {
							close(together)
						}
					}
					closes := id == "bad" && (!recovers || len(requests[id]) == 1)
					mu.Unlock()
					if closes {
						_ = r.Context().Value(connKey{}).(net.Conn).Close()
						return
					}
					if id != "bad" {
						<-together // so that each uses a separate connection
					}
					w.WriteHeader(http.StatusNoContent)
				}))
				server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
					return context.WithValue(ctx, connKey{}, c)
				}
				server.EnableHTTP2 = protocol == "HTTP/2.0"
				server.StartTLS()
				defer server.Close()

				dialer := sender.NewDialer(sender.Egress{}, connections, 10*time.Second)
				defer dialer.Close()
				trusted := x509.NewCertPool()
				trusted.AddCert(server.Certificate())
				client := &http.Client{Transport: sender.NewTransport(sender.TransportOptions{
					Dialer: dialer, TLS: &tls.Config{RootCAs: trusted}, HTTP2: server.EnableHTTP2,
				})}
				s, err := sender.New(tidings.Endpoint{URL: server.URL}, client, sender.Options{})
				if err != nil {
					t.Fatal(err)
				}
				send := func(id string) tidings.Outcome {
					e := event()
					e.ID = id
					return s.Send(t.Context(), tidings.Attempt{Event: e, Number: 1})
				}
				var sending sync.WaitGroup
				for i := range connections {
					sending.Go(func() {
						if o := send(fmt.Sprint(i)); o.Verdict != tidings.Delivered || o.Resent {
							t.Errorf("outcome = %+v", o)
						}
					})
				}
				sending.Wait()

				o := send("bad")
				if !o.Resent || (o.Verdict == tidings.Delivered) != recovers ||
					(!recovers && o.Reason != tidings.ReasonReset) {
					t.Errorf("outcome = %+v", o)
				}
				mu.Lock()
				defer mu.Unlock()
				came := requests["bad"]
				if len(came) != 2 || !opened[came[0]] || opened[came[1]] {
					t.Errorf("it came on %v; want twice, the second time on a connection other than %v", came,
						slices.Sorted(maps.Keys(opened)))
				}
			})
		}
	}
}

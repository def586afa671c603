package app_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

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

package reach_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/reach"
	"github.com/tidings-dev/tidings/internal/testtls"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/sender"
)

type object = map[string]any

// newSender returns a sender created as in the server, from a configuration
// file.
func newSender(t testing.TB, endpoint object) *sender.Sender {
	t.Helper()
	text, err := json.Marshal(object{"webhook": object{"endpoints": []any{endpoint}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tidings.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Input{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	receivers, err := cfg.Receivers()
	if err != nil {
		t.Fatal(err)
	}
	r := receivers[0]
	s, end, err := reach.Open(r.Endpoint.Endpoint, r.HTTP, reach.Options{
		Egress: cfg.EndpointEgress(), MaxConnectionAge: r.MaxConnectionAge,
		Sender: sender.Options{UserAgent: "Tidings/test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func attempt() tidings.Attempt {
	return tidings.Attempt{Number: 1, Event: tidings.Event{
		ID: "evt-1", Sequence: 7, Type: "provider", Action: tidings.Created, ResourceID: "p",
		ResourceURL: "/p", Time: time.Unix(0, 0),
	}}
}

// receiver is an HTTPS server at https://localhost.
func receiver(t testing.TB, c *tls.Config, http2 bool, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS, s.EnableHTTP2 = c, http2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
}

func noContent(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// listen handles connections one by one.
func listen(t testing.TB, answer func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.Map
	var handling sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		handling.Wait()
	})
	handling.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			handling.Go(func() { defer c.Close(); answer(c) })
		}
	})
	return l.Addr().String()
}

// TLS may fail in the handshake or, with TLS 1.3, on the first read. The reason
// is tls in both cases, and the endpoint is unreachable.
func TestTLSFailures(t *testing.T) {
	ca, other := testtls.NewCA(t), testtls.NewCA(t)
	good := ca.Issue("localhost")
	client, key := testtls.PEM(t, ca.Issue("client"))
	foreign, foreignKey := testtls.PEM(t, other.Issue("client"))
	server := func(cert tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}} }
	mutual := func(version uint16) *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
			MinVersion: version, MaxVersion: version,
		}
	}
	plain := httptest.NewServer(http.HandlerFunc(noContent))
	t.Cleanup(plain.Close)
	for name, tt := range map[string]struct {
		server *tls.Config
		url    string // instead of that of the server
		tls    object // of the client
		detail string
	}{
		"delivered": {server: server(good), tls: object{"ca": ca.PEM()}},
		"client certificate, TLS 1.3": {
			server: mutual(tls.VersionTLS13),
			tls:    object{"ca": ca.PEM(), "cert": client, "key": key},
		},
		"client certificate, TLS 1.2": {
			server: mutual(tls.VersionTLS12),
			tls:    object{"ca": ca.PEM(), "cert": client, "key": key},
		},
		"client certificate is missing, TLS 1.3": {
			server: mutual(tls.VersionTLS13), tls: object{"ca": ca.PEM()},
			detail: "refused the client certificate: certificate required",
		},
		"client certificate is missing, TLS 1.2": {
			server: mutual(tls.VersionTLS12), tls: object{"ca": ca.PEM()},
			detail: "the receiver ended TLS: handshake failure",
		},
		"client certificate is refused, TLS 1.3": {
			server: mutual(tls.VersionTLS13), tls: object{"ca": ca.PEM(), "cert": foreign, "key": foreignKey},
			detail: "refused the client certificate: ",
		},
		"client certificate is refused, TLS 1.2": {
			server: mutual(tls.VersionTLS12), tls: object{"ca": ca.PEM(), "cert": foreign, "key": foreignKey},
			detail: "refused the client certificate: ",
		},
		"unknown authority": {
			server: server(good), tls: object{"ca": other.PEM()},
			detail: "the certificate is signed by an unknown authority",
		},
		"system's authorities": {server: server(good), tls: object{}, detail: "signed by an unknown authority"},
		"expired": {
			server: server(ca.IssueUntil(time.Now().Add(-time.Minute), "localhost")),
			tls:    object{"ca": ca.PEM()}, detail: "the certificate expired on 20",
		},
		"another host": {
			server: server(ca.Issue("example.com")), tls: object{"ca": ca.PEM()},
			detail: "the certificate is not for localhost, but for example.com",
		},
		"protocol version": {
			server: &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12},
			tls:    object{"ca": ca.PEM(), "min_version": "TLS13"}, detail: "protocol version",
		},
		"plain HTTP": {
			url: strings.Replace(plain.URL, "http://", "https://", 1), tls: object{},
			detail: "does not speak TLS, but plain HTTP",
		},
		"not TLS": {
			url: "https://" +
				listen(t, func(c net.Conn) { fmt.Fprint(c, "220 smtp.example.com ESMTP\r\n") }), tls: object{},
			detail: "does not speak TLS",
		},
		"hangs up": {url: "https://" + listen(t, func(net.Conn) {}), tls: object{}},
		"never talks": {
			url: "https://" + listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), tls: object{},
			detail: "no connection in time",
		},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, http2), func(t *testing.T) {
				t.Parallel()
				url := tt.url
				if url == "" {
					url = receiver(t, tt.server.Clone(), http2, noContent)
				}
				timeout := "30s" // the system's authorities are loaded for the first one
				if name == "never talks" {
					timeout = "500ms"
				}
				s := newSender(t,
					object{"url": url, "timeout": timeout, "http": object{"tls_config": tt.tls, "enable_http2": http2}})
				want := tidings.Outcome{Verdict: tidings.Unreachable, Reason: tidings.ReasonTLS}
				if strings.HasPrefix(name, "client certificate, ") || name == "delivered" {
					want = tidings.Outcome{Verdict: tidings.Delivered}
				}
				for range 3 {
					o := s.Send(t.Context(), attempt())
					if o.Verdict != want.Verdict || o.Reason != want.Reason || !strings.Contains(o.Detail, tt.detail) {
						t.Fatalf("outcome = %v %q %q, want %v %q %q", o.Verdict, o.Reason, o.Detail,
							want.Verdict, want.Reason, tt.detail)
					}
				}
			})
		}
	}
}

// speak handles an HTTP/2 connection at the frame level: answer is called with
// the id of each stream once its headers have arrived.
func speak(t testing.TB, certificate tls.Certificate, answer func(f *http2.Framer, stream uint32)) string {
	t.Helper()
	address := listen(t, func(raw net.Conn) {
		c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := frame.(*http2.HeadersFrame); ok {
				answer(f, h.StreamID)
			}
		}
	})
	return "https://" + strings.Replace(address, "127.0.0.1", "localhost", 1)
}

// proxy is an HTTP proxy that responds to CONNECT with a status.
func proxy(t testing.TB, status string) string {
	return "http://" + listen(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status)
		}
	})
}

// after reads the beginning of a request, then responds.
func after(answer func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			answer(c)
		}
	}
}

// Any failure on the way counts as the endpoint's outage: unreachable.
func TestFailuresOnTheWay(t *testing.T) {
	ca := testtls.NewCA(t)
	good := ca.Issue("localhost")
	trust := object{"ca": ca.PEM()}
	server := httptest.NewServer(http.HandlerFunc(noContent))
	t.Cleanup(server.Close)
	secure := receiver(t, &tls.Config{Certificates: []tls.Certificate{good}}, false, noContent)
	silent := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	switching := listen(t, after(func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	}))
	tokenEndpoint := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	oauth2 := func(url string) object {
		return object{"oauth2": object{"client_id": "me", "client_secret": "hidden", "token_url": url}}
	}
	const nobody = "http://127.0.0.1:1"
	file := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte("hidden"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		url     string
		http    object
		missing func(path string) object // http settings with a file that vanishes
		reason  string
		detail  string // or the one after "|", of net/http
	}{
		"no such name":   {url: "http://nowhere.invalid", reason: "dns", detail: "no such host: nowhere.invalid"},
		"nobody listens": {url: nobody, reason: "connect", detail: "connection refused"},
		"reset": {
			url: "http://" +
				listen(t, after(func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) })), reason: "reset",
			detail: "the connection was reset by the receiver",
		},
		"hangs up": {
			url:    "http://" + listen(t, after(func(net.Conn) {})),
			reason: "reset", detail: "closed the connection without a response",
		},
		"no HTTP": {
			url: "http://" +
				listen(t, after(func(c net.Conn) { fmt.Fprint(c, "220 smtp.example.com ESMTP\r\n") })), reason: "reset",
			detail: "malformed HTTP",
		},
		"TLS on http": {
			url:    strings.Replace(speak(t, good, nil), "https://", "http://", 1),
			reason: "reset",
		},
		"half a header": {url: "http://" +
			listen(t, after(func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-") })), reason: "reset"},
		"header too large": {
			url: "http://" +
				listen(t,
					after(func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX: ", strings.Repeat("x", 1<<20)) })),
			reason: "reset", detail: "header has more than 64 KiB|headers exceeded",
		},
		"proxy: nobody": {
			url: secure, http: object{"proxy_url": nobody, "tls_config": trust},
			reason: "connect", detail: "connection refused",
		},
		"proxy: no credentials": {url: secure, http: object{
			"proxy_url":  proxy(t, "407 Proxy Authentication Required"),
			"tls_config": trust,
		}, reason: "connect", detail: "the proxy responded with 407"},
		"proxy: refuses": {
			url:  secure,
			http: object{"proxy_url": proxy(t, "403 Forbidden"), "tls_config": trust}, reason: "connect",
			detail: "the proxy responded with 403",
		},
		"proxy: bad gateway": {
			url:  secure,
			http: object{"proxy_url": proxy(t, "502 Bad Gateway"), "tls_config": trust}, reason: "connect",
			detail: "the proxy responded with 502",
		},
		"proxy: hangs up": {url: secure, http: object{
			"proxy_url":  "http://" + listen(t, func(net.Conn) {}),
			"tls_config": trust,
		}, reason: "connect"},
		"proxy: hangs": {
			url: secure, http: object{"proxy_url": "http://" + silent, "tls_config": trust},
			reason: "connect", detail: "no connection in time",
		},
		"proxy: plain, hangs up": {
			url:  server.URL,
			http: object{"proxy_url": "http://" + listen(t, after(func(net.Conn) {}))}, reason: "reset",
		},
		"proxy: SOCKS": {
			url: secure,
			http: object{
				"proxy_url":  "socks5://" + listen(t, func(c net.Conn) { fmt.Fprint(c, "\x05\xff") }),
				"tls_config": trust,
			}, reason: "connect",
		},
		"HTTP/2: REFUSED_STREAM": {
			url: speak(t, good,
				func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }),
			http: object{"tls_config": trust, "enable_http2": true}, reason: "reset", detail: "refused the request",
		},
		"HTTP/2: GOAWAY": {
			url:  speak(t, good, func(f *http2.Framer, _ uint32) { _ = f.WriteGoAway(0, http2.ErrCodeNo, nil) }),
			http: object{"tls_config": trust, "enable_http2": true}, reason: "reset", detail: "refused the request",
		},
		"HTTP/2: GOAWAY with an error": {
			url: speak(t, good, func(f *http2.Framer, stream uint32) {
				_ = f.WriteGoAway(stream, http2.ErrCodeEnhanceYourCalm, []byte("too\nmany"))
			}),
			http: object{"tls_config": trust, "enable_http2": true}, reason: "reset",
		},
		"HTTP/2: stream is reset": {
			url: speak(t, good,
				func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeInternal) }),
			http: object{"tls_config": trust, "enable_http2": true}, reason: "reset", detail: "INTERNAL_ERROR",
		},
		"HTTP/2: nonsense": {
			url: speak(t, good, func(f *http2.Framer, stream uint32) {
				_ = f.WriteRawFrame(http2.FrameSettings, 0, stream, nil)
			}),
			http: object{"tls_config": trust, "enable_http2": true}, reason: "reset", detail: "PROTOCOL_ERROR",
		},
		"OAuth2: refuses": {
			url: server.URL, http: oauth2(tokenEndpoint(401, `{"error":"invalid_client"}`)),
			reason: "credentials", detail: "token endpoint responded with 401 invalid_client",
		},
		"OAuth2: in trouble": {
			url: server.URL, http: oauth2(tokenEndpoint(500, "hidden")), reason: "credentials",
			detail: "token endpoint responded with 500",
		},
		"OAuth2: redirects": {
			url: server.URL, http: oauth2(tokenEndpoint(302, "")), reason: "credentials",
			detail: "token endpoint responded with 302",
		},
		"OAuth2: switches": {
			url: server.URL, http: oauth2("http://" + switching), reason: "credentials",
			detail: "token endpoint responded with 101",
		},
		"OAuth2: no token": {
			url: server.URL, http: oauth2(tokenEndpoint(200, `{}`)), reason: "credentials",
			detail: "token endpoint",
		},
		"OAuth2: no JSON": {
			url: server.URL, http: oauth2(tokenEndpoint(200, "hidden")), reason: "credentials",
			detail: "token endpoint",
		},
		"OAuth2: nobody": {
			url: server.URL, http: oauth2(nobody + "/?key=hidden"), reason: "credentials",
			detail: "connection refused",
		},
		"OAuth2: no such name": {
			url: server.URL, http: oauth2("http://nowhere.invalid"), reason: "credentials",
			detail: "nowhere.invalid",
		},
		"OAuth2: hangs": {
			url: server.URL, http: oauth2("http://" + silent), reason: "credentials",
			detail: "no credentials within",
		},
		"bearer token's file": {
			url:     server.URL,
			missing: func(path string) object { return object{"authorization": object{"credentials_file": path}} },
			reason:  "credentials", detail: "no such file",
		},
		"password's file": {
			url: server.URL,
			missing: func(path string) object {
				return object{"basic_auth": object{
					"username":      "me",
					"password_file": path,
				}}
			}, reason: "credentials", detail: "no such file",
		},
		"header's file": {
			url: server.URL,
			missing: func(path string) object {
				return object{"http_headers": object{"X-Key": object{"files": []any{path}}}}
			},
			reason: "credentials", detail: "no such file",
		},
		"client secret's file": {url: server.URL, missing: func(path string) object {
			return object{"oauth2": object{"client_id": "me", "client_secret_file": path, "token_url": server.URL}}
		}, reason: "credentials", detail: "no such file"},
		"authority's file": {url: secure, missing: func(path string) object {
			if err := os.WriteFile(path, []byte(ca.PEM()), 0o600); err != nil {
				panic(err)
			}
			return object{"tls_config": object{"ca_file": path}}
		}, reason: "credentials", detail: "no such file"},
	} {
		both := []bool{false, true}
		if strings.HasPrefix(name, "HTTP/2") {
			both = both[1:]
		}
		for _, http2 := range both { // with our own exchange, and with net/http's
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", name, http2), func(t *testing.T) {
				t.Parallel()
				settings, vanishes := tt.http, ""
				if tt.missing != nil {
					vanishes = file(t)
					settings = tt.missing(vanishes)
				}
				if settings == nil {
					settings = object{}
				}
				settings = maps.Clone(settings)
				settings["enable_http2"] = http2
				timeout := "500ms"
				if strings.HasPrefix(name, "HTTP/2") {
					timeout = "3s" // net/http tries again itself
				}
				s := newSender(t, object{"url": tt.url, "timeout": timeout, "http": settings})
				if vanishes != "" {
					if err := os.Remove(vanishes); err != nil {
						t.Fatal(err)
					}
				}
				begun := time.Now()
				o := s.Send(t.Context(), attempt())
				detailed := slices.ContainsFunc(strings.Split(tt.detail, "|"),
					func(d string) bool { return strings.Contains(o.Detail, d) })
				if o.Verdict != tidings.Unreachable || o.Reason != tt.reason || !detailed {
					t.Errorf("outcome = %v %q %q, want unreachable %q %q", o.Verdict, o.Reason,
						o.Detail, tt.reason, tt.detail)
				}
				if strings.Contains(o.Detail, "hidden") || strings.Contains(o.Detail, "\n") || len(o.Detail) > 300 {
					t.Errorf("detail = %q", o.Detail)
				}
				if took := time.Since(begun); took > testtool.Allow(10*time.Second) {
					t.Errorf("took %v", took)
				}
			})
		}
	}
}

package remote_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/remote"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/sender"
)

// asks lists all ways in which a user's URL is requested.
var asks = map[string]func(ctx context.Context, c *remote.Client, location string) error{
	"agent card": func(ctx context.Context, c *remote.Client, location string) error {
		_, err := c.Fetch(ctx, location)
		return err
	},
	"models": func(ctx context.Context, c *remote.Client, location string) error {
		_, err := c.Models(ctx, resource.ModelSource{Type: "openai", BaseURL: location, APIKey: "hidden-key"})
		return err
	},
	"models of Anthropic": func(ctx context.Context, c *remote.Client, location string) error {
		_, err := c.Models(ctx, resource.ModelSource{Type: "anthropic", BaseURL: location, APIKey: "hidden-key"})
		return err
	},
	"MCP": func(ctx context.Context, c *remote.Client, location string) error { return c.Initialize(ctx, location) },
}

// serve listens with plain TCP.
func serve(t *testing.T, do func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				do(c)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// Whatever a server responds, the user is told only one of the listed reasons;
// the response is for the log, truncated.
func TestReasons(t *testing.T) {
	const banner = "220 smtp.internal ready"
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		fmt.Fprint(w, `{"name":"an internal document","data":[{"id":"x"}]}`)
	}))
	t.Cleanup(other.Close)
	answers := func(handler http.HandlerFunc) string {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		return s.URL
	}
	status := func(code int) string {
		return answers(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, banner)
		})
	}
	redirect := func(code int) string {
		return answers(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+r.URL.Path, code) })
	}
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)
	const nobody = "http://127.0.0.1:1"
	for name, test := range map[string]struct {
		location string
		want     resource.RemoteReason
	}{
		"301": {redirect(301), resource.RemoteRedirects},
		"302": {redirect(302), resource.RemoteRedirects},
		"303": {redirect(303), resource.RemoteRedirects},
		"307": {redirect(307), resource.RemoteRedirects},
		"308": {redirect(308), resource.RemoteRedirects},
		"401": {status(401), resource.RemoteUnauthorized},
		"403": {status(403), resource.RemoteUnauthorized},
		"404": {status(404), resource.RemoteRefuses},
		"405": {status(405), resource.RemoteRefuses},
		"418": {status(418), resource.RemoteRefuses},
		"500": {status(500), resource.RemoteRefuses},
		"503": {status(503), resource.RemoteRefuses},
		"large headers": {answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 128<<10))
			fmt.Fprint(w, `{"name":"Echo","data":[]}`)
		}), resource.RemoteUnreachable},
		"a page":                     {status(200), resource.RemoteUnusable},
		"a banner":                   {serve(t, func(c net.Conn) { fmt.Fprintln(c, banner) }), resource.RemoteUnreachable},
		"nothing":                    {serve(t, func(net.Conn) {}), resource.RemoteUnreachable},
		"nobody":                     {nobody, resource.RemoteUnreachable},
		"no such name":               {"http://nowhere.invalid", resource.RemoteUnreachable},
		"an untrusted certificate":   {untrusted.URL, resource.RemoteUntrusted},
		"TLS to a plain-text server": {strings.Replace(status(200), "http:", "https:", 1), resource.RemoteUnreachable},
		"a private address":          {"http://10.255.255.1", resource.RemoteBlocked},
		"metadata":                   {"http://169.254.169.254", resource.RemoteBlocked},
		"metadata by NAT64":          {"http://[64:ff9b::169.254.169.254]", resource.RemoteBlocked},
		"a zone":                     {"http://[fe80::1%25lo]", resource.RemoteBlocked},
		"no URL":                     {"http://[::1", resource.RemoteUnusable},
	} {
		for kind, ask := range asks {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				err := ask(t.Context(), newClient(t, loopback()), test.location)
				got := reasonOf(err)
				if got != test.want && (name != "no URL" || kind != "MCP" || got != resource.RemoteUnreachable) {
					t.Errorf("reason %q, want %q; cause: %v", got, test.want, cause(err))
				}
				if strings.Contains(fmt.Sprint(err), "220") || strings.Contains(cause(err), "hidden-key") {
					t.Errorf("error %v, cause %q", err, cause(err))
				}
			})
		}
	}
	t.Cleanup(func() {
		if n := elsewhere.Load(); n > 0 {
			t.Errorf("%d redirects were followed", n)
		}
	})
}

func cause(err error) string {
	if e, ok := err.(*resource.RemoteError); ok { //nolint:errorlint // it is returned unwrapped
		return e.Cause.Error()
	}
	return ""
}

// A proxy could reach addresses that the rule forbids, so none is used.
func TestNoProxy(t *testing.T) {
	if os.Getenv("HTTP_PROXY") != "" && os.Getenv("NO_PROXY") == "nobody.invalid" { // in the process started below
		c := newClient(t, loopback())
		for kind, ask := range asks {
			if got := reasonOf(ask(t.Context(), c, "http://169.254.169.254")); got != resource.RemoteBlocked {
				t.Errorf("%s: %q", kind, got)
			}
		}
		return
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the proxy was asked for %s", r.URL)
		fmt.Fprint(w, `{"name":"internal","data":[]}`)
	}))
	defer proxy.Close()
	// A process reads these variables once.
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoProxy$", "-test.v")
	cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy.URL, "http_proxy=", "NO_PROXY=nobody.invalid", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestNoProxy") {
		t.Errorf("%v\n%s", err, out)
	}
}

// No server can use more than a little memory and the time limit.
func TestHostileServers(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	blanks := bytes.Repeat([]byte(" "), 1<<20)
	for range 100 {
		if _, err := z.Write(blanks); err != nil {
			t.Fatal(err)
		}
	}
	z.Close()
	forever := func(w http.ResponseWriter, r *http.Request, text []byte) {
		for r.Context().Err() == nil {
			if _, err := w.Write(text); err != nil {
				return
			}
		}
	}
	header := func(kind string, do http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			do(w, r)
		}
	}
	streams := func(kind, text string) http.HandlerFunc {
		chunk := []byte(strings.Repeat(text, 64<<10/len(text)))
		return header(kind, func(w http.ResponseWriter, r *http.Request) { forever(w, r, chunk) })
	}
	pings := func() string {
		var n atomic.Int64
		var text strings.Builder
		for text.Len() < 512<<10 {
			fmt.Fprintf(&text, "data: {\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"ping\"}\n\n", n.Add(1))
		}
		return text.String()
	}()
	servers := map[string]http.HandlerFunc{
		"blanks":         streams("application/json", " "),
		"blank events":   streams("text/event-stream", "\n"),
		"events":         streams("text/event-stream", "event: x\ndata: {}\n\n"),
		"one long event": streams("text/event-stream", "data: x"),
		"one long line":  streams("text/event-stream", "x"),
		"comments":       streams("text/event-stream", ": x\n"),
		"requests": header("text/event-stream",
			func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, pings) }),
		"an array":        streams("application/json", "[{},"),
		"an error's body": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); forever(w, r, blanks) },
		"gzip bomb": header("application/json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}),
		"gzip bomb of an error": header("application/json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(bomb.Bytes())
		}),
		"a length": header("application/json", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(1<<40))
			forever(w, r, blanks)
		}),
		"a drip": header("application/json", func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				<-tick.C
			}
		}),
		"silence": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // to notice the end of the request
			<-r.Context().Done()
		},
	}
	locations := make(map[string]string)
	for name, handler := range servers {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		locations[name] = s.URL
	}
	locations["another protocol"] = serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	line := strings.Repeat("x", 1<<10) + "\r\n"
	locations["headers"] = serve(t, func(c net.Conn) {
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for err == nil {
			_, err = io.WriteString(c, "X-Header: "+line)
		}
	})
	locations["early hints"] = serve(t, func(c net.Conn) {
		var err error
		for err == nil {
			_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: "+line+"\r\n")
		}
	})
	locations["trailers"] = serve(t, func(c net.Conn) {
		_, err := io.WriteString(c,
			"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
		for err == nil {
			_, err = io.WriteString(c, "X-Trailer: "+line)
		}
	})
	var started, ended runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&started)
	var asking sync.WaitGroup
	for name, location := range locations {
		for kind, ask := range asks {
			asking.Go(func() {
				began := time.Now()
				err := ask(context.Background(), newClient(t, loopback()), location)
				if took := time.Since(began); took > testtool.Allow(15*time.Second) {
					t.Errorf("%s, %s: took %v", name, kind, took)
				}
				switch reasonOf(err) {
				case resource.RemoteUnusable, resource.RemoteSlow, resource.RemoteUnreachable, resource.RemoteRefuses:
				default:
					t.Errorf("%s, %s: reason %q", name, kind, reasonOf(err))
				}
			})
		}
	}
	asking.Wait()
	runtime.ReadMemStats(&ended)
	// This includes the servers' own share.
	if used := (ended.TotalAlloc - started.TotalAlloc) >> 20; used > 1<<10 {
		t.Errorf("%d MiB were allocated for %d requests", used, len(locations)*len(asks))
	} else {
		t.Logf("%d MiB allocated for %d requests", used, len(locations)*len(asks))
	}
}

// A compressed response is read; a session ends after few requests, all to the
// same server.
func TestCompressedAnswer(t *testing.T) {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, cardOf(strings.Repeat("x", 900<<10)))
		z.Close()
	}))
	defer agent.Close()
	if card, err := newClient(t, loopback()).Fetch(t.Context(), agent.URL); err != nil || len(card) < 900<<10 {
		t.Errorf("%d bytes, %v", len(card), err)
	}
}

// Connections are bounded: only a few are kept for servers that are no longer
// used, and none after a change of the rule.
func TestConnections(t *testing.T) {
	var open atomic.Int32
	c := newClient(t, loopback())
	var last string
	for range 40 {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter,
			_ *http.Request,
		) {
			fmt.Fprint(w, cardOf(""))
		}))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}
		s.Start()
		t.Cleanup(s.Close)
		last = s.URL
		if _, err := c.Fetch(t.Context(), s.URL); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(most int32) {
		t.Helper()
		for deadline := time.Now().Add(testtool.Allow(10 * time.Second)); open.Load() > most; {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections are open, want at most %d", open.Load(), most)
			}
			<-time.After(time.Millisecond)
		}
	}
	wait(32)
	c.SetEgress(sender.Egress{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	wait(0)
	if _, err := c.Fetch(t.Context(), last); reasonOf(err) != resource.RemoteBlocked {
		t.Errorf("after a change of the rule: %v", err)
	}
}

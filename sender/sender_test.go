package sender_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
	"github.com/tidings-dev/tidings/sender"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func newSender(t *testing.T, e tidings.Endpoint, egress sender.Egress) *sender.Sender {
	t.Helper()
	e.MaxInFlight = max(e.MaxInFlight, 1)
	dialer := sender.NewDialer(egress, e.MaxInFlight, time.Second)
	t.Cleanup(func() { dialer.Close() })
	transport := sender.NewTransport(sender.TransportOptions{Dialer: dialer, Timeout: e.Timeout})
	s, err := sender.New(e, &http.Client{Transport: transport}, sender.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func event() tidings.Event {
	return tidings.Event{
		ID: "evt-1", Sequence: 7, Type: "provider", Action: tidings.Created,
		ResourceID: "p", ResourceURL: "/api/v1/providers/p", UserID: "u",
		Time: time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC), ResourceVersion: 3,
	}
}

func TestRequest(t *testing.T) {
	var header http.Header
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	s := newSender(t, tidings.Endpoint{
		URL: server.URL, Secrets: []string{secret},
		Headers: http.Header{"Authorization": {"Bearer x"}, "user-agent": {"mine"}, "tidings-attempt": {"configured"}},
	}, sender.Egress{})
	if o := s.Send(t.Context(), tidings.Attempt{Event: event(), Number: 2}); o.Verdict != tidings.Delivered ||
		o.Status != 200 {
		t.Fatalf("outcome = %+v", o)
	}
	if diff := cmp.Diff(string(event().AppendJSON(nil)), string(body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(header, body); err != nil {
		t.Errorf("signature: %v", err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "mine", "Authorization": "Bearer x",
		"Webhook-Id": "evt-1", "Tidings-Sequence": "7", "Tidings-Attempt": "configured",
		"Tidings-Resource-Version": "3", "X-Idempotency-Key": "",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestClassifyEveryStatus(t *testing.T) {
	special := map[int]tidings.Verdict{
		401: tidings.Unauthorized, 403: tidings.Unauthorized, 407: tidings.Unauthorized, 410: tidings.Gone,
		413: tidings.Rejected, 415: tidings.Rejected, 429: tidings.Throttled, 503: tidings.Throttled,
	}
	classes := map[int]tidings.Verdict{
		1: tidings.Failed, 2: tidings.Delivered, 3: tidings.Refused,
		4: tidings.Refused, 5: tidings.Failed,
	}
	for status := 100; status < 600; status++ {
		want, ok := special[status]
		if !ok {
			want = classes[status/100]
		}
		reason := "http_" + strconv.Itoa(status)
		switch status / 100 {
		case 2:
			reason = ""
		case 3:
			reason = tidings.ReasonRedirect
		}
		if got := sender.Classify(status, "", time.Now()); got.Verdict != want || got.Reason != reason {
			t.Errorf("%d = %v %q, want %v %q", status, got.Verdict, got.Reason, want, reason)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		status  int
		text    string
		verdict tidings.Verdict
		pause   time.Duration
	}{
		{429, "30", tidings.Throttled, 30 * time.Second},
		{503, "30", tidings.Throttled, 30 * time.Second},
		{503, "Thu, 26 Mar 2026 12:02:00 GMT", tidings.Throttled, 2 * time.Minute},
		{503, "Thu, 26 Mar 2026 11:00:00 GMT", tidings.Throttled, 0},
		{503, "86400", tidings.Throttled, time.Hour},
		{503, "soon", tidings.Throttled, 0},
		{503, "-1", tidings.Throttled, 0},
		{503, "", tidings.Throttled, 0},
		{500, "30", tidings.Failed, 0},
	} {
		got := sender.Classify(tt.status, tt.text, now)
		if got.Verdict != tt.verdict || got.RetryAfter != tt.pause {
			t.Errorf("%d, %q = %v %v, want %v %v", tt.status, tt.text, got.Verdict,
				got.RetryAfter, tt.verdict, tt.pause)
		}
	}
}

// serve handles connections one by one.
func serve(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var handling sync.WaitGroup
	t.Cleanup(func() { l.Close(); handling.Wait() })
	handling.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handling.Go(func() { defer c.Close(); answer(c) })
		}
	})
	return "http://" + l.Addr().String()
}

func TestFailures(t *testing.T) {
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	reset := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	late := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1)) // a response before the request would be ignored
		<-time.After(200 * time.Millisecond)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
		hang(c)
	}
	cut := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nthe beginning")
	}
	switches := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		hang(c)
	}
	promises := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		for _, err := fmt.Fprint(c, "HTTP/1.1 102 Processing\r\n\r\n"); err == nil; {
			<-time.After(10 * time.Millisecond)
			_, err = fmt.Fprint(c, "HTTP/1.1 102 Processing\r\n\r\n")
		}
	}
	trailers := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		fmt.Fprint(c, "HTTP/1.1 500 Broken\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: 1\r\n")
		hang(c)
	}
	for name, tt := range map[string]struct {
		url     string
		verdict tidings.Verdict
		reason  string
	}{
		"nobody listens": {"http://127.0.0.1:1", tidings.Unreachable, tidings.ReasonConnect},
		"no such host":   {"http://nowhere.invalid", tidings.Unreachable, tidings.ReasonDNS},
		"no TLS": {
			"https" + serve(t, func(c net.Conn) { fmt.Fprint(c, "hello") })[4:],
			tidings.Unreachable, tidings.ReasonTLS,
		},
		"hangs":         {serve(t, hang), tidings.Failed, tidings.ReasonTimeout},
		"resets":        {serve(t, reset), tidings.Unreachable, tidings.ReasonReset},
		"switches":      {serve(t, switches), tidings.Failed, "http_101"},
		"only promises": {serve(t, promises), tidings.Failed, tidings.ReasonTimeout},
		"slow trailers": {serve(t, trailers), tidings.Failed, "http_500"},
		"cut response":  {serve(t, cut), tidings.Failed, tidings.ReasonReset},
		"slow response": {serve(t, late), tidings.Failed, tidings.ReasonResponseTooSlow},
		"metadata":      {"http://169.254.169.254/", tidings.Blocked, tidings.ReasonBlockedAddress},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSender(t, tidings.Endpoint{URL: tt.url, Timeout: 300 * time.Millisecond}, sender.Egress{})
			o := s.Send(t.Context(), tidings.Attempt{Event: event(), Number: 1})
			if o.Verdict != tt.verdict || o.Reason != tt.reason {
				t.Errorf("outcome = %v %q, want %v %q", o.Verdict, o.Reason, tt.verdict, tt.reason)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	arrived := make(chan struct{})
	url := serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		close(arrived)
		_, _ = io.Copy(io.Discard, c)
	})
	go func() { <-arrived; cancel() }()
	s := newSender(t, tidings.Endpoint{URL: url}, sender.Egress{})
	if o := s.Send(ctx, tidings.Attempt{Event: event(), Number: 1}); o.Verdict != tidings.Interrupted {
		t.Errorf("outcome = %+v", o)
	}
}

// There are never more than max_in_flight connections at once, even if more
// requests are sent, and they are reused. The total is up to net/http: if it
// does not learn within 50 ms that a request was written, because the machine
// is busy, it closes the connection and opens another.
func TestConnectionsStayWithinMaxInFlight(t *testing.T) {
	const limit, senders, deliveries = 8, 16, 4_000
	dialer := sender.NewDialer(sender.Egress{}, limit, 10*time.Second)
	defer dialer.Close()
	var most, opened atomic.Int64
	look := func() {
		for n := int64(dialer.Open()); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				return
			}
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		look()
		w.WriteHeader(204)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
			look()
		}
	}
	server.Start()
	defer server.Close()
	client := &http.Client{Transport: sender.NewTransport(sender.TransportOptions{Dialer: dialer})}
	s, err := sender.New(tidings.Endpoint{URL: server.URL, MaxInFlight: limit}, client, sender.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for range deliveries / senders {
				if o := s.Send(t.Context(),
					tidings.Attempt{Event: event(), Number: 1}); o.Verdict != tidings.Delivered {
					t.Errorf("outcome = %+v", o)
					return
				}
			}
		})
	}
	sending.Wait()
	if n := most.Load(); n > limit {
		t.Errorf("%d connections at once, want at most %d", n, limit)
	}
	if n := opened.Load(); n > deliveries/100 {
		t.Errorf("%d connections opened for %d deliveries: they are not reused", n, deliveries)
	}
}

// A dialer keeps no state for unused addresses: redirects, proxies and changed
// names may bring any number of them.
func TestDialerForgetsAddresses(t *testing.T) {
	dialer := sender.NewDialer(sender.Egress{}, 1, 10*time.Second)
	defer dialer.Close()
	for range 20 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if n := dialer.Slots(); n != 1 {
			t.Fatalf("%d addresses with one connection", n)
		}
		full, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := dialer.DialContext(full, "tcp", listener.Addr().String()); err == nil {
			t.Fatal("a second connection beyond the limit")
		}
		if err := errors.Join(conn.Close(), listener.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String()); err == nil {
			t.Fatal("a connection to a closed port")
		}
	}
	if n := dialer.Slots(); n != 0 {
		t.Errorf("%d addresses without a connection", n)
	}
}

// A receiver that echoes requests does not put secrets into the history,
// wherever its response is truncated.
func TestResponseHoldsNoSecrets(t *testing.T) {
	before := 0 // blanks
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Repeat(" ", before), r.URL, "|", r.Header.Get("X-Key"), "|",
			r.Header.Get("Authorization"), "|", r.Header.Get("Webhook-Id"))
	}))
	defer echo.Close()
	s := newSender(t, tidings.Endpoint{
		URL:     strings.Replace(echo.URL, "//", "//user:hidden-password@", 1) + "/hook?token=hidden-token",
		Headers: http.Header{"X-Key": {"hidden-key"}},
	}, sender.Egress{})
	encoded := base64.StdEncoding.EncodeToString([]byte("user:hidden-password"))
	for ; before < 1<<10; before = max(before+1, 900) {
		o := s.Send(t.Context(), tidings.Attempt{Event: event(), Number: 1})
		text := strings.TrimSpace(string(o.Response))
		if o.Verdict != tidings.Delivered || strings.Contains(text, "hidden") || strings.Contains(text, encoded[:6]) {
			t.Errorf("after %d blanks: %v, %q", before, o.Verdict, text)
		}
		if want := "/hook?token=<secret>|<secret>|Basic <secret>|evt-1"; before == 0 && text != want {
			t.Errorf("%q, want %q", text, want)
		}
	}
}

func TestFormats(t *testing.T) {
	const data = `"data":{"id":"evt-1","sequence":7,"resource_version":3,"resource_type":"provider",` +
		`"resource_id":"p","resource_url":"/api/v1/providers/p","user_id":"u"}}`
	for format, want := range map[tidings.Format]string{
		tidings.Standard: `{"type":"provider.created","timestamp":"2026-03-26T12:00:00Z",` + data,
		tidings.CloudEvents: `{"specversion":"1.0","id":"evt-1","type":"com.example.provider.created",` +
			`"source":"/","subject":"provider/p",` +
			`"time":"2026-03-26T12:00:00Z","sequence":"00000000000000000007","partitionkey":"provider/p",` +
			`"datacontenttype":"application/json",` + data,
	} {
		var body []byte
		server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body,
				_ = io.ReadAll(r.Body)
		}))
		s := newSender(t, tidings.Endpoint{URL: server.URL, Format: format, EventPrefix: "com.example."},
			sender.Egress{})
		s.Send(t.Context(), tidings.Attempt{Event: event(), Number: 1})
		server.Close()
		if diff := cmp.Diff(want, string(body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
}

package sender_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/sender"
)

// seen is the part of an outcome that is the same over both transports. The detail differs,
// because net/http words its errors differently.
type seen struct {
	verdict tidings.Verdict
	reason  string
	status  int
	body    string
}

// script is what a receiver does on its first connection: it answers each of two
// requests with some bytes, whatever they are, and closes. On further connections it
// answers 204.
type script struct {
	answers [2][]byte
	reset   bool // instead of an orderly end
}

// Each script listens on this address: with a new one each time, a fuzzer uses up the
// system's ports within a minute.
var (
	address  sync.Once
	loopback string
)

// play sends two attempts to the receiver of a script.
func (s *script) play(tb testing.TB, own bool) (outcomes [2]seen) {
	tb.Helper()
	address.Do(func() { loopback = testtool.FreeAddress(tb) })
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for first := true; ; first = false {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(c, first)
		}
	}()
	dialer := sender.NewDialer(sender.Egress{}, 2, time.Second)
	transport := sender.NewTransport(sender.TransportOptions{Dialer: dialer, HTTP2: !own}) // HTTP2 is for https
	to, err := sender.New(tidings.Endpoint{Name: "x", URL: "http://" + l.Addr().String(), Timeout: 2 * time.Second},
		&http.Client{Transport: transport}, sender.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range outcomes {
		o := to.Send(tb.Context(), tidings.Attempt{Event: event(), Number: 1})
		outcomes[i] = seen{o.Verdict, o.Reason, o.Status, string(o.Response)}
	}
	if err := dialer.Close(); err != nil {
		tb.Error(err)
	}
	l.Close()
	<-served
	return outcomes
}

func (s *script) serve(c net.Conn, first bool) {
	defer c.Close()
	r := bufio.NewReader(c)
	for _, answer := range s.answers {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		if !first {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			return
		}
		if len(answer) == 0 && s.reset {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		if _, err := c.Write(answer); err != nil || len(answer) == 0 {
			return
		}
		if !complete(answer) {
			return
		}
	}
}

// complete reports whether a response ends by itself, so that its connection stays open.
func complete(answer []byte) bool {
	r := bufio.NewReader(strings.NewReader(string(answer)))
	for {
		response, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
		if err != nil {
			return false
		}
		if response.StatusCode/100 != 1 {
			_, err := io.Copy(io.Discard, response.Body)
			return err == nil && response.ContentLength != -1 && !response.Close
		}
	}
}

// unsolicited reports whether there is more after a complete response.
func unsolicited(answer []byte) bool {
	r := bufio.NewReader(strings.NewReader(string(answer)))
	for {
		response, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
		if err != nil {
			return false
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return false
		}
		if response.StatusCode/100 != 1 {
			_, err := r.Peek(1)
			return err == nil
		}
	}
}

// answers are responses that receivers send.
var answers = []string{
	"",
	"HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
	"HTTP/1.1 200 OK\r\n\r\nuntil the end",
	"HTTP/1.0 200 OK\r\n\r\nold",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold",
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n" +
		"Retry-After: 3\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
	"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\n\r\n",
	"HTTP/1.1 999 Strange\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 20 OK\r\n\r\n",
	"HTTP/1.1 004 No Content\r\n\r\n",
	"HTTP/1.1 000 \r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
	"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
	"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
	"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
	"HTTP/1.1 200 OK\r\nBad Header: x\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10) + "\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + strings.Repeat("x", 70000),
	"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
	"SSH-2.0-OpenSSH_9.2\r\n",
	"\x15\x03\x01\x00\x02\x02\x16",
	"\r\n\r\n",
}

// compare plays a script over both transports. A difference counts if it occurs three
// times: whether net/http reuses a connection depends on when its writer's goroutine runs.
func (s *script) compare(tb testing.TB) {
	tb.Helper()
	var own, other [2]seen
	for range 3 {
		if own, other = s.play(tb, true), s.play(tb, false); own == other {
			return
		}
	}
	tb.Errorf("%.200q, reset %t:\n%.200q: ours\n%.200q: net/http's", s.answers, s.reset,
		fmt.Sprint(own), fmt.Sprint(other))
}

// Whatever a receiver sends, our own exchange and net/http's lead to the same outcome.
func TestExchangesAgree(t *testing.T) {
	for _, first := range answers {
		for i, second := range []string{answers[1], first, ""} {
			s := &script{answers: [2][]byte{[]byte(first), []byte(second)}, reset: i == 2}
			s.compare(t)
		}
	}
}

// A response that is cut off after any byte has the same outcome with both.
func TestCutAnswersAgree(t *testing.T) {
	for _, i := range []int{2, 9, 12} {
		for n := range answers[i] {
			s := &script{answers: [2][]byte{[]byte(answers[i][:n]), []byte(answers[1])}}
			s.compare(t)
		}
	}
}

func FuzzExchange(f *testing.F) {
	for _, a := range answers {
		f.Add([]byte(a), []byte(answers[1]), false)
		f.Add([]byte(answers[2]), []byte(a), true)
	}
	f.Fuzz(func(t *testing.T, first, second []byte, reset bool) {
		if unsolicited(first) {
			t.Skip("bytes after a response may or may not be read as the next one")
		}
		s := &script{answers: [2][]byte{first, second}, reset: reset}
		s.compare(t)
	})
}

// An idle connection that the receiver has closed is closed within a moment, not at the
// next request.
func TestIdleConnectionIsClosedWithTheReceivers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			ended <- err
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err = io.Copy(io.Discard, c) // until the sender closes, too
		ended <- err
	}()
	dialer := sender.NewDialer(sender.Egress{}, 2, time.Second)
	defer dialer.Close()
	to, err := sender.New(tidings.Endpoint{Name: "x", URL: "http://" + l.Addr().String()},
		&http.Client{Transport: sender.NewTransport(sender.TransportOptions{Dialer: dialer})}, sender.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if o := to.Send(t.Context(), tidings.Attempt{Event: event(), Number: 1}); o.Verdict != tidings.Delivered {
		t.Fatal(o)
	}
	if err := <-ended; err != nil {
		t.Errorf("the sender keeps its side open: %v", err)
	}
}

type wrapper struct{ http.RoundTripper }

// A transport within another one reuses its connections, too, although each request has
// a context of its own.
func TestWrappedTransportReusesConnections(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}))
	defer server.Close()
	for name, wrap := range map[string]func(http.RoundTripper) http.RoundTripper{
		"bare":    func(rt http.RoundTripper) http.RoundTripper { return rt },
		"wrapped": func(rt http.RoundTripper) http.RoundTripper { return wrapper{rt} },
	} {
		dialer := sender.NewDialer(sender.Egress{}, 2, time.Second)
		defer dialer.Close()
		transport := wrap(sender.NewTransport(sender.TransportOptions{Dialer: dialer}))
		to, err := sender.New(tidings.Endpoint{Name: "x", URL: server.URL},
			&http.Client{Transport: transport}, sender.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			o := to.Send(t.Context(), tidings.Attempt{Event: event(), Number: 1})
			if o.Verdict != tidings.Delivered || o.Resent || (i > 0) == (o.Timing.Connect > 0) {
				t.Errorf("%s, attempt %d: %+v", name, i+1, o)
			}
		}
	}
}

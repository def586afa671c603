package sender

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/tidings-dev/tidings/internal/unread"
)

// exchanger is an [http.RoundTripper] that speaks HTTP/1.1. net/http's transport
// needs two goroutines for each connection and hands each request over four times;
// an exchanger writes a request in one piece and reads its response in the
// caller's goroutine.
type exchanger struct {
	options TransportOptions
	slots   chan struct{} // one for each request in flight

	mu   sync.Mutex
	idle []*link // most recently used last
	// epoch grows when all connections are renewed, which is due at a time.
	epoch int
	until time.Time
	sweep *time.Timer // runs while there are idle connections
}

func newExchanger(o TransportOptions) *exchanger {
	o.TLS = o.TLS.Clone()
	if o.TLS == nil {
		o.TLS = &tls.Config{}
	}
	o.TLS.NextProtos = []string{"http/1.1"}
	return &exchanger{options: o, slots: make(chan struct{}, o.Dialer.limit)}
}

// errNoResponse means that a connection ended before the first byte of a response.
var errNoResponse = errors.New("the receiver closed the connection without a response")

// RoundTrip implements [http.RoundTripper].
func (x *exchanger) RoundTrip(r *http.Request) (*http.Response, error) {
	head, err := appendHead(make([]byte, 0, 1<<10), r)
	if err != nil {
		return nil, err
	}
	message, err := appendBody(head, r)
	if err != nil {
		return nil, err
	}
	return x.do(r, stepsOf(r), message)
}

// do sends a message, the request as it is written, and returns the response.
func (x *exchanger) do(r *http.Request, s *steps, message []byte) (*http.Response, error) {
	s.asks()
	if err := x.enter(r.Context()); err != nil {
		return nil, err
	}
	response, err := x.resend(r, s, message)
	if err != nil || response.Body == http.NoBody {
		<-x.slots
	}
	return response, err
}

// enter waits for a free connection.
func (x *exchanger) enter(ctx context.Context) error {
	select {
	case x.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case x.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &net.OpError{Op: "dial", Net: "tcp", Err: errNoneFree}
	}
}

// resend sends a message once more on a new connection if one that was used before ends
// without a response.
func (x *exchanger) resend(r *http.Request, s *steps, message []byte) (*http.Response, error) {
	l, reused, err := x.take(r, s)
	if err != nil {
		return nil, err
	}
	response, err := x.exchange(l, r, s, message)
	if err == nil || !reused || l.answered || isTimeout(err) || r.Context().Err() != nil {
		return response, err
	}
	s.sendAgain()
	s.asks()
	if l, err = x.dial(r, s, l.target); err != nil {
		return nil, err
	}
	return x.exchange(l, r, s, message)
}

// exchange sends a request and reads the head of its response.
func (x *exchanger) exchange(l *link, r *http.Request, s *steps, message []byte) (*http.Response, error) {
	l.answered, l.headLeft = false, responseHeaderLimit
	err := l.begin(r.Context())
	if err == nil {
		err = l.send(message)
	}
	var response *http.Response
	if err == nil {
		l.answered = true
		s.answered()
		response, err = l.readHead(r)
	}
	if err != nil {
		x.CloseIdleConnections() // they may be dead, too
		_ = l.Close()
		return nil, err
	}
	l.headLeft = 0
	if response.StatusCode < http.StatusOK { // 101, or not a valid HTTP status
		response.Close = true
	}
	switch {
	case response.StatusCode == http.StatusSwitchingProtocols:
		_ = l.Close()
		response.Body = http.NoBody
	case response.Body == http.NoBody:
		x.put(l, !response.Close)
	default:
		response.Body = &answer{ReadCloser: response.Body, link: l, exchanger: x, keep: !response.Close}
	}
	return response, nil
}

// take returns an idle connection, or a new one.
func (x *exchanger) take(r *http.Request, s *steps) (l *link, reused bool, err error) {
	t := target{r.URL.Scheme == "https", r.URL.Host}
	x.renew(time.Now())
	for l = x.pop(t); l != nil; l = x.pop(t) {
		if !l.stale(time.Now()) && l.watch(r.Context()) {
			s.connectedTo(l.address)
			return l, true, nil
		}
		_ = l.Close()
	}
	l, err = x.dial(r, s, t)
	return l, false, err
}

// renew closes the connections when they have reached their maximum age.
func (x *exchanger) renew(now time.Time) {
	x.mu.Lock()
	due := now.After(x.until)
	if due {
		x.until = now.Add(time.Duration(float64(x.options.MaxAge) * (0.8 + 0.4*rand.Float64())))
	}
	x.mu.Unlock()
	if due {
		x.CloseIdleConnections()
	}
}

func (x *exchanger) pop(t target) *link {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, l := range slices.Backward(x.idle) {
		if l.target == t {
			x.idle = slices.Delete(x.idle, i, i+1)
			l.raw.idleSince.Store(0)
			return l
		}
	}
	return nil
}

// evict closes a connection if it is idle.
func (x *exchanger) evict(l *link) {
	x.mu.Lock()
	at := slices.Index(x.idle, l)
	if at >= 0 {
		x.idle = slices.Delete(x.idle, at, at+1)
	}
	x.mu.Unlock()
	if at >= 0 {
		_ = l.Close()
	}
}

// dial opens a connection.
func (x *exchanger) dial(r *http.Request, s *steps, t target) (*link, error) {
	x.mu.Lock()
	epoch := x.epoch
	x.mu.Unlock()
	address, name, err := t.address()
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s != nil {
		ctx = s.trace(ctx, func() {})
	}
	raw, err := x.options.Dialer.dial(ctx, "tcp", address, hooks{})
	if err != nil {
		return nil, err
	}
	l := &link{Conn: raw, raw: raw, target: t, address: raw.address, epoch: epoch}
	raw.evict = func() { x.evict(l) }
	if t.secure {
		if err := l.handshake(ctx, x.options.TLS, name, s); err != nil {
			return nil, errors.Join(err, ignoreClosed(raw.Close()))
		}
	}
	l.r = bufio.NewReaderSize(l, 4<<10)
	l.watch(r.Context())
	s.connectedTo(l.address)
	return l, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// put makes a connection idle, or closes it.
func (x *exchanger) put(l *link, keep bool) {
	if !keep || l.r.Buffered() > 0 || !l.shared && !l.forget() {
		_ = l.Close()
		return
	}
	l.idleSince = time.Now()
	x.mu.Lock()
	old := l.epoch != x.epoch
	if !old {
		x.idle = append(x.idle, l)
		l.raw.idleSince.Store(l.idleSince.UnixNano())
		if x.sweep == nil {
			x.sweep = time.AfterFunc(sweepTime, x.closeStale)
		}
	}
	x.mu.Unlock()
	if old {
		_ = l.Close()
	}
}

// sweepTime is how often idle connections are checked: one that the receiver has
// closed is not kept for longer.
const sweepTime = time.Second

func (x *exchanger) closeStale() {
	now := time.Now()
	x.renew(now)
	x.mu.Lock()
	var stale []*link
	x.idle = slices.DeleteFunc(x.idle, func(l *link) bool {
		if now.Sub(l.idleSince) < sweepTime/2 || !l.stale(now) {
			return false
		}
		stale = append(stale, l)
		return true
	})
	x.sweep = nil
	if len(x.idle) > 0 {
		x.sweep = time.AfterFunc(sweepTime, x.closeStale)
	}
	x.mu.Unlock()
	for _, l := range stale {
		_ = l.Close()
	}
}

// CloseIdleConnections closes idle connections now, and the others as soon as
// their requests are done.
func (x *exchanger) CloseIdleConnections() {
	x.mu.Lock()
	idle := x.idle
	x.idle = nil
	x.epoch++
	x.mu.Unlock()
	for _, l := range idle {
		_ = l.Close()
	}
}

// target is what a connection leads to.
type target struct {
	secure bool
	host   string // of the URL, perhaps with a port
}

// address returns the address to dial, and the name in the certificate.
func (t target) address() (address, name string, err error) {
	host, err := httpguts.PunycodeHostPort(t.host)
	if err != nil {
		return "", "", fmt.Errorf("host: %w", err)
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil { // no port
		name, port = host, "80"
		if t.secure {
			port = "443"
		}
		if n := len(name); n > 1 && name[0] == '[' && name[n-1] == ']' {
			name = name[1 : n-1]
		}
	}
	return net.JoinHostPort(name, port), name, nil
}

// link is a connection that serves one request after another.
type link struct {
	net.Conn        // with TLS, if any
	raw       *conn // without
	r         *bufio.Reader
	target    target
	address   string
	epoch     int
	idleSince time.Time

	answered bool // the first byte of the response has arrived
	headLeft int  // how many bytes of the head may still arrive; 0 outside of it

	watched context.Context
	shared  bool // watched is the context of several requests
	unwatch func() bool
}

func (l *link) handshake(ctx context.Context, c *tls.Config, name string, s *steps) error {
	if c.ServerName == "" {
		c = c.Clone()
		c.ServerName = name
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	secure := tls.Client(l.Conn, c)
	l.Conn = secure
	done := s.shakesHands()
	err := secure.HandshakeContext(ctx)
	done()
	return err
}

// watch makes the end of a context interrupt the connection. It reports
// false if the end of the previous context may still do so.
//
// The attempts of an endpoint share a context, which is watched until the
// connection serves another endpoint; a context of one request ends with it.
func (l *link) watch(ctx context.Context) bool {
	a, shared := ctx.(*attempt)
	if shared {
		ctx = a.Context
	}
	if l.watched == ctx {
		return true
	}
	if !l.forget() {
		return false
	}
	l.watched, l.shared = ctx, shared
	l.unwatch = context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	return true
}

// forget ends watching a context. It reports false if that context has ended.
func (l *link) forget() bool {
	stopped := l.unwatch == nil || l.unwatch()
	l.watched, l.unwatch = nil, nil
	return stopped
}

// begin sets the deadline of a request.
func (l *link) begin(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	if err := l.SetDeadline(deadline); err != nil {
		return err
	}
	return l.watched.Err() // it may have ended before the deadline was set
}

// send writes a request and waits for the first byte of its response.
func (l *link) send(message []byte) error {
	_, failed := l.Write(message)
	if failed != nil { // there may be a response, or a TLS alert with the reason
		if err := l.SetReadDeadline(time.Now().Add(restTime)); err != nil {
			return failed
		}
	}
	_, err := l.r.Peek(1)
	switch {
	case err == nil || failed != nil && isTLS(err):
		return err
	case failed != nil:
		return failed
	case errors.Is(err, io.EOF):
		return errNoResponse
	}
	return err
}

// readHead reads the head of the final response.
func (l *link) readHead(r *http.Request) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(l.r, r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("the receiver closed the connection within a response's header")
		}
		informational := err == nil && response.StatusCode/100 == 1
		if !informational || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
}

// Read implements [io.Reader] for the buffered reader.
func (l *link) Read(p []byte) (int, error) {
	if l.headLeft < 0 {
		return 0, fmt.Errorf("the response's header has more than %d KiB", responseHeaderLimit>>10)
	}
	n, err := l.Conn.Read(p)
	if l.headLeft > 0 {
		if l.headLeft -= n; l.headLeft == 0 {
			l.headLeft = -1
		}
	}
	return n, err
}

// Close closes the connection.
func (l *link) Close() error {
	l.forget()
	return l.Conn.Close()
}

// stale reports whether an idle connection can't be used any longer.
func (l *link) stale(now time.Time) bool {
	return now.Sub(l.idleSince) > idleTime || unread.Unread(l.raw.Conn)
}

// answer is the body of a response. Closing it makes the connection idle if all was
// read.
type answer struct {
	io.ReadCloser
	link      *link
	exchanger *exchanger
	keep      bool
	ended     bool
}

// Read implements [io.Reader].
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.ended = a.ended || err == io.EOF
	return n, err
}

// Close implements [io.Closer].
func (a *answer) Close() error {
	if a.link != nil {
		a.exchanger.put(a.link, a.keep && a.ended)
		a.link = nil
		<-a.exchanger.slots
	}
	return nil
}

// readUntil limits the time for the rest of the body. The deadline of the attempt applies
// as well.
func (a *answer) readUntil(t time.Time) { _ = a.link.SetReadDeadline(t) }

// appendHead appends a request's line and headers except those about its body.
func appendHead(b []byte, r *http.Request) ([]byte, error) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	host, err := httpguts.PunycodeHostPort(host)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if zone := strings.LastIndex(host, "%"); zone > 0 && strings.HasPrefix(host, "[") { // RFC 6874, section 4
		_, rest, _ := strings.Cut(host[zone:], "]")
		host = host[:zone] + "]" + rest
	}
	b = append(append(b, r.Method...), ' ')
	b = append(b, r.URL.RequestURI()...)
	b = appendHeader(append(b, " HTTP/1.1\r\n"...), "Host", host)
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, errors.New("a header has an invalid name")
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("the value of header %s has a line break or another control character", name)
			}
			b = appendHeader(b, name, value)
		}
	}
	return b, nil
}

func appendHeader(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// appendBody appends a request's body and the header about it.
func appendBody(b []byte, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return append(b, "\r\n"...), nil
	}
	defer r.Body.Close()
	if r.ContentLength <= 0 {
		return nil, errors.New("the length of the request's body is unknown")
	}
	b = appendLength(b, int(r.ContentLength))
	head := len(b)
	b = slices.Grow(b, int(r.ContentLength))[:head+int(r.ContentLength)]
	if _, err := io.ReadFull(r.Body, b[head:]); err != nil {
		return nil, fmt.Errorf("the request's body: %w", err)
	}
	return b, nil
}

func appendLength(b []byte, n int) []byte {
	b = append(b, "Content-Length: "...)
	return append(strconv.AppendInt(b, int64(n), 10), "\r\n\r\n"...)
}

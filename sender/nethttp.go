package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"
)

// renewing is an [http.RoundTripper] with net/http's transports, for proxies and
// HTTP/2. It renews its connections when they reach their maximum age. It also renews
// them when a request gets no response, because the other connections may be dead,
// too. Running requests finish undisturbed on their connections.
type renewing struct {
	options TransportOptions

	mu      sync.Mutex
	current *generation // nil before the first request and after a renewal
}

// generation is a set of connections that are renewed together.
type generation struct {
	http  *http.Transport
	until time.Time

	// Under the mutex of renewing:
	requests int
	retired  bool // accepts no more requests

	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

// RoundTrip implements [http.RoundTripper].
func (t *renewing) RoundTrip(r *http.Request) (*http.Response, error) {
	var use use
	response, err := t.roundTrip(t.enter(), r.WithContext(use.trace(r.Context())), &use)
	if err == nil || !use.died || r.Context().Err() != nil || r.GetBody == nil {
		return response, err
	}
	again := r.WithContext(r.Context())
	if again.Body, err = r.GetBody(); err != nil {
		return nil, err
	}
	if s := stepsOf(r); s != nil {
		s.sendAgain()
	}
	g := t.newGeneration() // with a single connection
	g.requests, g.retired = 1, true
	return t.roundTrip(g, again, nil)
}

// roundTrip sends a request on a connection of the generation.
func (t *renewing) roundTrip(g *generation, r *http.Request, use *use) (*http.Response, error) {
	response, err := g.http.RoundTrip(r)
	if err != nil {
		if use != nil && r.Context().Err() == nil {
			use.end()
		}
		t.leave(g, true)
		return nil, err
	}
	refuseSwitch(response)
	if response.Body == http.NoBody {
		t.leave(g, false)
		return response, nil
	}
	response.Body = &body{ReadCloser: response.Body, leave: sync.OnceFunc(func() { t.leave(g, false) })}
	return response, nil
}

// refuseSwitch closes the connection of a receiver that switches protocols
// (101). The body of such a response is the connection itself, and reads from
// it would ignore the request's context.
func refuseSwitch(response *http.Response) {
	if response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close() // it is unused
		response.Body = http.NoBody
	}
}

// use records how a request used its connection.
type use struct {
	mu       sync.Mutex
	conn     net.Conn
	reused   bool
	answered bool
	died     bool // the connection was reused and died before any response
}

func (u *use) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.conn, u.reused = info.Conn, info.Reused
		},
		GotFirstResponseByte: func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.answered = true
		},
	})
}

// end determines whether the connection of a failed request died.
func (u *use) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	used := u.conn
	if secure, ok := used.(*tls.Conn); ok {
		used = secure.NetConn()
	}
	c, ok := used.(*conn)
	u.died = ok && u.reused && !u.answered && c.isOver()
}

// CloseIdleConnections closes idle connections now, and the others as soon as
// their requests are done.
func (t *renewing) CloseIdleConnections() {
	t.mu.Lock()
	g := t.current
	t.retire(g)
	over := g != nil && g.requests == 0
	t.mu.Unlock()
	if g != nil {
		g.close(over)
	}
}

// enter returns the generation for a new request.
func (t *renewing) enter() *generation {
	t.mu.Lock()
	old := t.current
	if old != nil && time.Now().Before(old.until) {
		old.requests++
		t.mu.Unlock()
		return old
	}
	t.retire(old)
	g := t.newGeneration()
	g.requests, t.current = 1, g
	over := old != nil && old.requests == 0
	t.mu.Unlock()
	if old != nil {
		old.close(over)
	}
	return g
}

// leave ends a request. If there was no response, its connection is not reused.
func (t *renewing) leave(g *generation, unanswered bool) {
	t.mu.Lock()
	g.requests--
	if unanswered {
		t.retire(g)
	}
	retired, over := g.retired, g.retired && g.requests == 0
	t.mu.Unlock()
	if retired {
		g.close(over)
	}
}

func (t *renewing) retire(g *generation) {
	if g != nil {
		g.retired = true
	}
	if t.current == g {
		t.current = nil
	}
}

// close closes idle connections; all of them if the last request is done. It
// may wait for a dead connection, so it must be called without the lock.
func (g *generation) close(over bool) {
	g.http.CloseIdleConnections()
	if !over {
		return
	}
	g.mu.Lock()
	g.closed = true
	open := slices.Collect(maps.Keys(g.open)) // HTTP/2 connections with canceled streams
	g.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // it is unused
	}
}

func (t *renewing) newGeneration() *generation {
	o := t.options
	age := time.Duration(float64(o.MaxAge) * (0.8 + 0.4*rand.Float64()))
	g := &generation{until: time.Now().Add(age), open: make(map[*conn]struct{})}
	g.http = &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return g.dial(ctx, o.Dialer, network, address, t.CloseIdleConnections)
		},
		Proxy: o.Proxy, ProxyConnectHeader: o.ProxyHeader, OnProxyConnectResponse: proxyAnswered,
		TLSClientConfig: o.TLS.Clone(), TLSHandshakeTimeout: handshakeTime,
		MaxIdleConnsPerHost: o.Dialer.limit, IdleConnTimeout: idleTime,
		MaxResponseHeaderBytes: responseHeaderLimit, DisableCompression: true,
		Protocols: new(http.Protocols),
	}
	g.http.Protocols.SetHTTP1(true)
	g.http.Protocols.SetHTTP2(o.HTTP2)
	ping := min(o.Timeout/3, longestPing)
	g.http.HTTP2 = &http.HTTP2Config{SendPingTimeout: ping, PingTimeout: ping, WriteByteTimeout: o.Timeout}
	return g
}

// dial opens a connection for the generation.
func (g *generation) dial(
	ctx context.Context, d *Dialer, network, address string, closeIdle func(),
) (net.Conn, error) {
	c, err := d.dial(ctx, network, address, hooks{closed: g.remove, closeIdle: closeIdle})
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	closed := g.closed // the request no longer waited for this connection
	if !closed {
		g.open[c] = struct{}{}
	}
	g.mu.Unlock()
	if closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	return c, nil
}

func (g *generation) remove(c *conn) {
	g.mu.Lock()
	delete(g.open, c)
	g.mu.Unlock()
}

func proxyAnswered(_ context.Context, _ *url.URL, _ *http.Request, response *http.Response) error {
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the proxy responded with %s", response.Status)
	}
	return nil
}

// body is a response body; closing it ends the request.
type body struct {
	io.ReadCloser
	leave func()
}

// Close implements [io.Closer].
func (b *body) Close() error {
	defer b.leave()
	return b.ReadCloser.Close()
}

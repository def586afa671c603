package sender

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
)

// steps records the progress and the timing of an attempt. A connection may be
// made in the background and outlive the attempt, hence the lock.
type steps struct {
	began time.Time

	mu                  sync.Mutex
	dns, connect, tls   time.Time // start of the current step
	timing              tidings.Timing
	address, connecting string
	progress            progress
	conn                net.Conn // the most recent one
	resent              bool
}

// asks records that a connection is requested. Like the methods after it, it accepts nil.
func (s *steps) asks() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = progress{asked: true, step: tidings.ReasonConnect, tries: s.progress.tries}
}

// connectedTo records that the request has got a connection.
func (s *steps) connectedTo(address string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address, s.progress.connected = address, true
	s.progress.tries++
}

// shakesHands records that the TLS handshake begins, and returns what ends it.
func (s *steps) shakesHands() (end func()) {
	if s == nil {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Now()
	s.progress.step = tidings.ReasonTLS
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.timing.TLS = time.Since(began)
	}
}

// answered records that the first byte of the response is there.
func (s *steps) answered() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timing.FirstByte = time.Since(s.began)
}

// sendAgain records that the request is resent.
func (s *steps) sendAgain() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resent = true
}

// progress is how far an attempt has come.
type progress struct {
	asked     bool   // requested a connection
	connected bool   // got one
	step      string // the reason if that fails: dns, connect or tls
	tries     int    // connections so far
}

// mostTries limits the connections of an attempt. net/http resends a request
// that a receiver did not process without limit: after HTTP/2's GOAWAY even
// immediately.
const mostTries = 20

// trace returns a context with the hooks of httptrace; cancel cancels it.
func (s *steps) trace(ctx context.Context, cancel func()) context.Context {
	begin := func(at *time.Time, reason string) {
		s.mu.Lock()
		*at, s.progress.step = time.Now(), reason
		s.mu.Unlock()
	}
	end := func(d *time.Duration, from *time.Time) {
		s.mu.Lock()
		*d = time.Since(*from)
		s.mu.Unlock()
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			s.mu.Lock()
			s.progress = progress{asked: true, step: tidings.ReasonConnect, tries: s.progress.tries}
			s.mu.Unlock()
		},
		DNSStart: func(httptrace.DNSStartInfo) { begin(&s.dns, tidings.ReasonDNS) },
		DNSDone:  func(httptrace.DNSDoneInfo) { end(&s.timing.DNS, &s.dns) },
		ConnectStart: func(_, address string) {
			begin(&s.connect, tidings.ReasonConnect)
			s.mu.Lock()
			s.connecting = address
			s.mu.Unlock()
		},
		ConnectDone:       func(string, string, error) { end(&s.timing.Connect, &s.connect) },
		TLSHandshakeStart: func() { begin(&s.tls, tidings.ReasonTLS) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			end(&s.timing.TLS, &s.tls)
			if err == nil { // perhaps to a proxy, which has yet to connect
				s.mu.Lock()
				s.progress.step = tidings.ReasonConnect
				s.mu.Unlock()
			}
		},
		GotFirstResponseByte: func() { end(&s.timing.FirstByte, &s.began) },
		GotConn: func(info httptrace.GotConnInfo) {
			address := ""
			if c, ok := info.Conn.(*conn); ok {
				address = c.address
			} else if remote := info.Conn.RemoteAddr(); remote != nil {
				address = remote.String()
			}
			s.mu.Lock()
			s.address, s.progress.connected, s.conn = address, true, info.Conn
			if s.progress.tries++; s.progress.tries >= mostTries {
				cancel()
			}
			s.mu.Unlock()
		},
	})
}

// reached returns how far the attempt has come.
func (s *steps) reached() progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress
}

// alert returns the TLS alert that ended the attempt's connection, or nil.
// net/http may report something else, such as a failed write or an unusable
// connection.
func (s *steps) alert() error {
	s.mu.Lock()
	secure, ok := s.conn.(*tls.Conn)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	if c, ok := secure.NetConn().(*conn); !ok || !c.isOver() {
		return nil // other requests may read from it
	}
	if _, err := secure.Read(make([]byte, 1)); isTLS(err) { // the error is repeated
		return err
	}
	return nil
}

// result returns the timing, the address reached or last tried, and whether the
// request was sent twice.
func (s *steps) result() (tidings.Timing, string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address == "" {
		return s.timing, s.connecting, s.resent
	}
	return s.timing, s.address, s.resent
}

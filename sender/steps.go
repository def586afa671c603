package sender

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/tidings-dev/tidings"
)

// steps measures what an attempt spends its time on. A connection may be made in
// the background and go on after the attempt is over, hence the lock.
type steps struct {
	began time.Time

	mu                  sync.Mutex
	dns, connect, tls   time.Time // when the step under way began
	timing              tidings.Timing
	address, connecting string
}

func (s *steps) trace(ctx context.Context) context.Context {
	mark := func(at *time.Time) {
		s.mu.Lock()
		*at = time.Now()
		s.mu.Unlock()
	}
	measure := func(d *time.Duration, from *time.Time) {
		s.mu.Lock()
		*d = time.Since(*from)
		s.mu.Unlock()
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { mark(&s.dns) },
		DNSDone:  func(httptrace.DNSDoneInfo) { measure(&s.timing.DNS, &s.dns) },
		ConnectStart: func(_, address string) {
			s.mu.Lock()
			s.connect, s.connecting = time.Now(), address
			s.mu.Unlock()
		},
		ConnectDone:          func(string, string, error) { measure(&s.timing.Connect, &s.connect) },
		TLSHandshakeStart:    func() { mark(&s.tls) },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { measure(&s.timing.TLS, &s.tls) },
		GotFirstResponseByte: func() { measure(&s.timing.FirstByte, &s.began) },
		GotConn: func(info httptrace.GotConnInfo) {
			address := ""
			if c, ok := info.Conn.(*conn); ok {
				address = c.address
			} else if remote := info.Conn.RemoteAddr(); remote != nil {
				address = remote.String()
			}
			s.mu.Lock()
			s.address = address
			s.mu.Unlock()
		},
	})
}

// result is what was measured, and the address that was reached or else tried
// last.
func (s *steps) result() (tidings.Timing, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address == "" {
		return s.timing, s.connecting
	}
	return s.timing, s.address
}

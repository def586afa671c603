package sender

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"time"
)

// Limits of a [Transport].
const (
	defaultMaxAge       = 2 * time.Minute
	idleTime            = 90 * time.Second
	handshakeTime       = 10 * time.Second
	longestPing         = 15 * time.Second
	responseHeaderLimit = 64 << 10
)

// TransportOptions configures a [Transport]. Only Dialer is required.
type TransportOptions struct {
	Dialer *Dialer
	// Timeout is the time limit of an attempt; 0 means 15 s. HTTP/2 pings
	// detect a dead connection within it.
	Timeout time.Duration
	// MaxAge is how long a connection is used, ±20 %; 0 means two minutes.
	MaxAge time.Duration
	// TLS may be nil.
	TLS *tls.Config
	// HTTP2 enables HTTP/2 for receivers that offer it.
	HTTP2 bool
	// Proxy returns the proxy for a request, as in [http.Transport]; nil means
	// none.
	Proxy func(*http.Request) (*url.URL, error)
	// ProxyHeader is sent to the proxy with CONNECT.
	ProxyHeader http.Header
}

// Transport is an [http.RoundTripper] for one receiver. It speaks HTTP/1.1 in the
// goroutine of the caller; net/http's transport serves proxies and HTTP/2.
//
// It renews its connections when they reach their maximum age, so that even a
// busy sender follows a changed DNS name, and when a request gets no response,
// because the other connections may be dead, too. If a reused connection dies
// before any byte of a response, the request is resent once on a new connection,
// because the receiver may have closed the old one just as the request was sent.
type Transport struct {
	http.RoundTripper // *exchanger or *renewing
}

// NewTransport returns a transport that opens connections on demand. Closing
// its dialer closes them.
func NewTransport(o TransportOptions) *Transport {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxAge <= 0 {
		o.MaxAge = defaultMaxAge
	}
	if o.HTTP2 || o.Proxy != nil {
		return &Transport{&renewing{options: o}}
	}
	return &Transport{newExchanger(o)}
}

// CloseIdleConnections closes idle connections now, and the others as soon as
// their requests are done.
func (t *Transport) CloseIdleConnections() {
	t.RoundTripper.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}

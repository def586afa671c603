package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/sender"
)

// Limits on a single request, however the server behaves.
const (
	answerTime  = 5 * time.Second // from the first packet to the last byte
	answerLimit = 1 << 20         // of a body, decompressed
	headerLimit = 64 << 10

	connectionsPerServer = 8
	idleConnections      = 32 // of all servers
	idleTime             = 30 * time.Second
)

var (
	errRedirect = errors.New("it answered with a redirect")
	errSwitch   = errors.New("it answered 101 Switching Protocols")
	errTooLarge = errors.New("it answered more than 1 MiB")
)

// newTransport returns a transport with an egress rule. It uses no proxy,
// because the rule could only check the proxy's address.
func newTransport(egress sender.Egress) *http.Transport {
	dialer := &net.Dialer{Timeout: answerTime, Control: egress.Control}
	return &http.Transport{
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: answerTime, ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: headerLimit,
		MaxConnsPerHost: connectionsPerServer, MaxIdleConnsPerHost: 1, MaxIdleConns: idleConnections,
		IdleConnTimeout: idleTime,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     answerLimit,
			MaxReceiveBufferPerConnection: answerLimit,
		},
	}
}

// RoundTrip performs a request with limits on time, headers and the
// decompressed body. A redirect is an error, so that no client follows it or
// sends a key to another server.
func (c *Client) RoundTrip(request *http.Request) (*http.Response, error) {
	return c.roundTrip(request, time.Now().Add(answerTime))
}

// roundTrip performs a request that must finish by the deadline.
func (c *Client) roundTrip(request *http.Request, deadline time.Time) (*http.Response, error) {
	ctx, cancel := context.WithDeadline(request.Context(), deadline)
	unhook := context.AfterFunc(c.closed, cancel)
	release := func() {
		unhook()
		cancel()
	}
	request = request.Clone(ctx)
	request.Header.Set("User-Agent", c.userAgent)
	response, err := c.transport.Load().RoundTrip(request)
	if err != nil {
		release()
		return nil, err
	}
	response.Body = &limitedBody{from: response.Body, left: answerLimit, release: release}
	switch {
	case isRedirect(response.StatusCode):
		err = errRedirect
	case response.StatusCode == http.StatusSwitchingProtocols: // its body would ignore deadlines
		err = errSwitch
	case response.ContentLength > answerLimit:
		err = errTooLarge
	default:
		return response, nil
	}
	return nil, errors.Join(err, response.Body.Close())
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return true
	}
	return false
}

// limitedBody is a body with a size limit.
type limitedBody struct {
	from    io.ReadCloser
	left    int64
	release func()
}

// Read returns errTooLarge if the limit is exceeded.
func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errTooLarge
	}
	return n, err
}

// Close ends the request.
func (b *limitedBody) Close() error {
	defer b.release()
	return b.from.Close()
}

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

// What one request may cost, whatever the server does.
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

// newTransport returns connections under an egress rule. It uses no proxy: the
// rule could check nothing but the address of that.
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

// RoundTrip makes a request. Its time, headers and decompressed body are limited.
// A redirect is an error, so that no client follows it or sends a key elsewhere.
func (c *Client) RoundTrip(request *http.Request) (*http.Response, error) {
	return c.roundTrip(request, time.Now().Add(answerTime))
}

// roundTrip makes a request that must be over at the deadline.
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
	case response.StatusCode == http.StatusSwitchingProtocols: // its body would heed no deadline
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

// limitedBody is a body that may not be longer than a limit.
type limitedBody struct {
	from    io.ReadCloser
	left    int64
	release func()
}

// Read returns errTooLarge once there is more than the limit.
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

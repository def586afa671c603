// Package remote asks other systems on behalf of resources: agents for their
// card, model providers for their models, MCP servers whether they are there.
// Every answer is bounded in size and time, and every address is under the
// egress rule.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/tidings-dev/tidings/sender"
)

const (
	answerTime        = 5 * time.Second
	answerLimit       = 1 << 20
	connectionsPerOne = 8
)

// Client asks other systems. It may be used by several goroutines.
type Client struct {
	http      *http.Client
	dialer    *sender.Dialer
	userAgent string
}

// New returns a client under an egress rule.
func New(egress sender.Egress, userAgent string) *Client {
	dialer := sender.NewDialer(egress, connectionsPerOne, answerTime)
	return &Client{
		dialer: dialer, userAgent: userAgent,
		http: &http.Client{Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: answerTime,
		}},
	}
}

// Close closes all connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.dialer.Close()
}

// get reads a JSON document. Errors are for whoever named the URL: they tell the
// reason, and nothing of the request but its path.
func (c *Client) get(ctx context.Context, target string, header http.Header) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, errors.New("the URL can't be requested")
	}
	maps.Copy(request.Header, header)
	request.Header.Set("User-Agent", c.userAgent)
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, reason(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s answers %s", request.URL.Path, response.Status)
	}
	document, err := io.ReadAll(io.LimitReader(response.Body, answerLimit+1))
	if err != nil {
		return nil, reason(err)
	}
	if len(document) > answerLimit {
		return nil, fmt.Errorf("GET %s answers more than 1 MiB", request.URL.Path)
	}
	if !json.Valid(document) {
		return nil, fmt.Errorf("GET %s answers something that is not JSON", request.URL.Path)
	}
	return document, nil
}

// reason is why there is no answer, without the URL.
func reason(err error) error {
	var blocked *sender.BlockedError
	switch {
	case errors.As(err, &blocked):
		return blocked
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v", answerTime)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

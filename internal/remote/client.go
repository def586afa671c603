// Package remote asks servers that users name: agents for their card, model
// providers for their models, MCP servers whether they are there. Whatever such
// a server does, a request costs a bounded amount of time and memory, reaches no
// address that the egress rule refuses, and tells its user nothing but a
// [resource.RemoteReason].
package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync/atomic"

	"github.com/tidings-dev/tidings/internal/valid"
	"github.com/tidings-dev/tidings/sender"
)

// Client asks servers that users name. It is an [http.RoundTripper], through
// which all of its requests go. It may be used by several goroutines.
type Client struct {
	transport atomic.Pointer[http.Transport]
	userAgent string

	closed context.Context // ends the requests that are under way
	close  context.CancelFunc
}

// New returns a client under an egress rule.
func New(egress sender.Egress, userAgent string) *Client {
	c := &Client{userAgent: userAgent}
	c.closed, c.close = context.WithCancel(context.Background())
	c.transport.Store(newTransport(egress))
	return c
}

// SetEgress puts the requests that begin from now on under another rule.
// Connections that were made under the one before are not used again.
func (c *Client) SetEgress(egress sender.Egress) {
	c.transport.Swap(newTransport(egress)).CloseIdleConnections()
}

// Close ends the requests that are under way and closes all connections.
func (c *Client) Close() error {
	c.close()
	c.transport.Load().CloseIdleConnections()
	return nil
}

// get reads a JSON document.
func (c *Client) get(ctx context.Context, target string, header http.Header) (json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, unusable(err)
	}
	maps.Copy(request.Header, header)
	request.Header.Set("Accept", "application/json")
	response, err := (&http.Client{Transport: c}).Do(request)
	if err != nil {
		return nil, noAnswer(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, refusal(response.StatusCode)
	}
	document, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, brokenAnswer(err)
	}
	if err := valid.JSON(document); err != nil {
		return nil, unusable(fmt.Errorf("its answer %w", err))
	}
	return document, nil
}

// Package remote sends requests to servers that users name: it fetches agent
// cards, lists the models of model providers, and initializes sessions with MCP
// servers. However such a server behaves, a request takes a bounded amount of
// time and memory, reaches no address that the egress rule forbids, and reveals
// nothing to its user but a [resource.RemoteReason].
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

// Client sends requests to servers that users name. It is an
// [http.RoundTripper] for all of its requests. It is safe for concurrent use.
type Client struct {
	transport atomic.Pointer[http.Transport]
	userAgent string

	closed context.Context // cancels running requests
	close  context.CancelFunc
}

// New returns a client with an egress rule.
func New(egress sender.Egress, userAgent string) *Client {
	c := &Client{userAgent: userAgent}
	c.closed, c.close = context.WithCancel(context.Background())
	c.transport.Store(newTransport(egress))
	return c
}

// SetEgress replaces the egress rule for new requests. Connections made under
// the previous rule are not reused.
func (c *Client) SetEgress(egress sender.Egress) {
	c.transport.Swap(newTransport(egress)).CloseIdleConnections()
}

// Close cancels running requests and closes all connections.
func (c *Client) Close() error {
	c.close()
	c.transport.Load().CloseIdleConnections()
	return nil
}

// get fetches a JSON document.
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
		return nil, unusable(fmt.Errorf("its response %w", err))
	}
	return document, nil
}

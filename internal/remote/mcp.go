package remote

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tidings-dev/tidings/internal/resource"
)

// Initialize begins a session with an MCP server and ends it again.
func (c *Client) Initialize(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	seen := &observed{next: c.http.Transport}
	client := mcp.NewClient(&mcp.Implementation{Name: "tidings", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: url, HTTPClient: &http.Client{Transport: seen}, MaxRetries: -1, DisableStandaloneSSE: true,
	}, nil)
	if err == nil {
		return session.Close()
	}
	status, failure := seen.result()
	switch {
	case failure != nil:
		return fmt.Errorf("%w: %w", resource.ErrMCPUnreachable, reason(failure))
	case ctx.Err() != nil:
		return fmt.Errorf("%w within %v", resource.ErrMCPUnreachable, answerTime)
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: it asks for authorization, which connectors can't give", resource.ErrMCPUnusable)
	case status >= http.StatusBadRequest:
		return fmt.Errorf("%w: it answers %d %s", resource.ErrMCPUnusable, status, http.StatusText(status))
	}
	return fmt.Errorf("%w: it does not speak the protocol", resource.ErrMCPUnusable)
}

// observed remembers how the last request ended, which the session's error does
// not tell.
type observed struct {
	next http.RoundTripper

	mu     sync.Mutex
	status int
	err    error
}

func (o *observed) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(request)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	if response != nil {
		o.status = response.StatusCode
	}
	return response, err
}

func (o *observed) result() (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status, o.err
}

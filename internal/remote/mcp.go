package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// sessionRequests exceeds the requests of a session. A server can cause further
// ones by sending messages.
const sessionRequests = 16

var errTooManyRequests = errors.New("it caused too many requests")

// Initialize starts a session with an MCP server and ends it. Errors are
// [resource.RemoteError]s.
func (c *Client) Initialize(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s := &session{client: c, deadline: time.Now().Add(answerTime)}
	client := mcp.NewClient(&mcp.Implementation{Name: "tidings", Version: "1"}, nil)
	connection, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: url, HTTPClient: &http.Client{Transport: s}, MaxRetries: -1, DisableStandaloneSSE: true,
	}, nil)
	if err == nil {
		_ = connection.Close() // the server responded, which is all that matters
		return nil
	}
	return s.reason(err)
}

// session makes the requests of one session, with one deadline for all, and
// records how the last one ended, which the SDK's errors omit.
type session struct {
	client   *Client
	deadline time.Time

	mu     sync.Mutex
	count  int
	status int
	err    error // why there was no response
	broken error // why the response could not be read
}

// RoundTrip performs a request.
func (s *session) RoundTrip(request *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.count++
	over := s.count > sessionRequests
	s.mu.Unlock()
	var response *http.Response
	err := errTooManyRequests
	if !over {
		response, err = s.client.roundTrip(request, s.deadline)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.err, s.broken = 0, err, nil
	if err != nil {
		return nil, err
	}
	s.status = response.StatusCode
	response.Body = &sessionBody{response.Body, s}
	return response, nil
}

// reason returns why the session could not be started, given the SDK's error.
func (s *session) reason(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return noAnswer(s.err)
	case s.broken != nil:
		return brokenAnswer(s.broken)
	case s.status >= http.StatusMultipleChoices:
		return refusal(s.status)
	}
	return brokenAnswer(err)
}

// sessionBody records in its session why it could not be read.
type sessionBody struct {
	io.ReadCloser
	session *session
}

// Read reads from the body.
func (b *sessionBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.session.mu.Lock()
		b.session.broken = err
		b.session.mu.Unlock()
	}
	return n, err
}

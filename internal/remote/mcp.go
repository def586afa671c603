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

// sessionRequests is more than it takes to begin a session and end it. A server can
// cause further requests, by messages of its own.
const sessionRequests = 16

var errTooManyRequests = errors.New("it caused too many requests")

// Initialize begins a session with an MCP server and ends it again. The error is
// a [resource.RemoteError].
func (c *Client) Initialize(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s := &session{client: c, deadline: time.Now().Add(answerTime)}
	client := mcp.NewClient(&mcp.Implementation{Name: "tidings", Version: "1"}, nil)
	connection, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: url, HTTPClient: &http.Client{Transport: s}, MaxRetries: -1, DisableStandaloneSSE: true,
	}, nil)
	if err == nil {
		_ = connection.Close() // that the server was there is all that counts
		return nil
	}
	return s.reason(err)
}

// session makes the requests of one session, all of them before its deadline, and
// remembers how the last one ended, which the SDK's errors do not tell.
type session struct {
	client   *Client
	deadline time.Time

	mu     sync.Mutex
	count  int
	status int
	err    error // why there was no answer
	broken error // why the answer could not be read
}

// RoundTrip makes a request.
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

// reason is why the session could not begin, given the error of the SDK.
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

// sessionBody tells its session why it could not be read.
type sessionBody struct {
	io.ReadCloser
	session *session
}

// Read reads the body.
func (b *sessionBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.session.mu.Lock()
		b.session.broken = err
		b.session.mu.Unlock()
	}
	return n, err
}

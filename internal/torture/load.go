package torture

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// parallel is how many webhooks are sent at once.
	parallel = 100
	// slowPieces and slowPause make a body arrive slowly.
	slowPieces = 10
	slowPause  = 100 * time.Millisecond
	// noticeTime is how long a receiver gets to notice a closed connection.
	noticeTime = time.Second
)

func loadCases() []Case {
	load := func(name, about, advice string, run func(ctx context.Context, r *run) error) Case {
		return Case{Group: "load", Name: name, About: about, advice: advice, run: run}
	}
	return []Case{
		load("100-at-once", "100 webhooks at once: 2xx, or 429 or 503 with Retry-After",
			"answer before you work; if you can't take more, answer 429 with Retry-After, or ask the operator for a "+
				"lower max_in_flight", hundred),
		load("slow-body", "a body that takes a second to arrive, and others in the meantime: 2xx",
			"serve several connections at once, and allow a body a few seconds to arrive", slowBody),
		load("closed-connection", "a connection that closes after the headers: the receiver keeps working",
			"treat a body that ends early as an error of that request only", closedConnection),
		load("http-1.0", "an HTTP/1.0 request, as some proxies send: 2xx, not chunked",
			"accept HTTP/1.0; proxies such as nginx use it unless configured otherwise", http10),
		load("keep-alive", "a valid webhook on the connection of a refused one: 2xx, or the connection is closed",
			"read the whole body before you refuse a request, or close the connection with \"Connection: close\"; what "+
				"is left of a body is otherwise taken for the next request", keepAlive),
	}
}

func timeCases() []Case {
	return []Case{{
		Group: "time", Name: "answer-time", About: "ten webhooks in a row are answered quickly",
		advice: "store the event, answer 2xx, and work afterwards; whatever takes long delays later events of the " +
			"resource, and above the sender's timeout counts as a failure",
		run: func(ctx context.Context, r *run) error {
			for range 10 {
				a, err := r.send(ctx, r.message(r.event("updated")).sign())
				switch {
				case err != nil:
					return r.unanswered(err)
				case !a.ok():
					return fmt.Errorf("it answered %d, want 2xx", a.status)
				case a.took > r.AnswerWithin:
					return fmt.Errorf("it took %v to answer, want at most %v", a.took.Round(time.Millisecond), r.AnswerWithin)
				}
			}
			return nil
		},
	}}
}

func hundred(ctx context.Context, r *run) error {
	want := make(map[string]int)
	for _, d := range r.together(ctx, parallel, func(int) *message { return r.message(r.event("updated")).sign() }) {
		throttled := d.status == http.StatusTooManyRequests || d.status == http.StatusServiceUnavailable
		switch {
		case d.err != nil:
			return r.unanswered(d.err)
		case d.ok():
			want[d.id] = 1
		case throttled && d.retryAfter == "":
			return fmt.Errorf("it answered %d without Retry-After", d.status)
		case !throttled:
			return fmt.Errorf("it answered %d, want 2xx", d.status)
		}
	}
	return r.handled(ctx, want)
}

func slowBody(ctx context.Context, r *run) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	m := r.message(r.event("updated")).sign()
	if err := c.write(m.head(c.url, "HTTP/1.1", len(m.body))); err != nil {
		return err
	}
	size := len(m.body)/slowPieces + 1
	others := make(chan error, 1)
	for n, rest := 1, m.body; len(rest) > 0; n++ {
		if n == slowPieces/2 { // the receiver has begun to read by now
			go func() { others <- r.accepts(ctx, r.message(r.event("updated")).sign()) }()
		}
		piece := rest[:min(size, len(rest))]
		if rest = rest[len(piece):]; len(rest) == 0 {
			// The last piece waits for the others: a receiver that waits for it can't answer them.
			if err := r.first(ctx, others); err != nil {
				return fmt.Errorf("another webhook in the meantime: %w", err)
			}
		}
		if err := c.write(piece); err != nil {
			return fmt.Errorf("it closed the connection: %w", err)
		}
		select {
		case <-time.After(slowPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	response, err := c.read()
	if err != nil {
		return r.unanswered(err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("it answered %d, want 2xx", response.StatusCode)
	}
	return r.handled(ctx, map[string]int{m.id: 1})
}

// first waits for an answer, but no longer than answers may take, and a second.
func (r *run) first(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		return err
	case <-time.After(r.AnswerWithin + time.Second):
		return errors.New("it serves only one connection at a time")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func closedConnection(ctx context.Context, r *run) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	m := r.message(r.event("updated")).sign()
	err = c.write(m.head(c.url, "HTTP/1.1", len(m.body)))
	c.hangUp()
	if err != nil {
		return err
	}
	next := r.message(r.event("updated")).sign()
	if err := r.accepts(ctx, next); err != nil {
		return fmt.Errorf("a valid webhook afterwards: %w", err)
	}
	return r.handled(ctx, map[string]int{m.id: 0, next.id: 1})
}

func http10(ctx context.Context, r *run) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	m := r.message(r.event("updated")).sign()
	if err := c.write(append(m.head(c.url, "HTTP/1.0", len(m.body)), m.body...)); err != nil {
		return err
	}
	response, err := c.read()
	switch {
	case err != nil:
		return r.unanswered(err)
	case response.StatusCode < 200 || response.StatusCode > 299:
		return fmt.Errorf("it answered %d, want 2xx", response.StatusCode)
	case len(response.TransferEncoding) > 0:
		return errors.New("it answered with a chunked body, which HTTP/1.0 does not have")
	}
	return r.handled(ctx, map[string]int{m.id: 1})
}

func keepAlive(ctx context.Context, r *run) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	bad := r.message(r.event("updated")).sign()
	bad.set("Webhook-Signature", bad.wrong())
	if err := c.write(append(bad.head(c.url, "HTTP/1.1", len(bad.body)), bad.body...)); err != nil {
		return err
	}
	response, err := c.read()
	if err != nil {
		return r.unanswered(err)
	}
	if err := refused(response.StatusCode); err != nil {
		return err
	}
	if response.Close {
		return nil
	}
	m := r.message(r.event("updated")).sign()
	if err := c.write(append(m.head(c.url, "HTTP/1.1", len(m.body)), m.body...)); err != nil {
		return nil //nolint:nilerr // it closed the connection
	}
	response, err = c.read()
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err):
		return nil
	case err != nil:
		return fmt.Errorf("the second webhook on the connection: %w", err)
	case response.StatusCode < 200 || response.StatusCode > 299:
		return fmt.Errorf("the second webhook on the connection: it answered %d, want 2xx", response.StatusCode)
	}
	return nil
}

func isReset(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && !op.Timeout()
}

// conn is a connection to the receiver for what net/http would not send.
type conn struct {
	net.Conn
	url    *url.URL
	reader *bufio.Reader
}

// hangUp closes the connection, and gives the receiver time to notice.
func (c *conn) hangUp() {
	defer c.Close()
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(noticeTime)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.reader, 64<<10))
	}
}

func (r *run) dial(ctx context.Context) (*conn, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	var c net.Conn
	if u.Scheme == "https" {
		dialer := tls.Dialer{Config: &tls.Config{
			InsecureSkipVerify: r.Insecure, ServerName: u.Hostname(), //nolint:gosec // the caller asks for it
		}}
		c, err = dialer.DialContext(ctx, "tcp", address)
	} else {
		var dialer net.Dialer
		c, err = dialer.DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(r.Timeout)); err != nil {
		c.Close()
		return nil, err
	}
	return &conn{c, u, bufio.NewReader(c)}, nil
}

func (c *conn) write(b []byte) error {
	_, err := c.Write(b)
	return err
}

// read reads one response with its body.
func (c *conn) read() (*http.Response, error) {
	response, err := http.ReadResponse(c.reader, &http.Request{Method: http.MethodPost})
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	return response, err
}

// head returns the head of a request.
func (m *message) head(u *url.URL, proto string, length int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s %s\r\nHost: %s\r\nContent-Length: %d\r\n", u.RequestURI(), proto, u.Host, length)
	if password, ok := u.User.Password(); ok {
		fmt.Fprintf(&b, "Authorization: Basic %s\r\n",
			base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	_ = m.header.Write(&b) // to memory
	b.WriteString("\r\n")
	return b.Bytes()
}

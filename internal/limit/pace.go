package limit

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Pace limits how slow clients may be.
type Pace struct {
	// Answer is how long a client may read nothing of a response.
	Answer time.Duration
	// Body is how long a client may take to send [BodyStep] bytes of a body, or
	// fewer at its end.
	Body time.Duration
}

// DefaultPace tolerates clients slower than any modem, but not stalled ones.
var DefaultPace = Pace{Answer: time.Minute, Body: 30 * time.Second}

// BodyStep is the number of bytes of a request body that must arrive within [Pace.Body].
const BodyStep = 64 << 10

const (
	// writeStep is the number of bytes written under one deadline.
	writeStep = 64 << 10
	// sendBuffer limits how much of a response the kernel buffers per
	// connection. By default it buffers megabytes for clients that do not read,
	// outside all limits.
	sendBuffer = 256 << 10
)

// Listener returns a listener whose connections fail with
// [os.ErrDeadlineExceeded] if a client reads nothing of a response for stall. A
// slow client that keeps reading gets everything.
func Listener(l net.Listener, stall time.Duration) net.Listener { return &listener{l, stall} }

type listener struct {
	net.Listener
	stall time.Duration
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // a dead connection fails on the next read
	}
	return &conn{c, l.stall}, nil
}

type conn struct {
	net.Conn
	stall time.Duration
}

// Write continues as long as the client keeps reading.
func (c *conn) Write(b []byte) (written int, err error) {
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(b[written:min(written+writeStep, len(b))])
		written += n
		slow := n > 0 && errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !slow || written == len(b) {
			return written, err
		}
	}
}

// Body returns a request body whose reads fail with [os.ErrDeadlineExceeded] if
// the client sends it too slowly. Time between reads does not count.
// setDeadline sets the connection's read deadline.
func Body(body io.ReadCloser, pace time.Duration, setDeadline func(time.Time) error) io.ReadCloser {
	return &pacedBody{ReadCloser: body, pace: pace, left: pace, setDeadline: setDeadline}
}

type pacedBody struct {
	io.ReadCloser
	pace        time.Duration
	left        time.Duration // for the rest of the step
	read        int           // of the step
	setDeadline func(time.Time) error
}

// Read implements [io.Reader].
func (p *pacedBody) Read(b []byte) (int, error) {
	begun := time.Now()
	if err := p.setDeadline(begun.Add(p.left)); err != nil {
		return 0, err
	}
	n, err := p.ReadCloser.Read(b)
	p.left -= time.Since(begun)
	if p.read += n; p.read >= BodyStep {
		p.read, p.left = 0, p.pace
	}
	if errors.Is(err, io.EOF) {
		if err := p.setDeadline(time.Time{}); err != nil {
			return n, err
		}
	}
	return n, err
}

package limit

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Pace is how slow clients may be.
type Pace struct {
	// Answer is how long a client may take nothing of an answer.
	Answer time.Duration
	// Body is how long a client may take to send [BodyStep] bytes of a body, or
	// what is left of it.
	Body time.Duration
}

// DefaultPace lets a client be slower than any modem, but not stand still.
var DefaultPace = Pace{Answer: time.Minute, Body: 30 * time.Second}

// BodyStep is the part of a request body that must arrive within [Pace.Body].
const BodyStep = 64 << 10

const (
	// writeStep is how much is written under one deadline.
	writeStep = 64 << 10
	// sendBuffer is how much of an answer the kernel keeps for a connection. Without
	// a bound it keeps megabytes of what nobody reads, of which no limit knows.
	sendBuffer = 256 << 10
)

// Listener returns a listener whose connections fail with
// [os.ErrDeadlineExceeded] once a client takes nothing of what is written for so
// long; a client that is slow but goes on reading gets everything.
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
		_ = tcp.SetWriteBuffer(sendBuffer) // a connection that is gone says so when it is read
	}
	return &conn{c, l.stall}, nil
}

type conn struct {
	net.Conn
	stall time.Duration
}

// Write goes on as long as the client takes something.
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

// Body returns a request body whose reads fail with [os.ErrDeadlineExceeded] when
// the client sends it too slowly. The time that passes between reads does not
// count. setDeadline sets the read deadline of the connection.
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

package sender

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Dialer opens connections under an egress rule. It limits the concurrent
// connections per address, and can close them all. A [Transport] requires one;
// [Dialer.Serve] gives one to an [http.Transport].
type Dialer struct {
	// Connections limits the connections of several dialers together; nil means no limit. Set it
	// before the first use.
	Connections *Connections

	egress    Egress
	limit     int
	timeout   time.Duration
	closeIdle func() // connections opened with DialContext; may be nil

	mu     sync.Mutex
	slots  map[string]*slot // by address, while in use
	open   map[*conn]struct{}
	closed bool
}

// NewDialer returns a dialer with a limit on open connections per address, and
// a timeout for opening one.
func NewDialer(egress Egress, limit int, timeout time.Duration) *Dialer {
	return &Dialer{
		egress: egress, limit: limit, timeout: timeout,
		slots: make(map[string]*slot), open: make(map[*conn]struct{}),
	}
}

var (
	errDialerClosed = errors.New("the dialer is closed")
	errNoneFree     = errors.New("no free connection")
)

// Serve makes a transport connect through the dialer.
func (d *Dialer) Serve(t *http.Transport) {
	t.DialContext, d.closeIdle = d.DialContext, t.CloseIdleConnections
}

// DialContext opens a connection. It waits if too many are open.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.dial(ctx, network, address, hooks{closeIdle: d.closeIdle})
	if err != nil {
		return nil, err // not a net.Conn that holds a nil
	}
	return c, nil
}

// hooks are called by a connection for its user; each may be nil.
type hooks struct {
	closed    func(*conn) // called when the connection has been closed
	closeIdle func()      // closes connections, this one among them if it is idle
}

func (d *Dialer) dial(ctx context.Context, network, address string, h hooks) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	slot := d.enter(address)
	select {
	case slot.taken <- struct{}{}:
	case <-ctx.Done():
		d.leave(address)
		return nil, &net.OpError{Op: "dial", Net: network, Err: errNoneFree}
	}
	free := func() {
		<-slot.taken
		d.leave(address)
	}
	if err := d.Connections.enter(ctx); err != nil {
		free()
		return nil, &net.OpError{Op: "dial", Net: network, Err: errNoneFree}
	}
	dialer := net.Dialer{Control: d.egress.Control}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		d.Connections.leave()
		free()
		return nil, err
	}
	c := &conn{
		Conn: raw, dialer: d, free: free, address: raw.RemoteAddr().String(), hooks: h, over: make(chan struct{}),
	}
	d.Connections.add(c)
	d.mu.Lock()
	d.open[c] = struct{}{}
	over := d.closed
	d.mu.Unlock()
	if over {
		return nil, errors.Join(errDialerClosed, c.Close())
	}
	return c, nil
}

// slot limits the connections to an address.
type slot struct {
	taken chan struct{}
	users int // connections and waiters
}

// enter returns the slot of an address and adds a user to it.
func (d *Dialer) enter(address string) *slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.slots[address]
	if s == nil {
		s = &slot{taken: make(chan struct{}, d.limit)}
		d.slots[address] = s
	}
	s.users++
	return s
}

// leave removes a user from the slot of an address, and the slot with its last
// user.
func (d *Dialer) leave(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.slots[address]
	if s.users--; s.users == 0 {
		delete(d.slots, address)
	}
}

// Close closes all connections and prevents new ones.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	open := make([]*conn, 0, len(d.open))
	for c := range d.open {
		open = append(open, c)
	}
	d.mu.Unlock()
	var errs []error
	for _, c := range open {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) { // already closed
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type conn struct {
	net.Conn
	dialer *Dialer
	free   func() // releases its slot
	// address is the remote address.
	address string
	hooks   hooks
	once    sync.Once
	over    chan struct{} // closed after the connection

	// idleSince is when it became idle, in Unix nanoseconds; 0 if it is not, or if that
	// is not known. If it is set, evict closes the connection if it is still idle.
	idleSince atomic.Int64
	evict     func()

	mu     sync.Mutex
	broken bool   // a write failed
	rest   []byte // received before the failure and not yet read
}

const (
	// restLimit and restTime limit what is read from a broken connection.
	restLimit = 4 << 10
	restTime  = 10 * time.Millisecond
	// overTime is how long closing a broken connection may take.
	overTime = 200 * time.Millisecond
)

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		return n, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rest) > 0 {
		n = copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.mu.Lock()
		c.broken = true
		c.mu.Unlock()
	}
	return n, err
}

// Close closes the connection and releases its slot. Data received before a
// write failed can still be read: it may be the TLS alert with the reason.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.mu.Lock()
		if c.broken && c.SetReadDeadline(time.Now().Add(restTime)) == nil {
			c.rest, _ = io.ReadAll(io.LimitReader(c.Conn, restLimit)) // always ends with an error
		}
		c.mu.Unlock()
		err = c.Conn.Close()
		c.dialer.mu.Lock()
		delete(c.dialer.open, c)
		c.dialer.mu.Unlock()
		if c.hooks.closed != nil {
			c.hooks.closed(c)
		}
		close(c.over)
		c.dialer.Connections.remove(c)
		c.free()
	})
	return err
}

// isOver reports whether the connection was closed, after waiting briefly for
// that.
func (c *conn) isOver() bool {
	select {
	case <-c.over:
		return true
	case <-time.After(overTime):
		return false
	}
}

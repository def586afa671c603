package sender

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Dialer opens connections under an egress rule, no more than a limit at once
// to one address, and can close them all. Give its DialContext to an
// http.Transport.
type Dialer struct {
	egress  Egress
	limit   int
	timeout time.Duration

	mu     sync.Mutex
	slots  map[string]chan struct{} // by address
	open   map[*conn]struct{}
	closed bool
}

// NewDialer returns a dialer that lets at most limit connections to an address
// be open and takes at most timeout to open one.
func NewDialer(egress Egress, limit int, timeout time.Duration) *Dialer {
	return &Dialer{
		egress: egress, limit: limit, timeout: timeout,
		slots: make(map[string]chan struct{}), open: make(map[*conn]struct{}),
	}
}

var errDialerClosed = errors.New("the dialer is closed")

// DialContext opens a connection; it waits while too many are open.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	slot := d.slot(address)
	select {
	case slot <- struct{}{}:
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no free connection")}
	}
	dialer := net.Dialer{Control: d.egress.Control}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		<-slot
		return nil, err
	}
	c := &conn{Conn: raw, dialer: d, slot: slot, address: raw.RemoteAddr().String()}
	d.mu.Lock()
	d.open[c] = struct{}{}
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil, errors.Join(errDialerClosed, c.Close())
	}
	return c, nil
}

func (d *Dialer) slot(address string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	slot := d.slots[address]
	if slot == nil {
		slot = make(chan struct{}, d.limit)
		d.slots[address] = slot
	}
	return slot
}

// Close closes all connections; no more can be opened.
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
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

type conn struct {
	net.Conn
	dialer *Dialer
	slot   chan struct{}
	// address is the other side's.
	address string
	once    sync.Once
}

// Close closes the connection and makes room for another.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		c.dialer.mu.Lock()
		delete(c.dialer.open, c)
		c.dialer.mu.Unlock()
		<-c.slot
	})
	return err
}

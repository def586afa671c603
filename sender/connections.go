package sender

import (
	"context"
	"sync"
	"time"
)

// Connections limits the open connections of all dialers that share it. If the limit is reached,
// the one that has been idle longest is closed to make room for another.
type Connections struct {
	slots chan struct{} // one for each connection, open or being opened

	mu   sync.Mutex
	open map[*conn]struct{}
}

// NewConnections returns a limit on open connections.
func NewConnections(limit int) *Connections {
	return &Connections{slots: make(chan struct{}, limit), open: make(map[*conn]struct{})}
}

// Open returns the number of connections that are open or being opened.
func (c *Connections) Open() int { return len(c.slots) }

// reclaimInterval is how often a waiting dialer looks for idle connections.
const reclaimInterval = 20 * time.Millisecond

// enter waits until one more connection may be opened.
func (c *Connections) enter(ctx context.Context) error {
	if c == nil {
		return nil
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	default:
	}
	again := time.NewTicker(reclaimInterval)
	defer again.Stop()
	for {
		c.reclaim()
		select {
		case c.slots <- struct{}{}:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave reverts enter, unless the connection was opened: then closing it does
// that.
func (c *Connections) leave() {
	if c != nil {
		<-c.slots
	}
}

func (c *Connections) add(opened *conn) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[opened] = struct{}{}
}

func (c *Connections) remove(closed *conn) {
	if c == nil {
		return
	}
	c.mu.Lock()
	delete(c.open, closed)
	c.mu.Unlock()
	c.leave()
}

// reclaim closes the connection that has been idle longest. net/http does not report which
// of its connections are idle, so one of those is closed only if there is no other.
func (c *Connections) reclaim() {
	var oldest *conn
	var since int64
	var others []func()
	c.mu.Lock()
	for v := range c.open {
		switch at := v.idleSince.Load(); {
		case at != 0 && (oldest == nil || at < since):
			oldest, since = v, at
		case at == 0 && v.hooks.closeIdle != nil:
			others = append(others, v.hooks.closeIdle)
		}
	}
	c.mu.Unlock()
	if oldest != nil {
		oldest.evict()
		return
	}
	for _, closeIdle := range others {
		if len(c.slots) < cap(c.slots) {
			return
		}
		closeIdle()
	}
}

//go:build unix

package main

import (
	"net"
	"sync"
	"sync/atomic"
)

// proxy forwards connections from a server to its database.
type proxy struct {
	listener net.Listener
	target   string
	cut      atomic.Bool

	mu    sync.Mutex
	links map[*link]bool
}

// link is a client connection and its database connection.
type link struct {
	client, database net.Conn
	silent           atomic.Bool // discards all bytes
}

func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, links: make(map[*link]bool)}
	go p.serve()
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.cut.Load() {
			_ = c.Close()
			continue
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		to, err := net.Dial("tcp", target)
		if err != nil {
			_ = c.Close()
			continue
		}
		l := &link{client: c, database: to}
		p.mu.Lock()
		p.links[l] = true
		p.mu.Unlock()
		if p.cut.Load() { // after the accept
			l.close()
		}
		go p.forward(l, c, to)
		go p.forward(l, to, c)
	}
}

// forward copies bytes in one direction until either side closes.
func (p *proxy) forward(l *link, from, to net.Conn) {
	defer func() {
		l.close()
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !l.silent.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.database.Close()
}

// setCut closes all connections and refuses new ones, or accepts them again.
func (p *proxy) setCut(cut bool) {
	p.cut.Store(cut)
	if cut {
		p.each((*link).close)
	}
}

// silence makes existing connections discard all bytes. New connections work.
func (p *proxy) silence() { p.each(func(l *link) { l.silent.Store(true) }) }

func (p *proxy) each(do func(*link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		do(l)
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.setCut(true)
}

// redirect sends new connections to another database and closes existing ones.
func (p *proxy) redirect(target string) {
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
	p.setCut(true)
	p.setCut(false)
}

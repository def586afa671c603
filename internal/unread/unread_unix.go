//go:build unix

// Package unread looks at idle connections.
package unread

import (
	"net"
	"syscall"
)

// Unread reports whether unexpected data has arrived on an idle connection, or its end:
// it cannot be used again. It does not block.
func Unread(c net.Conn) bool {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok { // by TLS
		c = wrapped.NetConn()
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	var peek error
	err = raw.Control(func(fd uintptr) {
		_, _, peek = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err != nil || (peek != syscall.EAGAIN && peek != syscall.EWOULDBLOCK)
}

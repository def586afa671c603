//go:build unix

package store

import (
	"net"
	"syscall"
)

// unread reports whether unexpected data has arrived on an idle connection,
// such as the message that the server sends when it stops. It does not block.
func unread(c net.Conn) bool {
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

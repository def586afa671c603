//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sender

import (
	"net"
	"syscall"
)

// readable reports whether an idle connection has something to read, which means that
// the receiver has closed it or speaks out of turn. It does not wait.
func readable(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, failed = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err != nil || failed == nil || failed != syscall.EAGAIN && failed != syscall.EWOULDBLOCK
}

//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sender

import "net"

// readable reports whether an idle connection has something to read; here that cannot be
// known without waiting.
func readable(net.Conn) bool { return false }

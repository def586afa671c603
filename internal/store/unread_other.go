//go:build !unix

package store

import "net"

// unread is not implemented: connections are pinged after a pause.
func unread(net.Conn) bool { return false }

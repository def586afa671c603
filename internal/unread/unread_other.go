//go:build !unix

// Package unread looks at idle connections.
package unread

import "net"

// Unread does nothing: on this system a socket cannot be checked without reading from
// it.
func Unread(net.Conn) bool { return false }

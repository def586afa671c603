//go:build !linux

package store

import "syscall"

// noticeSilence does nothing: only keep-alives and statement timeouts detect a
// machine that is gone.
func noticeSilence(string, string, syscall.RawConn) error { return nil }

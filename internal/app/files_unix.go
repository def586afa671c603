//go:build unix

package app

import (
	"log/slog"
	"syscall"
)

// warnOfFileLimit warns if the endpoints may need more connections than the process
// may have open files, since one endpoint could then starve others.
func warnOfFileLimit(logger *slog.Logger, connections int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	const others = 256 // the database, the listener and its clients
	if uint64(connections+others) > uint64(limit.Cur) {
		logger.Warn("the endpoints' max_in_flight allow more connections than this process may have open files; "+
			"raise its limit (ulimit -n, LimitNOFILE), or lower max_in_flight",
			"connections", connections, "open_files", uint64(limit.Cur))
	}
}

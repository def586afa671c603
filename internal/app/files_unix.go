//go:build unix

package app

import (
	"log/slog"
	"syscall"
)

// connectionLimit returns how many connections to endpoints the process may have: as
// many as are configured, or fewer if the limit on open files is lower.
func connectionLimit(logger *slog.Logger, configured int) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return configured
	}
	const others = 256 // the database, the listener and its clients
	open := uint64(files.Cur)
	if free := open - min(others, open/2); free < uint64(configured) {
		logger.Warn("the limit on open files leaves fewer connections to endpoints than webhook.max_connections; "+
			"raise it (ulimit -n, LimitNOFILE), or lower the setting",
			"open_files", open, "max_connections", configured, "connections", free)
		return max(int(free), 1) //nolint:gosec // it is less than configured
	}
	return configured
}

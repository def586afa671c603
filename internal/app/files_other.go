//go:build !unix

package app

import "log/slog"

// warnOfFiles has nothing to say where open files have no limit of their own.
func warnOfFiles(*slog.Logger, int) {}

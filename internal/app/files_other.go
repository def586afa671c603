//go:build !unix

package app

import "log/slog"

// connectionLimit returns what is configured: open files have no limit of their own.
func connectionLimit(_ *slog.Logger, configured int) int { return configured }

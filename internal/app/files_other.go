//go:build !unix

package app

import "log/slog"

// warnOfFileLimit does nothing: this system does not limit open files.
func warnOfFileLimit(*slog.Logger, int) {}

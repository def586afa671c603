//go:build !unix || solaris || aix

package store

import "os"

// lockDirectory does nothing: on Windows, a locked file cannot be removed.
func lockDirectory(string) (directory *os.File, locked bool, err error) { return nil, true, nil }

//go:build !unix || solaris || aix

package store

import "os"

// lockDirectory does nothing: a file that is locked can't be removed on Windows.
func lockDirectory(string) (directory *os.File, locked bool, err error) { return nil, true, nil }

//go:build unix && !solaris && !aix

package store

import (
	"errors"
	"os"
	"syscall"
)

// lockDirectory locks a directory itself until the file is closed. It returns
// no file on file systems that do not support this, such as NFS.
func lockDirectory(path string) (directory *os.File, locked bool, err error) {
	if directory, err = os.Open(path); err != nil {
		return nil, false, err
	}
	switch err = syscall.Flock(int(directory.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return directory, true, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, false, directory.Close()
	}
	return nil, true, directory.Close()
}

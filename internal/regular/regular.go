// Package regular reads small files named by an operator. It reads regular
// files only, because a named pipe or device may never end, or block on open.
package regular

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/tidings-dev/tidings/internal/valid"
)

// Limit is the maximum size of a file that is read.
const Limit = 4 << 20

// Read returns the contents of a regular file without a byte order mark, following
// symbolic links. Errors are [fs.PathError]s.
func Read(path string) ([]byte, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may just have been replaced
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := check(path, info.Mode()); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, Limit+1))
	if err == nil && len(text) > Limit {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("is larger than 4 MiB")}
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimPrefix(text, []byte(valid.ByteOrderMark)), nil
}

// Check returns an error if the path is not a regular file, for files that
// other code reads. It does not open the file, and does not report missing
// files.
func Check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	return check(path, info.Mode())
}

// check returns an error unless the mode is that of a regular file.
func check(path string, mode fs.FileMode) error {
	kind := ""
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	default:
		kind = "a device"
	}
	return &fs.PathError{Op: "read", Path: path, Err: errors.New("is " + kind + "; name a regular file")}
}

// Package datadir manages the data directory: the names of the files in it, and
// permissions that keep other users from reading it, whatever the umask. On
// Windows, which has no file modes, the directory's own permissions govern
// access.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/tidings-dev/tidings/internal/regular"
)

// Names of files in a data directory.
const (
	Database      = "tidings.db" // SQLite also creates -wal and -shm
	Lock          = "tidings.lock"
	Files         = "files" // directory of file contents
	AdminToken    = "admin-token"
	EncryptionKey = "encryption-key"
)

var names = []string{
	Database, Database + "-wal", Database + "-shm", Database + "-journal", Lock, Files, AdminToken, EncryptionKey,
}

const (
	group  = 0o070
	others = 0o007
)

// Create creates a directory and its parents, accessible only to their owner. It
// leaves an existing directory alone.
func Create(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Explain(folder, err)
	}
	return nil
}

// Explain adds advice to an error about a data directory.
func Explain(folder string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		advice = "; the path or one of its parents is a file: set data_dir to a directory"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		advice = "; the user that runs Tidings needs write permission: change the directory's owner (chown) or set " +
			"another data_dir"
	}
	return fmt.Errorf("data_dir %s: %w%s", folder, err, advice)
}

// Touch creates an empty file, accessible only to its owner. It does not even
// open an existing file, because closing it would release SQLite's locks.
func Touch(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Close()
}

// WriteNew creates a file, accessible only to its owner, atomically even if the
// power fails. If the file exists, it returns [fs.ErrExist].
func WriteNew(file string, data []byte) error {
	folder := filepath.Dir(file)
	if err := Create(folder); err != nil {
		return err
	}
	part, err := writePart(file, data, (*os.File).Sync)
	if err != nil {
		return err
	}
	defer os.Remove(part) //nolint:errcheck // already gone if it was renamed
	if err := os.Link(part, file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// The file system has no hard links. Without them, two processes that do
		// this at the same moment may both succeed.
		if _, err := os.Lstat(file); err == nil {
			return &fs.PathError{Op: "create", Path: file, Err: fs.ErrExist}
		}
		if err := os.Rename(part, file); err != nil {
			return err
		}
	}
	return syncFolder(folder)
}

// Replace writes a file, accessible to its owner only. A reader, even after
// the process was killed, gets the old or the new contents; after a power failure
// the file may be empty.
func Replace(file string, data []byte) error {
	part, err := writePart(file, data, func(*os.File) error { return nil })
	if err != nil {
		return err
	}
	err = os.Rename(part, file)
	if err != nil {
		_ = os.Remove(part)
	}
	return err
}

// writePart writes what is to become a file to another one beside it, whose path
// it returns.
func writePart(file string, data []byte, sync func(*os.File) error) (path string, err error) {
	folder, name := filepath.Split(file)
	part, err := os.CreateTemp(filepath.Clean(folder), "."+name+"-") // with mode 0600
	if err != nil {
		return "", err
	}
	_, err = part.Write(data)
	if err = errors.Join(err, sync(part), part.Close()); err != nil {
		_ = os.Remove(part.Name())
		return "", err
	}
	return part.Name(), nil
}

// ReadOrCreate reads a small file. If it does not exist, ReadOrCreate writes text
// to it, like [WriteNew].
func ReadOrCreate(file, text string) (read string, created bool, err error) {
	b, err := regular.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err = WriteNew(file, []byte(text)); err == nil {
			return text, true, nil
		}
		if errors.Is(err, fs.ErrExist) { // created by another process
			b, err = regular.Read(file)
		}
	}
	return string(b), false, err
}

// syncFolder makes a directory's entries survive a power failure.
func syncFolder(folder string) error {
	if runtime.GOOS == "windows" {
		return nil // neither possible nor necessary
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Tighten removes other users' permissions from Tidings' files in a data
// directory. It leaves other files and the directory itself alone. If it can't
// change a file, because another user owns it or the file system has no modes,
// [Exposed] still lists the file.
func Tighten(folder string) {
	if runtime.GOOS == "windows" {
		return
	}
	for _, name := range names {
		path := filepath.Join(folder, name)
		info, err := os.Lstat(path)
		if err == nil && info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&(group|others) != 0 {
			_ = os.Chmod(path, info.Mode().Perm()&^(group|others)) // Exposed lists failures
		}
	}
}

// Exposed lists the paths in a data directory, including the directory itself,
// that other users of this machine can read or write.
func Exposed(folder string) (paths []string) {
	if IsExposed(folder) {
		paths = append(paths, folder)
	}
	for _, name := range names {
		if path := filepath.Join(folder, name); IsExposed(path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// IsExposed reports whether users other than the owner and group of a file or
// directory can read or write it.
func IsExposed(path string) bool {
	info, err := os.Stat(path)
	return runtime.GOOS != "windows" && err == nil && info.Mode().Perm()&others != 0
}

// Package datadir manages the data folder: the names of the files in it, and
// permissions that keep other users from reading it, whatever the umask. On
// Windows, which has no such modes, access is governed by the folder's own
// permissions.
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

// The names in a data folder.
const (
	Database      = "tidings.db" // SQLite, which adds -wal and -shm
	Lock          = "tidings.lock"
	Files         = "files" // contents of files
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

// Create creates a folder and its parents, accessible to their owner only. It
// leaves an existing folder alone.
func Create(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Explain(folder, err)
	}
	return nil
}

// Explain adds advice to an error about a data folder.
func Explain(folder string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		advice = "; the path, or one of its parents, is a file: set data_dir to a folder"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		advice = "; the user that runs Tidings must be able to write there: change the folder's owner (chown) or set " +
			"another data_dir"
	}
	return fmt.Errorf("data_dir %s: %w%s", folder, err, advice)
}

// Touch creates an empty file, accessible to its owner only. It leaves an
// existing file alone and does not even open it, because closing it would
// release SQLite's locks on it.
func Touch(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Close()
}

// WriteNew creates a file, accessible to its owner only, atomically even if the
// power fails. It never replaces a file: the error is [fs.ErrExist].
func WriteNew(file string, data []byte) error {
	folder, name := filepath.Split(file)
	folder = filepath.Clean(folder)
	if err := Create(folder); err != nil {
		return err
	}
	part, err := os.CreateTemp(folder, "."+name+"-") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) //nolint:errcheck // already gone if it was renamed
	_, err = part.Write(data)
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	if err := os.Link(part.Name(), file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// The file system has no hard links. Without them, two processes that
		// do this at the same moment cannot be distinguished.
		if _, err := os.Lstat(file); err == nil {
			return &fs.PathError{Op: "create", Path: file, Err: fs.ErrExist}
		}
		if err := os.Rename(part.Name(), file); err != nil {
			return err
		}
	}
	return syncFolder(folder)
}

// ReadOrCreate reads a small file. If there is none it creates it with a text, as
// [WriteNew] does.
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

// syncFolder makes the names in a folder survive a power failure.
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

// Tighten removes the permissions of other users on the files in a data folder.
// It leaves other files and the folder itself alone. Where it cannot, because
// the file belongs to another user or the file system has no modes, [Exposed]
// still lists the file.
func Tighten(folder string) {
	if runtime.GOOS == "windows" {
		return
	}
	for _, name := range names {
		path := filepath.Join(folder, name)
		info, err := os.Lstat(path)
		if err == nil && info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&(group|others) != 0 {
			_ = os.Chmod(path, info.Mode().Perm()&^(group|others)) // see above
		}
	}
}

// Exposed lists the paths in a data folder, including the folder itself, that
// other users of this machine can read or write.
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

// IsExposed reports whether users who are neither the owner of a file or folder
// nor in its group can read or write it.
func IsExposed(path string) bool {
	info, err := os.Stat(path)
	return runtime.GOOS != "windows" && err == nil && info.Mode().Perm()&others != 0
}

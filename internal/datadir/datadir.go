// Package datadir is the data folder: what is in it, and that nobody but its
// owner can read that, whatever the umask. On Windows, where files have no such
// modes, access is left to the folder's own permissions.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// The names in a data folder.
const (
	Database      = "tidings.db" // of SQLite, which adds -wal and -shm
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

// Create makes a folder, and those above it, for their owner alone. A folder that
// exists stays as it is.
func Create(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Explain(folder, err)
	}
	return nil
}

// Explain says of an error what has to be done about a data folder.
func Explain(folder string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		advice = "; it, or something above it, is a file: set data_dir to a folder"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		advice = "; the user that runs Tidings must be able to write there: give it the folder (chown), or set " +
			"another data_dir"
	}
	return fmt.Errorf("data_dir %s: %w%s", folder, err, advice)
}

// Touch makes an empty file for its owner alone. A file that exists stays as it
// is, and is not even opened: closing it would end SQLite's locks on it.
func Touch(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Close()
}

// WriteNew makes a file for its owner alone, whole or not at all, also if the
// power fails. It never replaces a file: then the error is [fs.ErrExist].
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
	defer os.Remove(part.Name()) //nolint:errcheck // it is gone if it was renamed
	_, err = part.Write(data)
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	if err := os.Link(part.Name(), file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// The file system has no links. Without them, two processes that do this at
		// the same moment are not told apart.
		if _, err := os.Lstat(file); err == nil {
			return &fs.PathError{Op: "create", Path: file, Err: fs.ErrExist}
		}
		if err := os.Rename(part.Name(), file); err != nil {
			return err
		}
	}
	return syncFolder(folder)
}

// syncFolder makes the names in a folder survive a power cut.
func syncFolder(folder string) error {
	if runtime.GOOS == "windows" {
		return nil // it can't be done, and need not be
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Tighten takes away what anybody but the owner may do with the files in a data
// folder. Other files in it, and the folder itself, stay as they are. Where it
// can't, because the file belongs to somebody else or the file system has no
// modes, [Exposed] still lists the file.
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

// Exposed lists the paths of a data folder that other users of this machine can
// read or write: the folder itself, and what is in it.
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

// IsExposed reports whether other users of this machine, who are not in the
// file's group either, can read or write a file or a folder.
func IsExposed(path string) bool {
	info, err := os.Stat(path)
	return runtime.GOOS != "windows" && err == nil && info.Mode().Perm()&others != 0
}

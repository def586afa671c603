package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/tidings-dev/tidings/internal/datadir"
)

// The lock is on the first byte of the file, which on Windows no other process can
// then read. The holder's description follows in a record of fixed length.
const (
	holderOffset = 1
	holderLength = 255
)

// folderLock is the lock on a data directory. The operating system releases it
// when the process ends, even if it crashes.
type folderLock struct {
	lock   *flock.Flock
	path   string
	folder *os.File // also locked, because the file can be removed; nil where unsupported
}

// lockFolder makes this process the only one to open the SQLite database in a
// folder. The error names the process that holds the lock.
func lockFolder(folder string) (*folderLock, error) {
	real := realFolder(folder)
	// The file is never removed: the process that did so could not know whether another
	// process had just opened it.
	path := filepath.Join(real, datadir.Lock)
	l := &folderLock{
		lock: flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600)),
		path: path,
	}
	locked, err := l.lock.TryLock()
	if err == nil && locked {
		l.folder, locked, err = lockDirectory(real)
	}
	if err != nil {
		return nil, errors.Join(datadir.Explain(folder, fmt.Errorf("lock: %w", err)), l.lock.Close())
	}
	if !locked {
		err := fmt.Errorf("data directory %s is in use by %s; stop it first or set another data_dir", folder,
			l.holder())
		return nil, errors.Join(err, l.lock.Close())
	}
	host, _ := os.Hostname() // informational only
	me := fmt.Sprintf("process %d on host %s (opened at %s)", os.Getpid(), host,
		time.Now().UTC().Format(time.RFC3339))
	if err := l.write(me); err != nil {
		return nil, errors.Join(datadir.Explain(folder, fmt.Errorf("lock: %w", err)), l.release())
	}
	return l, nil
}

// realFolder resolves symbolic links to the database's folder.
func realFolder(folder string) string {
	if file, err := filepath.EvalSymlinks(filepath.Join(folder, datadir.Database)); err == nil {
		return filepath.Dir(file)
	}
	return folder
}

// close releases the folder.
func (l *folderLock) close() error {
	err := l.write("")
	if errors.Is(err, os.ErrNotExist) { // it was removed
		err = nil
	}
	return errors.Join(err, l.release())
}

func (l *folderLock) release() error {
	err := l.lock.Close()
	if l.folder != nil {
		err = errors.Join(err, l.folder.Close())
	}
	return err
}

func (l *folderLock) write(holder string) error {
	file, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(fmt.Appendf(nil, "%-*.*s\n", holderLength, holderLength, holder), holderOffset)
	return errors.Join(err, file.Close())
}

func (l *folderLock) holder() string {
	const unknown = "another process"
	file, err := os.Open(l.path)
	if err != nil {
		return unknown
	}
	defer file.Close()
	text := make([]byte, holderLength)
	n, _ := file.ReadAt(text, holderOffset) // the holder may not have written it yet
	if holder := strings.TrimSpace(string(text[:n])); holder != "" {
		return holder
	}
	return unknown
}

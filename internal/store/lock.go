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

// The operating system's lock is on the first byte, which Windows then lets
// nobody else read; who holds it is written behind that, in a record of a fixed
// length.
const (
	holderOffset = 1
	holderLength = 255
)

// folderLock is the lock on a data folder. It ends with its process, however that
// ends.
type folderLock struct {
	lock   *flock.Flock
	path   string
	folder *os.File // locked as well, for the file can be removed; nil where that is not possible
}

// lockFolder makes this process the only one that has the SQLite database in a
// folder open. The error names the process that has it.
func lockFolder(folder string) (*folderLock, error) {
	real := realFolder(folder)
	// The file stays there: whoever removed it could not tell whether another
	// process has just opened it.
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
		return nil, errors.Join(datadir.Explain(folder, fmt.Errorf("lock it: %w", err)), l.lock.Close())
	}
	if !locked {
		err := fmt.Errorf("data folder %s is in use by %s; stop that first, or set another data_dir", folder,
			l.holder())
		return nil, errors.Join(err, l.lock.Close())
	}
	host, _ := os.Hostname() // it only explains
	me := fmt.Sprintf("process %d on host %s, which opened it at %s", os.Getpid(), host,
		time.Now().UTC().Format(time.RFC3339))
	if err := l.write(me); err != nil {
		return nil, errors.Join(datadir.Explain(folder, fmt.Errorf("lock it: %w", err)), l.release())
	}
	return l, nil
}

// realFolder is where the database in a folder really is: it may be a link.
func realFolder(folder string) string {
	if file, err := filepath.EvalSymlinks(filepath.Join(folder, datadir.Database)); err == nil {
		return filepath.Dir(file)
	}
	return folder
}

// close lets another process have the folder.
func (l *folderLock) close() error {
	err := l.write("")
	if errors.Is(err, os.ErrNotExist) { // somebody removed it
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
	n, _ := file.ReadAt(text, holderOffset) // what is not there yet is about to be written
	if holder := strings.TrimSpace(string(text[:n])); holder != "" {
		return holder
	}
	return unknown
}

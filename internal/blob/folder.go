// Package blob stores file contents in a directory or an S3-compatible store.
package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/resource"
)

// Folder stores each blob as a file named by its id, in subdirectories named by
// the first two letters of the id. Blobs still being written are in "incoming".
type Folder struct{ root *os.Root }

const incoming = "incoming"

// OpenFolder opens a directory, which it creates if necessary.
func OpenFolder(folder string) (*Folder, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("directory of file contents: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("directory of file contents: %w", err)
	}
	if err := root.MkdirAll(incoming, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("directory of file contents: %w", err), root.Close())
	}
	return &Folder{root: root}, nil
}

// Close closes the directory.
func (f *Folder) Close() error { return f.root.Close() }

func name(id string) string {
	if len(id) < 2 {
		return path.Join("_", id)
	}
	return path.Join(id[:2], id)
}

// Write writes a blob and syncs it to disk.
func (f *Folder) Write(ctx context.Context, content io.Reader) (resource.Blob, error) {
	w := &written{folder: f, temporary: path.Join(incoming, rand.Text())}
	file, err := f.root.OpenFile(w.temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write content: %w", diskOutage(err))
	}
	w.size, err = io.Copy(file, content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write content: %w", diskOutage(err)), w.Discard(ctx))
	}
	return w, nil
}

type written struct {
	folder    *Folder
	temporary string
	size      int64
	kept      string // id under which it was kept
}

func (w *written) Size() int64 { return w.size }

// Keep makes the blob the contents of the file with the id. It is idempotent,
// because transactions may be retried.
func (w *written) Keep(_ context.Context, id string) error {
	if w.kept == id {
		return nil
	}
	if err := w.folder.root.MkdirAll(path.Dir(name(id)), 0o700); err != nil {
		return fmt.Errorf("keep content: %w", diskOutage(err))
	}
	if err := w.folder.root.Rename(w.temporary, name(id)); err != nil {
		return fmt.Errorf("keep content: %w", diskOutage(err))
	}
	w.kept = id
	return errors.Join(w.folder.sync(path.Dir(name(id))), w.folder.sync("."))
}

// Discard deletes a blob that was not kept.
func (w *written) Discard(context.Context) error {
	return ignoreNotExist(w.folder.root.Remove(w.temporary))
}

// sync makes a directory's entries survive a power failure. Windows neither
// supports nor requires this.
func (f *Folder) sync(folder string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := f.root.Open(folder)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open opens a blob.
func (f *Folder) Open(_ context.Context, id string) (io.ReadSeekCloser, error) {
	file, err := f.root.Open(name(id))
	if err != nil {
		return nil, fmt.Errorf("open content: %w", diskOutage(err))
	}
	return file, nil
}

// diskOutage marks disk errors, such as a full disk. It leaves errors of the
// source being read alone.
func diskOutage(err error) error {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	if path || link {
		err, _ = eventlog.Unavailable(err)
	}
	return err
}

// Remove deletes a blob. It is not an error if the blob does not exist.
func (f *Folder) Remove(_ context.Context, id string) error {
	return ignoreNotExist(f.root.Remove(name(id)))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// uploadTime is the age at which an unfinished upload counts as abandoned.
const uploadTime = 24 * time.Hour

// Each calls do for every blob written before the given time. It also deletes
// abandoned uploads, and removes other users' permissions, which restoring a
// backup may have added.
func (f *Folder) Each(ctx context.Context, before time.Time, do func(id string) error) error {
	return fs.WalkDir(f.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreNotExist(err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info, err := d.Info()
		if err != nil {
			return ignoreNotExist(err) // deleted in the meantime
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
			_ = f.root.Chmod(p, mode&^0o077) // fails for other users' files
		}
		if d.IsDir() {
			return nil
		}
		if strings.HasPrefix(p, incoming+"/") {
			if info.ModTime().Before(time.Now().Add(-uploadTime)) {
				return ignoreNotExist(f.root.Remove(p))
			}
			return nil
		}
		if info.ModTime().Before(before) {
			return do(d.Name())
		}
		return nil
	})
}

// Package blob keeps file contents, in a folder or in an S3-compatible store.
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

// Folder keeps each content as a file, named by its id, in a subfolder of the
// id's first two letters; what is still being written is in "incoming".
type Folder struct{ root *os.Root }

const incoming = "incoming"

// OpenFolder opens a folder, which it creates if need be.
func OpenFolder(folder string) (*Folder, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("folder of file contents: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("folder of file contents: %w", err)
	}
	if err := root.MkdirAll(incoming, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("folder of file contents: %w", err), root.Close())
	}
	return &Folder{root: root}, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.root.Close() }

func name(id string) string {
	if len(id) < 2 {
		return path.Join("_", id)
	}
	return path.Join(id[:2], id)
}

// Write streams a content into the folder; it is on the disk when Write returns.
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
	kept      string // the id
}

func (w *written) Size() int64 { return w.size }

// Keep makes the content that of an id. It may be called again with the same id,
// as a transaction that is run again does.
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

// Discard removes a content that was not kept.
func (w *written) Discard(context.Context) error { return ifThere(w.folder.root.Remove(w.temporary)) }

// sync makes the names in a folder survive a power cut. Windows can't, and need
// not.
func (f *Folder) sync(folder string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := f.root.Open(folder)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open opens a content.
func (f *Folder) Open(_ context.Context, id string) (io.ReadSeekCloser, error) {
	file, err := f.root.Open(name(id))
	if err != nil {
		return nil, fmt.Errorf("open content: %w", diskOutage(err))
	}
	return file, nil
}

// diskOutage marks the errors of a disk that is full, or fails. Those of the
// content that was to be written are the sender's.
func diskOutage(err error) error {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	if path || link {
		err, _ = eventlog.Unavailable(err)
	}
	return err
}

// Remove removes a content; one that is not there is no error.
func (f *Folder) Remove(_ context.Context, id string) error { return ifThere(f.root.Remove(name(id))) }

func ifThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// An upload that takes longer is given up.
const uploadTime = 24 * time.Hour

// Each calls do with every content that was written before a time. On the way it
// removes what was never finished, and takes away what others may do with a file,
// as after a backup was copied back.
func (f *Folder) Each(ctx context.Context, before time.Time, do func(id string) error) error {
	return fs.WalkDir(f.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return ifThere(err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info, err := d.Info()
		if err != nil {
			return ifThere(err) // gone meanwhile
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
			_ = f.root.Chmod(p, mode&^0o077) // somebody else's stays as it is
		}
		if d.IsDir() {
			return nil
		}
		if strings.HasPrefix(p, incoming+"/") {
			if info.ModTime().Before(time.Now().Add(-uploadTime)) {
				return ifThere(f.root.Remove(p))
			}
			return nil
		}
		if info.ModTime().Before(before) {
			return do(d.Name())
		}
		return nil
	})
}

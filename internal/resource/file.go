package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// The types of files.
const (
	userUpload    = "user_upload"
	extractedText = "extracted_text"
)

// File is content that a user uploaded, or text extracted from it.
type File struct {
	bun.BaseModel `bun:"table:files"`
	Base

	Filename      string      `json:"filename"`
	ContentType   string      `json:"content_type"`
	FileSizeBytes int64       `json:"file_size_bytes"`
	FileType      string      `json:"file_type" enum:"user_upload,extracted_text"`
	ParentFileID  *string     `json:"parent_file_id" format:"uuid" doc:"The file that this text was extracted from."`
	ContextID     *string     `json:"context_id" format:"uuid"`
	Extraction    *Extraction `bun:",nullzero,type:json" json:"-"`
}

func (f *File) sortValue(column string) any {
	switch column {
	case "filename":
		return f.Filename
	case "file_size_bytes":
		return f.FileSizeBytes
	}
	return f.Base.sortValue(column)
}

// Files are the users' files: a row each, and a content in the store for contents.
type Files struct {
	*collection[*File]
	contexts *Contexts
	blobs    Blobs
	limits   FileLimits
	incoming incoming
}

func newFiles(contexts *Contexts, blobs Blobs, limits FileLimits) *Files {
	f := &Files{contexts: contexts, blobs: blobs, limits: limits, incoming: incoming{bytes: make(map[string]int64)}}
	f.collection = newCollection(kind[*File]{
		Type:   FileType,
		URL:    "/api/v1/files/{id}",
		New:    func() *File { return new(File) },
		policy: privateInContext,
		References: []reference[*File]{
			{To: ContextType, Column: "context_id"},
			{To: FileType, Column: "parent_file_id"},
		},
		Deleting: f.removeContent,
	})
	return f
}

// Get returns a file of the caller's.
func (f *Files) Get(ctx context.Context, who Caller, id string) (*File, error) {
	return f.get(ctx, who, id)
}

// Blobs keeps file contents, by the file's id.
type Blobs interface {
	// Write reads all of content into a blob that can't be seen yet.
	Write(ctx context.Context, content io.Reader) (Blob, error)
	// Open opens a blob, to be read while the context lasts.
	Open(ctx context.Context, id string) (io.ReadSeekCloser, error)
	// Remove removes a blob; one that is not there is no error.
	Remove(ctx context.Context, id string) error
	// Each calls do with every blob that was kept before a time.
	Each(ctx context.Context, before time.Time, do func(id string) error) error
}

// Blob is a content that was written.
type Blob interface {
	Size() int64
	// Keep makes it the content of an id; a second time does no harm.
	Keep(ctx context.Context, id string) error
	// Discard removes it unless it was kept. One that was kept stays even if the
	// commit after it failed, of which nobody knows whether it happened: without
	// a row, it is swept up.
	Discard(ctx context.Context) error
}

// FileLimits are how much may be kept, in bytes.
type FileLimits struct {
	MaxSize   int64
	UserQuota int64
}

// removeContent removes a file's content once its row is gone.
func (f *Files) removeContent(ctx context.Context, tx *store.Tx, id string) error {
	tx.After(func() {
		if err := f.blobs.Remove(context.WithoutCancel(ctx), id); err != nil {
			f.logger.Warn("the content of a deleted file stays until the next sweep", "file", id, "error", err)
		}
	})
	return nil
}

// NewFile is a file to be kept.
type NewFile struct {
	Filename    string
	ContentType string
	Content     io.Reader
}

const maxFileText = 256

// Create streams a content into the store. Row and content appear together
// or not at all. The file belongs to the context that the request is limited to.
func (f *Files) Create(ctx context.Context, who Caller, in NewFile) (*File, error) {
	if in.Filename == "" || len(in.Filename) > maxFileText {
		return nil, fail(Invalid, "file", "the file needs a name of 1 to %d bytes", maxFileText)
	}
	if in.ContentType == "" || len(in.ContentType) > maxFileText {
		return nil, fail(Invalid, "file", "the file needs a content type of 1 to %d bytes", maxFileText)
	}
	if err := f.contexts.need(ctx, who); err != nil { // before anything is read
		return nil, err
	}
	row := &File{
		Base:     Base{ID: newID()},
		Filename: in.Filename, ContentType: in.ContentType, FileType: userUpload, ContextID: who.context(),
	}
	blob, err := f.write(ctx, who, in.Content)
	if err != nil {
		return nil, err
	}
	err = f.store.InTx(ctx, func(tx *store.Tx) error {
		if err := f.contexts.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		return f.insertFile(ctx, tx, who, row, blob)
	})
	return row, errors.Join(err, blob.Discard(context.WithoutCancel(ctx)))
}

// insertFile writes the row of a file and keeps its content, just before the
// transaction is committed.
func (f *Files) insertFile(ctx context.Context, tx *store.Tx, who Caller, row *File, blob Blob) error {
	// Held, so that two uploads can't both take what is left of the quota.
	if err := tx.Lock(ctx, &User{Base: Base{ID: who.UserID}}); err != nil {
		return known(err, "user")
	}
	used, err := tx.Sum(ctx, new(File), "file_size_bytes", ownedBy(who))
	if err != nil {
		return fmt.Errorf("sum of file sizes: %w", err)
	}
	if used+blob.Size() > f.limits.UserQuota {
		return overQuota(used+blob.Size(), f.limits.UserQuota)
	}
	row.FileSizeBytes = blob.Size()
	if err := f.insert(ctx, tx, who, row); err != nil {
		return err
	}
	return blob.Keep(ctx, row.ID)
}

// Delete removes a file and the text extracted from it. If the file is such a text
// itself, the extraction of its source is removed, too.
func (f *Files) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	now, err := f.find(ctx, who, deleting, id)
	if err != nil {
		return err
	}
	return f.store.InTx(ctx, func(tx *store.Tx) error {
		if err := f.contexts.enter(ctx, tx, who, now.ContextID); err != nil {
			return err
		}
		if now.ParentFileID != nil {
			if err := f.forgetExtraction(ctx, tx, who, *now.ParentFileID); err != nil {
				return err
			}
		}
		row, err := f.lock(ctx, tx, who, deleting, id, ifMatch)
		if err != nil {
			return err
		}
		return f.remove(ctx, tx, who, row)
	})
}

// Content opens the content of a file. Whoever calls it closes it.
func (f *Files) Content(ctx context.Context, who Caller, id string) (*File, io.ReadSeekCloser, error) {
	row, err := f.get(ctx, who, id)
	if err != nil {
		return nil, nil, err
	}
	if row.ContextID != nil {
		err := f.store.InTx(ctx, func(tx *store.Tx) error { return f.contexts.enter(ctx, tx, who, row.ContextID) })
		if err != nil {
			return nil, nil, err
		}
	}
	content, err := f.open(ctx, who, row.ID)
	return row, content, err
}

// open opens the content of a file; one that was deleted meanwhile is not there.
func (f *Files) open(ctx context.Context, who Caller, id string) (io.ReadSeekCloser, error) {
	content, err := f.blobs.Open(ctx, id)
	if err != nil {
		if _, gone := f.get(ctx, who, id); isCode(gone, NotFound) {
			return nil, gone
		}
	}
	return content, err
}

// Uploads take a while between content and row; what is older has no row coming.
const orphanAge = time.Hour

// Sweep removes contents without a file, which a crash may leave, and returns how many.
func (f *Files) Sweep(ctx context.Context) (swept int, err error) {
	err = f.blobs.Each(ctx, time.Now().Add(-orphanAge), func(id string) error {
		there, err := f.exists(ctx, id)
		if err != nil || there {
			return err
		}
		swept++
		return f.blobs.Remove(ctx, id)
	})
	return swept, err
}

// FileFilter narrows a list of files.
type FileFilter struct {
	ContentType    string
	FilenameSearch string
}

// List returns a part of the caller's files.
func (f *Files) List(ctx context.Context, who Caller, page Page, in FileFilter) (*Items[*File], error) {
	if err := f.contexts.need(ctx, who); err != nil {
		return nil, err
	}
	var filters []store.Filter
	if in.ContentType != "" {
		filters = append(filters, equal("content_type", in.ContentType))
	}
	if in.FilenameSearch != "" {
		filters = append(filters, store.Filter{Column: "filename", Op: store.Contains, Value: in.FilenameSearch})
	}
	return f.list(ctx, who, page, filters...)
}

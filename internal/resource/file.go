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

// The file types.
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

// Files is the type of the users' files: a row each, and contents in the file
// store.
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

// Get returns one of the caller's files.
func (f *Files) Get(ctx context.Context, who Caller, id string) (*File, error) {
	return f.get(ctx, who, id)
}

// Blobs stores the contents of files by file id.
type Blobs interface {
	// Write reads all of content into a blob that is not yet visible.
	Write(ctx context.Context, content io.Reader) (Blob, error)
	// Open opens a blob; it may be read until the context is done.
	Open(ctx context.Context, id string) (io.ReadSeekCloser, error)
	// Remove deletes a blob. It is not an error if the blob does not exist.
	Remove(ctx context.Context, id string) error
	// Each calls do for every blob that was kept before the given time.
	Each(ctx context.Context, before time.Time, do func(id string) error) error
}

// Blob is content that has been written but not necessarily kept.
type Blob interface {
	Size() int64
	// Keep makes it the content of the file with the id. It is idempotent.
	Keep(ctx context.Context, id string) error
	// Discard deletes it unless it was kept. Kept content remains even if the
	// commit that follows fails, because its outcome is then unknown; without a
	// row, it is swept up.
	Discard(ctx context.Context) error
}

// FileLimits limits the size of files, in bytes.
type FileLimits struct {
	MaxSize   int64
	UserQuota int64
}

// removeContent deletes a file's content once the deletion of its row is
// committed.
func (f *Files) removeContent(ctx context.Context, tx *store.Tx, id string) error {
	tx.After(func() {
		if err := f.blobs.Remove(context.WithoutCancel(ctx), id); err != nil {
			f.logger.Warn("content of a deleted file remains until the next sweep", "file", id, "error", err)
		}
	})
	return nil
}

// NewFile is a file to be created.
type NewFile struct {
	Filename    string
	ContentType string
	Content     io.Reader
}

const maxFileText = 256

// Create streams content into the store. Row and content appear together or not
// at all. The file belongs to the context that the request is restricted to.
func (f *Files) Create(ctx context.Context, who Caller, in NewFile) (*File, error) {
	if in.Filename == "" || len(in.Filename) > maxFileText {
		return nil, fail(Invalid, "file", "the name must be 1 to %d bytes long", maxFileText)
	}
	if in.ContentType == "" || len(in.ContentType) > maxFileText {
		return nil, fail(Invalid, "file", "the content type must be 1 to %d bytes long", maxFileText)
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
	err = f.store.InTxAlone(ctx, func(tx *store.Tx) error {
		if err := f.contexts.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		return f.insertFile(ctx, tx, who, row, blob)
	})
	return row, errors.Join(err, blob.Discard(context.WithoutCancel(ctx)))
}

// insertFile inserts the row of a file and keeps its content, just before the
// transaction commits.
func (f *Files) insertFile(ctx context.Context, tx *store.Tx, who Caller, row *File, blob Blob) error {
	// Locked, so that concurrent uploads cannot both use what is left of the
	// quota.
	if err := tx.Lock(ctx, &User{Base: Base{ID: who.UserID}}); err != nil {
		return fromStore(err, "user")
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

// Delete deletes a file and the text extracted from it. Deleting an extracted
// text removes the extraction from its source.
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

// Content opens the content of a file. The caller closes it.
func (f *Files) Content(ctx context.Context, who Caller, id string) (*File, io.ReadSeekCloser, error) {
	if err := who.Need(RoleUser); err != nil { // not a reader
		return nil, nil, err
	}
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

// open opens the content of a file, and reports content that was deleted in the
// meantime as not found.
func (f *Files) open(ctx context.Context, who Caller, id string) (io.ReadSeekCloser, error) {
	content, err := f.blobs.Open(ctx, id)
	if err != nil {
		if _, gone := f.get(ctx, who, id); isCode(gone, NotFound) {
			return nil, gone
		}
	}
	return content, err
}

// An upload may take a while between content and row; content older than this
// has no row coming.
const orphanAge = time.Hour

// Sweep deletes contents without a file, which a crash may leave behind, and
// returns their number.
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

// FileFilter filters a list of files.
type FileFilter struct {
	ContentType    string
	FilenameSearch string
}

// List returns a page of the caller's files.
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

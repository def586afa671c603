package resource

import (
	"context"
	"errors"
	"io"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/internal/store"
)

// Extraction is the extraction of a file's text.
type Extraction struct {
	ID             string          `json:"id" format:"uuid"`
	FileID         string          `json:"file_id" format:"uuid"`
	Status         string          `json:"status" enum:"pending,in_progress,completed,failed,cancelled"`
	ErrorMessage   *string         `json:"error_message"`
	ExtractedFiles []ExtractedFile `json:"extracted_files" nullable:"false"`
	CreatedAt      time.Time       `json:"created_at"`
	StartedAt      *time.Time      `json:"started_at"`
	FinishedAt     *time.Time      `json:"finished_at"`
}

// ExtractedFile is a file that an extraction produced.
type ExtractedFile struct {
	FileID string  `json:"file_id" format:"uuid"`
	Format *string `json:"format"`
}

const (
	extractionCompleted = "completed"
	extractionFailed    = "failed"
)

var textTypes = []string{
	"application/json", "application/xml", "application/yaml", "application/x-yaml",
	"application/javascript", "application/toml", "application/sql", "application/x-ndjson",
}

// isText reports whether a content type is textual.
func isText(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasPrefix(kind, "text/") || slices.Contains(textTypes, kind) ||
		strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml"))
}

// source returns a file whose text may be extracted.
func (f *Files) source(ctx context.Context, who Caller, id string) (*File, error) {
	row, err := f.get(ctx, who, id)
	if err == nil && row.FileType == extractedText {
		return nil, fail(NotFound, "", "this file is itself extracted text")
	}
	return row, err
}

// NewExtraction is a request for an extraction.
type NewExtraction struct {
	Settings *ExtractionSettings `json:"settings" required:"false"`
}

// ExtractionSettings selects what is extracted.
type ExtractionSettings struct {
	Formats []string `json:"formats" required:"false" nullable:"true" minItems:"1" maxItems:"2" enum:"markdown,vendor_specific_json" doc:"Text is extracted unchanged; vendor_specific_json is not available for it."`
}

// Extract extracts the text of a file into a second file. It does nothing if
// the text was already extracted, and retries an extraction that failed.
func (f *Files) Extract(ctx context.Context, who Caller, id string, in *NewExtraction) (*Extraction, error) {
	if err := who.Need(RoleUser); err != nil { // not a reader
		return nil, err
	}
	if in != nil && in.Settings != nil && in.Settings.Formats != nil &&
		!slices.Contains(in.Settings.Formats, "markdown") {
		return nil, fail(Invalid, "settings.formats", "text is extracted unchanged, as markdown; include markdown")
	}
	row, err := f.source(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if row.Extraction != nil && row.Extraction.Status == extractionCompleted {
		return row.Extraction, nil
	}
	if !isText(row.ContentType) {
		return nil, fail(Invalid, "", "text can only be extracted from text formats; this file is %s", row.ContentType)
	}
	text, why, err := f.readText(ctx, who, row)
	if err != nil {
		return nil, err
	}
	return f.keepExtraction(ctx, who, row, text, why)
}

// keepExtraction records the result of an extraction: the text, or why there is
// none.
func (f *Files) keepExtraction(
	ctx context.Context, who Caller, row *File, text Blob, why *string,
) (extraction *Extraction, err error) {
	child := &File{
		Base:     Base{ID: newID()},
		Filename: row.Filename, ContentType: "text/plain; charset=utf-8", FileType: extractedText,
		ParentFileID: &row.ID, ContextID: row.ContextID,
	}
	err = f.store.InTxAlone(ctx, func(tx *store.Tx) error {
		if err := f.contexts.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		source, err := f.lock(ctx, tx, who, updating, row.ID, 0)
		if err != nil {
			return err
		}
		if extraction = source.Extraction; extraction != nil && extraction.Status == extractionCompleted {
			return nil // a concurrent request was faster
		}
		extraction = &Extraction{
			ID: newID(), FileID: row.ID, Status: extractionFailed, ErrorMessage: why,
			CreatedAt: tx.Now, StartedAt: &tx.Now, FinishedAt: &tx.Now, ExtractedFiles: []ExtractedFile{},
		}
		if why == nil {
			if err := f.insertFile(ctx, tx, who, child, text); err != nil {
				return err
			}
			extraction.Status, extraction.ExtractedFiles = extractionCompleted, []ExtractedFile{{FileID: child.ID}}
		}
		return f.change(ctx, tx, who, source, func(row *File) (bool, error) {
			row.Extraction = extraction
			return true, nil
		})
	})
	if text != nil {
		err = errors.Join(err, text.Discard(context.WithoutCancel(ctx)))
	}
	return extraction, err
}

// readText copies the content of a text file. If the content is not valid text,
// it returns the reason.
func (f *Files) readText(ctx context.Context, who Caller, row *File) (text Blob, why *string, err error) {
	content, err := f.open(ctx, who, row.ID)
	if err != nil {
		return nil, nil, err
	}
	defer content.Close()
	text, err = f.write(ctx, who, &utf8Reader{from: content})
	if errors.Is(err, errNotUTF8) {
		message := "the content is not valid UTF-8"
		return nil, &message, nil
	}
	return text, nil, err
}

var errNotUTF8 = errors.New("not valid UTF-8")

// utf8Reader passes valid UTF-8 through and fails on anything else.
type utf8Reader struct {
	from io.Reader
	rest []byte // an incomplete character at the end
}

func (u *utf8Reader) Read(p []byte) (int, error) {
	n, err := u.from.Read(p)
	text := append(u.rest, p[:n]...)
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			if utf8.FullRune(text) || (err != nil && errors.Is(err, io.EOF)) {
				return 0, errNotUTF8
			}
			break
		}
		text = text[size:]
	}
	if errors.Is(err, io.EOF) && len(text) > 0 {
		return 0, errNotUTF8
	}
	u.rest = slices.Clone(text)
	return n, err
}

// Extraction returns the extraction of a file.
func (f *Files) Extraction(ctx context.Context, who Caller, id string) (*Extraction, error) {
	row, err := f.source(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if row.Extraction == nil {
		return nil, fail(NotFound, "", "no text has been extracted from this file")
	}
	return row.Extraction, nil
}

// DeleteExtraction deletes the text that was extracted from a file.
func (f *Files) DeleteExtraction(ctx context.Context, who Caller, id string) error {
	row, err := f.source(ctx, who, id)
	if err != nil {
		return err
	}
	return f.store.InTx(ctx, func(tx *store.Tx) error {
		if err := f.contexts.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		if err := f.deleteDependents(ctx, tx, who, FileType, row.ID); err != nil {
			return err
		}
		return f.forgetExtraction(ctx, tx, who, row.ID)
	})
}

func (f *Files) forgetExtraction(ctx context.Context, tx *store.Tx, who Caller, id string) error {
	source, err := f.lock(ctx, tx, who, updating, id, 0)
	if err != nil {
		return err
	}
	if source.Extraction == nil {
		return fail(NotFound, "", "no text has been extracted from this file")
	}
	return f.change(ctx, tx, who, source, func(row *File) (bool, error) {
		row.Extraction = nil
		return true, nil
	})
}

// TextContent opens the extracted text of a file.
func (f *Files) TextContent(ctx context.Context, who Caller, id string) (*File, io.ReadSeekCloser, error) {
	if err := who.Need(RoleUser); err != nil { // not a reader
		return nil, nil, err
	}
	extraction, err := f.Extraction(ctx, who, id)
	if err != nil {
		return nil, nil, err
	}
	if extraction.Status != extractionCompleted {
		return nil, nil, fail(Unusable, "", "the extraction is %s", extraction.Status)
	}
	return f.Content(ctx, who, extraction.ExtractedFiles[0].FileID)
}

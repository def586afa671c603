package httpapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/internal/valid"
)

func (a *api) fileRoutes() {
	r := a.Resources
	upload := rest.Operation(http.MethodPost, "/files", "createFile", "Upload a file")
	upload.DefaultStatus = http.StatusCreated
	upload.Errors = []int{http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge}
	upload.Metadata = map[string]any{rest.Places: a.Limits.Uploads}
	register(a, upload, a.createFile)
	// Only documented: huma would read a declared body before the handler runs.
	a.Huma.OpenAPI().Paths[root+"/files"].Post.RequestBody = &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{
			"multipart/form-data": {Schema: &huma.Schema{
				Type: huma.TypeObject, Required: []string{"file"},
				Properties: map[string]*huma.Schema{"file": {Type: huma.TypeString, Format: "binary"}},
			}},
		},
	}
	list(a, "/files", "listFiles", "List your files", func(ctx context.Context, who resource.Caller, in *struct {
		Cut
		OrderBy        string `query:"order_by" enum:"created_at,updated_at,filename,file_size_bytes" default:"created_at"`
		ContentType    string `query:"content_type"`
		FilenameSearch string `query:"filename_search" doc:"Text that the filename contains."`
	},
	) (*resource.Items[*resource.File], error) {
		return r.Files.List(ctx, who, in.by(in.OrderBy), resource.FileFilter{
			ContentType: in.ContentType, FilenameSearch: in.FilenameSearch,
		})
	})
	get(a, "/files/{id}", "getFile", "Get a file", r.Files.Get)
	remove(a, "/files/{id}", "deleteFile", "Delete a file and its extracted text", r.Files.Delete)
	content(a, "/files/{id}/content", "getFileContent", "Get a file's content", r.Files.Content)
	content(a, "/files/{id}/text_content", "getFileText", "Get the text extracted from a file", r.Files.TextContent)

	extract := rest.Operation(http.MethodPost, "/files/{id}/extraction", "extractFile", "Extract text from a file")
	extract.DefaultStatus = http.StatusCreated
	extract.Errors = []int{http.StatusConflict, http.StatusRequestEntityTooLarge}
	extract.Metadata = map[string]any{rest.Places: a.Limits.Uploads}
	register(a, extract, func(ctx context.Context, who resource.Caller, in *struct {
		rest.ByID
		Body *resource.NewExtraction
	},
	) (*rest.Plain[*resource.Extraction], error) {
		return rest.Answer(r.Files.Extract(ctx, who, in.ID, in.Body))
	})
	register(a, rest.Operation(http.MethodGet, "/files/{id}/extraction", "getExtraction", "Get a file's extraction"),
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*rest.Plain[*resource.Extraction], error) {
			return rest.Answer(r.Files.Extraction(ctx, who, in.ID))
		})
	register(a, rest.Operation(http.MethodDelete, "/files/{id}/extraction", "deleteExtraction",
		"Delete a file's extraction"),
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*nothing, error) {
			return nil, r.Files.DeleteExtraction(ctx, who, in.ID)
		})
}

// upload is a request whose body is streamed to the handler.
type upload struct {
	request *http.Request
	writer  http.ResponseWriter
}

// Resolve keeps the request for the handler.
func (u *upload) Resolve(ctx huma.Context) []error {
	u.request, u.writer = humago.Unwrap(ctx)
	return nil
}

// Allowance for an upload's other parts and boundaries.
const uploadOverhead = 1 << 20

// maxParts limits how many parts of a multipart body are searched for the file.
const maxParts = 100

func (a *api) createFile(ctx context.Context, who resource.Caller, in *upload) (*one[*resource.File], error) {
	in.request.Body = http.MaxBytesReader(in.writer, in.request.Body, a.MaxFileSize+uploadOverhead)
	part, err := filePart(in.request)
	if err != nil {
		return nil, err
	}
	file := resource.NewFile{
		Filename: part.FileName(), ContentType: part.Header.Get("Content-Type"),
		Content: &explained{part},
	}
	if err := cmp.Or(valid.Text(file.Filename), valid.Text(file.ContentType)); err != nil {
		return nil, &resource.Error{
			Code: resource.Invalid, Field: "file",
			Message: "the filename or content type " + err.Error(),
		}
	}
	return answer(a.Resources.Files.Create(ctx, who, file))
}

// filePart finds the part "file" of a multipart body.
func filePart(r *http.Request) (*multipart.Part, error) {
	missing := &resource.Error{
		Code: resource.Invalid, Field: "file",
		Message: `expected multipart/form-data with a part "file"`,
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, missing
	}
	for range maxParts {
		part, err := parts.NextPart()
		if err != nil {
			return nil, missing
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
	return nil, missing
}

// explained distinguishes an interrupted upload from a server error.
type explained struct{ from io.Reader }

func (e *explained) Read(b []byte) (int, error) {
	n, err := e.from.Read(b)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.As(err, &tooLarge):
		return n, &resource.Error{
			Code: resource.TooLarge, Field: "file", Message: "the upload exceeds the size limit",
			Cause: err,
		}
	}
	return n, &resource.Error{Code: resource.Unusable, Field: "file", Message: "the upload is incomplete", Cause: err}
}

// content streams a file, or a range of it.
func content(
	a *api, path, id, summary string, open func(context.Context, resource.Caller, string) (*resource.File,
		io.ReadSeekCloser, error),
) {
	op := rest.Operation(http.MethodGet, path, id, summary)
	whole := &huma.Response{
		Description: "The content, with the content type of the upload",
		Content:     map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}
	op.Errors = []int{http.StatusBadRequest, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable}
	op.Responses = map[string]*huma.Response{
		"200": whole,
		"206": {
			Description: "The requested range; several ranges are returned as multipart/byteranges",
			Content:     whole.Content,
		},
		"304": {Description: "The content has not changed"},
	}
	register(a, op, func(ctx context.Context, who resource.Caller, in *struct {
		rest.ByID
		IfMatch string `header:"If-Match" doc:"The ETag of the expected content."` // handled by ServeContent
	},
	) (*huma.StreamResponse, error) {
		file, reader, err := open(ctx, who, in.ID)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			defer reader.Close()
			r, w := humago.Unwrap(ctx)
			h := w.Header()
			h.Set("Content-Type", file.ContentType)
			h.Set("Content-Disposition",
				mime.FormatMediaType("attachment", map[string]string{"filename": file.Filename}))
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Content-Security-Policy", "sandbox") // untrusted user content
			h.Set("ETag", `"`+file.ID+`"`)              // contents never change
			http.ServeContent(&contentWriter{ResponseWriter: w}, r, "", file.CreatedAt, reader)
		}}, nil
	})
}

// contentWriter writes the errors of [http.ServeContent] as problem documents.
type contentWriter struct {
	http.ResponseWriter
	refused bool
}

// WriteHeader implements [http.ResponseWriter].
func (w *contentWriter) WriteHeader(status int) {
	if w.refused = status >= 400; !w.refused {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.Header().Del("Content-Disposition")
	w.Header().Del("Content-Length")
	detail := "the requested range is not satisfiable"
	if status == http.StatusPreconditionFailed {
		detail = "the content does not match If-Match or If-Unmodified-Since"
	}
	rest.Refuse(w.ResponseWriter, status, detail)
}

// Write implements [http.ResponseWriter].
func (w *contentWriter) Write(b []byte) (int, error) {
	if w.refused {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom lets the kernel copy the file (sendfile).
func (w *contentWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}

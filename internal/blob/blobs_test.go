package blob_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/resource"
)

const id = "0190a5e8-1f2c-7d3e-8a4b-5c6d7e8f9a0b"

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

// testBlobs tests what all blob stores have in common. It leaves no blobs behind.
func testBlobs(t *testing.T, blobs resource.Blobs) {
	ctx := t.Context()
	b, err := blobs.Write(ctx, strings.NewReader("content"))
	if err != nil || b.Size() != 7 {
		t.Fatalf("write: %v, %v", b, err)
	}
	if _, err := blobs.Open(ctx, id); err == nil {
		t.Error("a blob that was not kept can be read")
	}
	for range 2 { // a transaction may be retried
		if err := b.Keep(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Discard(ctx); err != nil {
		t.Error(err)
	}
	r, err := blobs.Open(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "content" {
		t.Errorf("read %q, %v", text, err)
	}
	if _, err := r.Seek(3, io.SeekStart); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "tent" {
		t.Errorf("read from 3: %q, %v", text, err)
	}
	r.Close()

	discarded, err := blobs.Write(ctx, strings.NewReader("not kept"))
	if err != nil {
		t.Fatal(err)
	}
	if err := discarded.Discard(ctx); err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	if _, err := blobs.Write(ctx, io.MultiReader(strings.NewReader("half"), errorReader{broken})); !errors.Is(err,
		broken) {
		t.Errorf("error = %v", err)
	}

	var seen []string
	see := func(id string) error { seen = append(seen, id); return nil }
	if err := blobs.Each(ctx, time.Now().Add(time.Hour), see); err != nil || len(seen) != 1 || seen[0] != id {
		t.Errorf("each: %q, %v", seen, err)
	}
	if err := blobs.Each(ctx, time.Now().Add(-time.Hour), see); err != nil || len(seen) != 1 {
		t.Errorf("a new blob is listed: %q, %v", seen, err)
	}
	for range 2 { // removing is idempotent
		if err := blobs.Remove(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if _, err := blobs.Open(ctx, id); err == nil {
		t.Error("a removed blob can be read")
	}
}

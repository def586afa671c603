package blob_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/blob"
)

func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	f, err := blob.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := f.Write(t.Context(), strings.NewReader("content"))
	if err != nil || b.Size() != 7 {
		t.Fatalf("write: %v, %v", b, err)
	}
	if _, err := f.Open("abc"); err == nil {
		t.Error("a content that was not kept can be read")
	}
	for range 2 { // a transaction may run twice
		if err := b.Keep("abc"); err != nil {
			t.Fatal(err)
		}
	}
	r, err := f.Open("abc")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "content" {
		t.Errorf("read %q, %v", text, err)
	}
	r.Close()

	var seen []string
	see := func(id string) error { seen = append(seen, id); return nil }
	if err := f.Each(t.Context(), time.Now().Add(time.Hour), see); err != nil || len(seen) != 1 || seen[0] != "abc" {
		t.Errorf("each: %q, %v", seen, err)
	}
	if err := f.Each(t.Context(), time.Now().Add(-time.Hour), see); err != nil || len(seen) != 1 {
		t.Errorf("what is new is seen, too: %q, %v", seen, err)
	}
	for range 2 { // what is gone may be removed again
		if err := f.Remove("abc"); err != nil {
			t.Error(err)
		}
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestFolderKeepsNothingOfABrokenContent(t *testing.T) {
	dir := t.TempDir()
	f, err := blob.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	broken := errors.New("broken")
	if _, err := f.Write(t.Context(), io.MultiReader(strings.NewReader("half"), errorReader{broken})); !errors.Is(err, broken) {
		t.Errorf("error = %v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	// As a crash leaves it: removed once no upload can still be writing it.
	stale := filepath.Join(dir, "incoming", "stale")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(stale, time.Time{}, time.Now().Add(-25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := f.Each(t.Context(), time.Now(), func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := f.Open("../secret"); err == nil {
		t.Error("a name leads out of the folder")
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

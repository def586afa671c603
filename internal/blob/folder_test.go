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
	testBlobs(t, f)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestFolderRemovesBrokenUploads(t *testing.T) {
	dir := t.TempDir()
	f, err := blob.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	broken := errors.New("broken")
	if _, err := f.Write(t.Context(), io.MultiReader(strings.NewReader("half"), errorReader{broken})); !errors.Is(err,
		broken) {
		t.Errorf("error = %v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	// Files left by a crash are removed once they count as abandoned.
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
	if _, err := f.Open(t.Context(), "../secret"); err == nil {
		t.Error("an id escapes from the directory")
	}
}

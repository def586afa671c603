package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
)

func TestFolderLock(t *testing.T) {
	folder := t.TempDir()
	for range 2 { // it can be opened again after Close
		s, err := store.OpenSQLite(folder)
		if err != nil {
			t.Fatal(err)
		}
		again, err := store.OpenSQLite(folder)
		if want := fmt.Sprintf("in use by process %d on host ", os.Getpid()); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("a second time: %v, %v; want an error with %q", again, err, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Neither a second path to the database nor a removed lock file lets another
// process in.
func TestFolderLockOfTheDatabaseItself(t *testing.T) {
	folder, links := t.TempDir(), t.TempDir()
	s, err := store.OpenSQLite(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Symlink(filepath.Join(folder, "tidings.db"), filepath.Join(links, "tidings.db")); err != nil {
		if runtime.GOOS == "windows" {
			t.Skipf("left out: this user may not create symbolic links: %v", err)
		}
		t.Fatal(err)
	}
	_, err = store.OpenSQLite(links)
	if want := fmt.Sprintf("in use by process %d on host ", os.Getpid()); err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("through a link: %v; want an error with %q", err, want)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Remove(filepath.Join(folder, "tidings.lock")); err != nil {
		t.Fatal(err)
	}
	if _, err = store.OpenSQLite(folder); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("without the lock file: %v", err)
	}
}

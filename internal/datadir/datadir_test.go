package datadir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings/internal/datadir"
)

// If several processes create a file at the same moment, only one succeeds, and
// all see the complete file.
func TestWriteNewCreatesAFileOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data", "key")
	var created atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := datadir.WriteNew(file, []byte("whole"))
			if err == nil {
				created.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != "whole" {
				t.Errorf("file = %q, %v", text, err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 {
		t.Errorf("%d calls created the file, want 1", created.Load())
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory contains %v, %v; want one file", entries, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
}

// A reader of a file that is being replaced gets the old or the new contents.
func TestReplaceIsAtomic(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "position")
	old, replaced := strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<16)
	if err := datadir.Replace(file, []byte(old)); err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 200 {
			if err := datadir.Replace(file, []byte([]string{replaced, old}[i%2])); err != nil {
				t.Error(err)
			}
		}
	})
	for range 200 {
		if text, err := os.ReadFile(file); err != nil || string(text) != old && string(text) != replaced {
			t.Errorf("%d bytes, %v", len(text), err)
		}
	}
	writing.Wait()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	if err := datadir.Replace(folder, nil); err == nil {
		t.Error("it replaces a directory")
	}
}

// Only the permissions of Tidings' own files are tightened.
func TestTighten(t *testing.T) {
	folder := t.TempDir()
	for name, mode := range map[string]fs.FileMode{
		datadir.Database: 0o644, datadir.AdminToken: 0o640,
		"somebody-elses": 0o755,
	} {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if want := []string{folder, filepath.Join(folder, datadir.Database)}; !slices.Equal(datadir.Exposed(folder), want) {
		t.Errorf("exposed = %q, want %q", datadir.Exposed(folder), want)
	}
	datadir.Tighten(folder)
	for name, want := range map[string]fs.FileMode{
		datadir.Database: 0o600, datadir.AdminToken: 0o600,
		"somebody-elses": 0o755, ".": 0o755,
	} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode = %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

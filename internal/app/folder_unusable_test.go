//go:build unix

package app_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Startup reports an unusable data directory with its path and what to do, without other
// advice before.
func TestUnusableDataDirectory(t *testing.T) {
	t.Parallel()
	mkdir := func(t *testing.T, folder string) {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(t *testing.T, file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, folder string)
		want    string
	}{
		{"a file", func(t *testing.T, folder string) { write(t, folder, "") }, "is a file: set data_dir to a directory"},
		{"no database", func(t *testing.T, folder string) {
			mkdir(t, folder)
			write(t, filepath.Join(folder, "tidings.db"), strings.Repeat("no database ", 1000))
		}, "tidings.db is not a SQLite database: restore it from a backup, or move it away"},
		{"a directory as database", func(t *testing.T, folder string) {
			mkdir(t, folder)
			mkdir(t, filepath.Join(folder, "tidings.db"))
		}, "tidings.db must be a file"},
		{"not writable", func(t *testing.T, folder string) {
			mkdir(t, folder)
			if os.Getuid() != 0 {
				if err := os.Chmod(folder, 0o555); err != nil {
					t.Fatal(err)
				}
				return
			}
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "ro,mode=0755", "tmpfs",
				folder).CombinedOutput(); err != nil {
				t.Skipf("this account may not mount a disk: %s", out)
			}
			t.Cleanup(func() { _ = exec.Command("umount", "--lazy", folder).Run() })
		}, "needs write permission: change the directory's owner (chown)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "data")
			test.prepare(t, folder)
			out := newProcess(t, map[string]any{"data_dir": folder}).refused(nil)
			if !strings.Contains(out, "data_dir") || !strings.Contains(out, folder) ||
				!strings.Contains(out, test.want) {
				t.Errorf("output %q, want %q", out, test.want)
			}
			if strings.Contains(out, "chmod") {
				t.Errorf("output contains other advice: %q", out)
			}
		})
	}
}

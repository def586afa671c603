//go:build unix

package regular_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/regular"
)

// Only regular files are read, and nothing else is blocked on.
func TestRead(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	if err := errors.Join(
		os.WriteFile(at("file"), []byte("text"), 0o600), os.Symlink("file", at("link")),
		os.WriteFile(at("large"), make([]byte, regular.Limit+1), 0o600),
		os.WriteFile(at("full"), make([]byte, regular.Limit), 0o600),
		syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("pipe", at("link to pipe")),
		os.Symlink("nothing", at("dangling")),
	); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		at("file"): "", at("link"): "", at("full"): "",
		at("large"):        "is larger than 4 MiB",
		at("pipe"):         "is a named pipe; name a regular file",
		at("link to pipe"): "is a named pipe; name a regular file",
		folder:             "is a directory; name a regular file",
		"/dev/zero":        "is a device; name a regular file",
		at("dangling"):     "no such file",
	} {
		text, err := regular.Read(path)
		if _, ok := errors.AsType[*fs.PathError](err); err != nil && (!ok || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: %T %v", path, err, err)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) ||
			err != nil && text != nil {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
}

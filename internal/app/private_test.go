package app_test

import (
	"bytes"
	"io/fs"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exposed lists the paths below a directory that give others any permission.
func exposed(t *testing.T, folder string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			paths = append(paths, info.Mode().String()+" "+path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// Whatever the umask, only the owner can read the data directory. Looser modes are
// tightened at the next start, which logs a warning.
func TestDataDirectoryIsPrivate(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "data")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a-token-of-some-length"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens := func(list ...any) map[string]any {
		return map[string]any{"data_dir": folder, "auth": map[string]any{"tokens": list}}
	}
	p := newProcess(t, tokens()) // creates an admin token
	p.limits = "umask 000"
	p.start()
	admin, err := os.ReadFile(filepath.Join(folder, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	if part, err := form.CreateFormFile("file", "notes.md"); err != nil {
		t.Fatal(err)
	} else if _, err := part.Write([]byte("# Notes")); err != nil || form.Close() != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.address+"/api/v1/files", &b)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(admin)))
	request.Header.Set("Content-Type", form.FormDataContentType())
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatalf("upload: %d", response.StatusCode)
	}
	for _, name := range []string{"tidings.db-wal", "tidings.db-shm"} { // exist while the server runs
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Error(err)
		}
	}
	if found := exposed(t, folder); len(found) > 0 {
		t.Errorf("others can read: %q", found)
	}
	if strings.Contains(p.log.String(), "other users of this machine") {
		t.Errorf("unfounded warnings:\n%s", p.log)
	}
	p.end(syscall.SIGKILL) // leaves -wal and -shm

	loosen := func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|info.Mode().Perm()>>3|info.Mode().Perm()>>6)
	}
	err = filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return loosen(path)
	})
	if err != nil || loosen(token) != nil {
		t.Fatal(err)
	}
	second := newProcess(t,
		tokens(map[string]any{"token": map[string]any{"file": token}, "user": "ops@example.com", "role": "admin"}))
	second.start()
	for _, path := range []string{
		folder, token, filepath.Join(folder, "admin-token"),
		filepath.Join(folder, "tidings.db"),
	} {
		if log := second.log.String(); !strings.Contains(log, "level=WARN msg=\"other users of this machine") ||
			!strings.Contains(log, "="+path+"\n") {
			t.Errorf("no warning about %s:\n%s", path, log)
		}
	}
	// The directory's own mode is left alone. File contents are tightened later.
	deadline := time.Now().Add(testTimeout)
	for len(exposed(t, folder)) > 1 {
		if time.Now().After(deadline) {
			t.Fatalf("others can still read: %q", exposed(t, folder))
		}
		<-time.After(10 * time.Millisecond)
	}
	if left := exposed(t, folder); len(left) != 1 || !strings.HasSuffix(left[0], " "+folder) {
		t.Errorf("others can still read: %q", left)
	}
}

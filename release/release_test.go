package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil { // where "make dist" runs
		panic(err)
	}
	os.Exit(m.Run())
}

func newRelease(t *testing.T) *release {
	return &release{version: "1.2.3", folder: t.TempDir(), time: time.Unix(1_700_000_000, 0).UTC()}
}

// The archive for this machine works, and a second build yields the same archive.
func TestArchiveOfThisMachine(t *testing.T) {
	testtool.InAll(t)
	here := target{runtime.GOOS, runtime.GOARCH}
	var archives [][]byte
	for range 2 {
		r := newRelease(t)
		extras, err := r.extras()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.archive(t.Context(), here, extras); err != nil {
			t.Fatal(err)
		}
		if err := r.checksums(); err != nil {
			t.Fatal(err)
		}
		check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = r.folder
		if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 2 {
			t.Errorf("checksums: %v\n%s", err, out)
		}
		name := "tidings_1.2.3_" + here.system + "_" + here.arch
		text, err := os.ReadFile(filepath.Join(r.folder, name+".tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, text)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same commit yielded different archives")
	}
	folder := t.TempDir()
	unpack := exec.Command("tar", "xz", "--strip-components=1", "--directory", folder)
	unpack.Stdin = bytes.NewReader(archives[0])
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").Output()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(folder, "tidings"), "version").Output()
	if want := "commit " + strings.TrimSpace(string(commit)) + ", " + runtime.Version(); err != nil ||
		!strings.Contains(string(out), want) {
		t.Errorf("version: %s %v, want %s", out, err, want)
	}
	for _, file := range []string{"deploy/tidings.service", "LICENSE"} {
		if _, err := os.Stat(filepath.Join(folder, file)); err != nil {
			t.Error(err)
		}
	}
}

func TestCompletionsAndManual(t *testing.T) {
	r := newRelease(t)
	files, err := r.extras()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"completions/tidings.bash": "__start_tidings", "completions/_tidings": "#compdef tidings",
		"completions/tidings.fish": "complete -c tidings", "completions/tidings.ps1": "Register-ArgumentCompleter",
		"man/tidings.1": "tidings-serve(1)", "man/tidings-serve.1": "no-migrate",
		"man/tidings-endpoints-test.1": "webhook.ping",
		"LICENSE":                      "Apache License",
	} {
		i := slices.IndexFunc(files, func(f file) bool { return f.name == name })
		if i < 0 || !strings.Contains(string(files[i].text), want) {
			t.Errorf("%s: missing, or without %q", name, want)
		}
	}
	if slices.ContainsFunc(files, func(f file) bool { return strings.Contains(f.name, "receiver") }) {
		t.Error("a hidden command has a man page")
	}
}

func TestArchivesKeepModes(t *testing.T) {
	files := []file{
		{name: "tidings", text: []byte("program"), executable: true},
		{name: "man/tidings.1", text: []byte("page")},
	}
	at := time.Unix(1_700_000_000, 0).UTC()
	var tarText, zipText bytes.Buffer
	if err := errors.Join(tarball(&tarText, "a", at, files), zipped(&zipText, "a", at, files)); err != nil {
		t.Fatal(err)
	}
	compressed, err := gzip.NewReader(&tarText)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(compressed)
	for _, f := range files {
		header, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if header.Name != "a/"+f.name || header.FileInfo().Mode() != f.mode() || !header.ModTime.Equal(at) ||
			string(text) != string(f.text) || err != nil {
			t.Errorf("tar: %+v, %q, %v", header, text, err)
		}
	}
	z, err := zip.NewReader(bytes.NewReader(zipText.Bytes()), int64(zipText.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if got := z.File[i]; got.Name != "a/"+f.name || got.Mode() != f.mode() || !got.Modified.Equal(at) {
			t.Errorf("zip: %+v", got.FileHeader)
		}
	}
}

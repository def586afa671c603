// Command release builds a release: an archive for each system with the binary, shell
// completions and man pages, the chart, an SBOM for each binary, and checksums. The same
// commit yields the same binaries.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/tidings-dev/tidings/internal/cli"
)

// target is a system that we release a binary for.
type target struct{ system, arch string }

var targets = []target{
	{"linux", "amd64"},
	{"linux", "arm64"},
	{"darwin", "amd64"},
	{"darwin", "arm64"},
	{"windows", "amd64"},
	{"windows", "arm64"},
}

func main() {
	var r release
	flag.StringVar(&r.version, "version", "", "`VERSION` of the release")
	flag.StringVar(&r.folder, "folder", "dist", "output `FOLDER`; its contents are deleted")
	flag.Func("time", "commit time in `SECONDS` since 1970, set on the files in the archives",
		func(text string) error {
			var seconds int64
			_, err := fmt.Sscan(text, &seconds)
			r.time = time.Unix(seconds, 0).UTC()
			return err
		})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := r.build(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		stop()
		os.Exit(1)
	}
}

type release struct {
	version string
	folder  string
	time    time.Time
}

func (r *release) build(ctx context.Context) error {
	if r.version == "" || r.time.IsZero() || flag.NArg() > 0 {
		return errors.New("usage: release -version VERSION -time SECONDS [-folder FOLDER]")
	}
	if err := os.RemoveAll(r.folder); err != nil {
		return err
	}
	if err := os.MkdirAll(r.folder, 0o755); err != nil { //nolint:gosec // public files
		return err
	}
	extras, err := r.extras()
	if err != nil {
		return err
	}
	for _, t := range targets {
		if err := r.archive(ctx, t, extras); err != nil {
			return fmt.Errorf("%s/%s: %w", t.system, t.arch, err)
		}
	}
	if err := run(ctx, "bin/helm", "package", "charts/tidings", "--destination", r.folder); err != nil {
		return err
	}
	return r.checksums()
}

// extras returns the files in each archive besides the binary.
func (r *release) extras() ([]file, error) {
	files, err := read("LICENSE", "README.md", "CHANGELOG.md")
	if err != nil {
		return nil, err
	}
	completions, err := completions()
	if err != nil {
		return nil, err
	}
	manual, err := r.manual()
	return append(append(files, completions...), manual...), err
}

func read(names ...string) ([]file, error) {
	var files []file
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: name, text: text})
	}
	return files, nil
}

func completions() ([]file, error) {
	command := cli.Command()
	var files []file
	for _, shell := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{"tidings.bash", func(w io.Writer) error { return command.GenBashCompletionV2(w, true) }},
		{"_tidings", command.GenZshCompletion},
		{"tidings.fish", func(w io.Writer) error { return command.GenFishCompletion(w, true) }},
		{"tidings.ps1", command.GenPowerShellCompletionWithDesc},
	} {
		var text bytes.Buffer
		if err := shell.write(&text); err != nil {
			return nil, fmt.Errorf("completion %s: %w", shell.name, err)
		}
		files = append(files, file{name: "completions/" + shell.name, text: text.Bytes()})
	}
	return files, nil
}

// manual returns a man page for each command.
func (r *release) manual() ([]file, error) {
	var files []file
	var add func(*cobra.Command) error
	add = func(c *cobra.Command) error {
		var text bytes.Buffer
		header := &doc.GenManHeader{Title: strings.ToUpper(c.CommandPath()), Section: "1", Source: "Tidings " +
			r.version, Manual: "Tidings", Date: &r.time}
		c.DisableAutoGenTag = true
		if err := doc.GenMan(c, header, &text); err != nil {
			return fmt.Errorf("man page of %s: %w", c.CommandPath(), err)
		}
		files = append(files,
			file{name: "man/" + strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1", text: text.Bytes()})
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
				if err := add(sub); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := add(cli.Command())
	return files, err
}

// archive builds a binary and packs it.
func (r *release) archive(ctx context.Context, t target, extras []file) error {
	name := fmt.Sprintf("tidings_%s_%s_%s", r.version, t.system, t.arch)
	folder, err := os.MkdirTemp("", "tidings-release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	program := "tidings"
	if t.system == "windows" {
		program += ".exe"
	}
	path := filepath.Join(folder, program)
	if err := run(ctx, "make", "binary", "GOOS="+t.system, "GOARCH="+t.arch, "OUT="+path); err != nil {
		return err
	}
	sbom := filepath.Join(r.folder, name+".sbom.cdx.json")
	if err := run(ctx, "make", "sbom", "BINARY="+path, "OUT="+sbom); err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files := append([]file{{name: program, text: text, executable: true}}, extras...)
	if t.system == "linux" { // see docs/linux.md
		unit, err := read("deploy/tidings.service", "deploy/tidings.sysusers", "deploy/tidings/tidings.yaml")
		if err != nil {
			return err
		}
		files = append(files, unit...)
	}
	pack, suffix := tarball, ".tar.gz"
	if t.system == "windows" {
		pack, suffix = zipped, ".zip"
	}
	out, err := os.Create(filepath.Join(r.folder, name+suffix))
	if err != nil {
		return err
	}
	return errors.Join(pack(out, name, r.time, files), out.Close())
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// checksums writes SHA256SUMS for sha256sum --check.
func (r *release) checksums() error {
	entries, err := os.ReadDir(r.folder)
	if err != nil {
		return err
	}
	var lines []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(r.folder, e.Name()))
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256(text), e.Name()))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return os.WriteFile(filepath.Join(r.folder, "SHA256SUMS"), []byte(strings.Join(lines, "")),
		0o644) //nolint:gosec // public files
}

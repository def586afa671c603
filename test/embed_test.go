// Package test has tests from outside the module.
package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// A program in another module embeds package outbox on both databases.
func TestProgramThatEmbeds(t *testing.T) {
	url := testdb.Postgres(t)
	warehouse, books := outboxtest.NewReceiver(t), outboxtest.NewReceiver(t)
	binary := filepath.Join(t.TempDir(), "shop")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = "embed"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testtool.Allow(2*time.Minute))
	defer cancel()
	file := filepath.Join(t.TempDir(), "shop.db")
	program := exec.CommandContext(ctx, binary, url, file, warehouse.URL, books.URL, warehouse.Secret, books.Secret)
	program.Cancel = func() error { return program.Process.Signal(syscall.SIGQUIT) } // prints its goroutines
	program.WaitDelay = time.Second
	out, err := program.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, database := range []string{"pgx", "SQLite"} {
		metrics, err := os.ReadFile(file + "." + database)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"tidings_log_oldest 3", delivered("warehouse", "order.created"), delivered("warehouse", "invoice.paid"),
			delivered("books", "invoice.paid"),
		} {
			if !strings.Contains(string(metrics), "\n"+want+"\n") {
				t.Errorf("the metrics of %s lack %s:\n%s", database, want, metrics)
			}
		}
	}
	for _, c := range []struct {
		name string
		got  []tidings.Event
		want []string
	}{
		{
			"warehouse", warehouse.Received(),
			[]string{"invoice.paid SQLite", "invoice.paid pgx", "order.created SQLite", "order.created pgx"},
		},
		{"books", books.Received(), []string{"invoice.paid SQLite", "invoice.paid pgx"}},
	} {
		var got []string
		for _, e := range c.got {
			got = append(got, e.Name()+" "+e.ResourceID)
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s got %q, want %q", c.name, got, c.want)
		}
	}
}

// delivered returns the metric of one delivery.
func delivered(endpoint, event string) string {
	return fmt.Sprintf(`tidings_webhook_attempts_total{endpoint=%q,event=%q,reason="",verdict="delivered"} 1`,
		endpoint, event)
}

// Embedding takes fewer than 60 lines besides imports, comments and blank lines.
func TestProgramThatEmbedsIsShort(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("embed/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(source), "\n)\n")
	lines := slices.DeleteFunc(strings.Split(code, "\n"), func(line string) bool {
		line = strings.TrimSpace(line)
		return line == "" || strings.HasPrefix(line, "//")
	})
	if len(lines) >= 60 {
		t.Errorf("test/embed/main.go has %d lines, want fewer than 60", len(lines))
	}
}

// The block that README.md, docs/embed.md and the package comment show compiles.
func TestDocumentedBlocksCompile(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	code := []byte(`package main

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox"
)
`)
	const first, last = "hooks, err := outbox.Open(", "err = tx.Commit(ctx)"
	for i, file := range []string{"README.md", "docs/embed.md", "outbox/doc.go"} {
		text, err := os.ReadFile("../" + file)
		if err != nil {
			t.Fatal(err)
		}
		plain := strings.ReplaceAll(string(text), "\n//\t", "\n") // of the package comment
		_, block, found := strings.Cut(plain, first)
		block, _, ended := strings.Cut(block, last)
		if !found || !ended {
			t.Fatalf("%s has no block from %q to %q", file, first, last)
		}
		code = fmt.Appendf(code, "\nfunc documented%d(ctx context.Context, pool *pgxpool.Pool, secret, id string) error {\n"+
			"//line %s:1\n%s%s%s\nreturn err\n}\n", i, file, first, block, last)
	}
	folder := t.TempDir()
	source, overlay := filepath.Join(folder, "documented.go"), filepath.Join(folder, "overlay.json")
	target, err := filepath.Abs("embed/documented.go")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{target: source}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{source: code, overlay: replace} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", overlay, "-o", filepath.Join(folder, "shop"), ".")
	build.Dir = "embed"
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// modules returns the modules that a package depends on, without the main module.
func modules(t *testing.T, folder, pkg string) []string {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", pkg)
	list.Dir = folder
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	slices.Sort(all)
	return slices.Compact(all)
}

// An embedding program depends on few modules, which docs/embed.md lists, although this
// module's graph has many.
func TestModulesOfAnEmbedder(t *testing.T) {
	outbox := modules(t, "embed", "github.com/tidings-dev/tidings/outbox")
	operator := slices.DeleteFunc(modules(t, "..", "github.com/tidings-dev/tidings/operator"),
		func(path string) bool { return slices.Contains(outbox, path) })
	for name, c := range map[string]struct{ got, want []string }{
		"outbox": {outbox, []string{
			"github.com/google/uuid", "github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile",
			"github.com/jackc/pgx/v5", "github.com/jackc/puddle/v2", "github.com/mfridman/interpolate",
			"github.com/pressly/goose/v3", "github.com/sethvargo/go-retry",
			"github.com/tidings-dev/tidings",
			"go.uber.org/multierr", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/text", "golang.org/x/time",
		}},
		"receive": {modules(t, "embed", "github.com/tidings-dev/tidings/receive"), []string{
			"github.com/standard-webhooks/standard-webhooks/libraries", "github.com/tidings-dev/tidings",
		}},
		"operator, besides": {operator, []string{
			"github.com/beorn7/perks", "github.com/cespare/xxhash/v2", "github.com/danielgtaylor/huma/v2",
			"github.com/munnerz/goautoneg", "github.com/pandatix/go-abnf", "github.com/prometheus/client_golang",
			"github.com/prometheus/client_model", "github.com/prometheus/common", "github.com/prometheus/procfs",
			"golang.org/x/sys", "google.golang.org/protobuf",
		}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s depends on\n%s\nwant\n%s", name, strings.Join(c.got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

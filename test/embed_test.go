// Package test has what is tested from outside the module.
package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// A program with a module of its own embeds package outbox on both databases.
func TestProgramThatEmbeds(t *testing.T) {
	url := testdb.Postgres(t)
	warehouse, books := outboxtest.NewReceiver(t), outboxtest.NewReceiver(t)
	program := exec.Command("go", "run", ".", url, filepath.Join(t.TempDir(), "shop.db"), warehouse.URL, books.URL,
		warehouse.Secret, books.Secret)
	program.Dir = "embed"
	out, err := program.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"pgx warehouse healthy delivered 2", "pgx books healthy delivered 1", "SQLite warehouse healthy delivered 2",
		"SQLite books healthy delivered 1",
	} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("it said\n%swant %s", out, want)
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

package store_test

import (
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// until returns the migrations of a folder up to a given one.
func until(t *testing.T, all fs.FS, last int) fs.FS {
	t.Helper()
	some := make(fstest.MapFS)
	names, err := fs.Glob(all, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		if n, err := strconv.Atoi(number); err != nil || n > last {
			continue
		}
		text, err := fs.ReadFile(all, name)
		if err != nil {
			t.Fatal(err)
		}
		some[name] = &fstest.MapFile{Data: text}
	}
	return some
}

type oldProvider struct {
	bun.BaseModel `bun:"table:providers"`

	ID           string `bun:",pk"`
	LastActiveAt string
	CreatedAt    string
}

type oldBuild struct {
	bun.BaseModel `bun:"table:provider_builds"`

	ID          string            `bun:",pk"`
	Source      map[string]string `bun:"type:json"`
	Destination string
}

// Existing rows get the values that the SDKs require.
func TestMigrateSDKFields(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (*store.Store, error){
		"SQLite": func(t *testing.T) (*store.Store, error) { return store.OpenSQLite(t.TempDir()) },
		"PostgreSQL": func(t *testing.T) (*store.Store, error) {
			return store.OpenPostgres(testdb.Postgres(t), store.PostgresOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			s.MigrateSome(t, func(all fs.FS) fs.FS { return until(t, all, 3) })
			const at = "'2026-01-01 00:00:00+00:00'"
			common := "1, " + at + ", " + at + ", '" + id(1) + "'"
			s.Exec(t, "INSERT INTO users VALUES ('"+id(1)+"', 1, "+at+", "+at+", NULL, 'a@example.com', 'user')")
			s.Exec(t, "INSERT INTO providers VALUES ('"+id(2)+"', "+common+
				", 'unmanaged', 'http://x', 'http://x', '{}', '{}', 'online', 60, NULL)")
			for n, version := range []string{"null", `"v1"`} {
				s.Exec(t, "INSERT INTO provider_builds VALUES ('"+id(3+n)+"', "+common+
					`, 'missing', '{"host":"h","org":"o","repo":"r","version":`+version+`}', '{}', '{}', NULL, NULL)`)
			}
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			provider := &oldProvider{ID: id(2)}
			if err := s.Get(t.Context(), provider); err != nil || provider.LastActiveAt == "" ||
				provider.LastActiveAt != provider.CreatedAt {
				t.Errorf("provider = %+v, %v; want the time it was created", provider, err)
			}
			for n, version := range []string{"HEAD", "v1"} {
				build := &oldBuild{ID: id(3 + n)}
				if err := s.Get(t.Context(), build); err != nil {
					t.Fatal(err)
				}
				want := map[string]string{
					"host": "h", "org": "o", "repo": "r", "version": version,
					"version_type": "head", "commit_hash": "",
				}
				if diff := cmp.Diff(want, build.Source); diff != "" || build.Destination != "" {
					t.Errorf("build for %q (-want +got):\n%s", build.Destination, diff)
				}
			}
		})
	}
}

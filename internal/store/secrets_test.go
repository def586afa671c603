package store_test

import (
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// Every column of bytes either holds encrypted values, which a key rotation
// covers, or is listed here.
func TestSecretColumnsAreComplete(t *testing.T) {
	public := []string{"vector_store_items.embedding"}
	for name, tt := range map[string]struct {
		open  func(t *testing.T) (*store.Store, error)
		query string
	}{
		"SQLite": {
			func(t *testing.T) (*store.Store, error) { return store.OpenSQLite(t.TempDir()) },
			`SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = ` +
				`'table' AND c.type = 'BLOB'`,
		},
		"PostgreSQL": {
			func(t *testing.T) (*store.Store, error) {
				return store.OpenPostgres(testdb.Postgres(t), store.PostgresOptions{})
			},
			`SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = ` +
				`'tidings' AND data_type = 'bytea'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := tt.open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			found, err := s.Column(t.Context(), tt.query)
			if err != nil {
				t.Fatal(err)
			}
			want := append(store.SecretColumns(), public...)
			slices.Sort(found)
			slices.Sort(want)
			if !slices.Equal(found, want) {
				t.Errorf("columns of bytes = %q, want %q: is a new one encrypted?", found, want)
			}
		})
	}
}

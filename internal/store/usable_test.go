package store_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/store"
)

// Ready checks every table and sequence except those of versions, partitions
// and columns.
func TestReadyAsksForAllTables(t *testing.T) {
	s := newServer(t)
	db, err := store.OpenPostgres(s.url, store.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	want := s.strings(`SELECT relname FROM pg_class WHERE relnamespace = 'tidings'::regnamespace AND NOT relispartition
		AND relkind IN ('r', 'p', 'S') AND relname NOT LIKE '%_version'
		AND (relkind <> 'S' OR NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'i'))
		AND relname NOT LIKE '%_version_id_seq' ORDER BY relname`)
	got := slices.Sorted(slices.Values(store.Tables))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

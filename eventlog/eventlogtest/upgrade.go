package eventlogtest

import (
	"context"
	"database/sql"
	"os"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// Upgrade checks that a log created by the first migration, in the folder
// "migrations", keeps its events, cursors and controls.
func Upgrade(t *testing.T, db *sql.DB, dialect goose.Dialect, log interface {
	eventlog.Home
	Migrate(ctx context.Context, more ...sqldb.Migrations) error
},
) {
	t.Helper()
	ctx := t.Context()
	provider, err := goose.NewProvider(dialect, db, os.DirFS("migrations"), goose.WithTableName("tidings_log_version"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(ctx, 1); err != nil {
		t.Fatal(err)
	}
	const event = "'id', 'provider', 'created', 'p2', '/p', 'u', 1700000000000000, 1"
	for _, statement := range []string{
		"INSERT INTO tidings_events (seq, id, resource_type, action, resource_id, resource_url, user_id, at, " +
			"resource_version) VALUES (1, " + event + ")",
		"INSERT INTO tidings_cursors VALUES ('a', 1, '', 'f', 5), ('b', 0, 'http_410', 'f', 5)",
		"INSERT INTO tidings_retries VALUES ('a', 1, " + event + ", 1, 5, 6, 0, 'http_500')",
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	if dialect == goose.DialectPostgres {
		if _, err := db.ExecContext(ctx, "UPDATE tidings_head SET seq = 1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	if head := advance(t, log); head != 1 {
		t.Errorf("head = %d, want 1", head)
	}
	if events := read(t, log, 0, 10); len(events) != 1 || events[0].ID != "id" {
		t.Errorf("events = %v", events)
	}
	if got := cursors(t, log); got["a 0/1"] != 1 || len(got) != 2 {
		t.Errorf("cursors = %v", got)
	}
	controls, err := log.Controls(ctx)
	if err != nil || len(controls) != 1 || controls["b"].Disabled != "http_410" || controls["b"].Fingerprint != "f" {
		t.Errorf("controls = %v, %v", controls, err)
	}
	rows, err := log.Parked(ctx, eventlog.ParkedFilter{Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].Reason != "http_500" {
		t.Fatalf("parked = %v, %v", rows, err)
	}
	counts, err := log.ParkedCounts(ctx)
	if err != nil || len(counts) != 1 || counts["a"].Live != 1 || counts["a"].Dead != 0 {
		t.Errorf("counts = %v, %v", counts, err)
	}
	// It is in its resource's partition.
	for i := range 2 {
		p := eventlog.Partition{Endpoint: "a", Index: i, Of: 2}
		lanes, err := log.ParkedLanes(ctx, p, 0, 10)
		if err != nil || (len(lanes) == 1) != p.Has(rows[0].Event) {
			t.Errorf("partition %d has %v, %v", i, lanes, err)
		}
	}
}

package postgres_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// What is written about an endpoint while another one is renamed to its name does not
// prevent that.
func TestRenameWhileTheNameIsWritten(t *testing.T) {
	t.Parallel()
	at := time.Now()
	for what, write := range map[string]string{
		"a sample": "INSERT INTO tidings.tidings_series SELECT (json_populate_record(s, '{\"endpoint\": \"new\"}')).* " +
			"FROM tidings.tidings_series s WHERE endpoint = 'old'",
		"a state": "INSERT INTO tidings.tidings_states SELECT (json_populate_record(s, '{\"endpoint\": \"new\"}')).* " +
			"FROM tidings.tidings_states s WHERE endpoint = 'old'",
		"a pause": "INSERT INTO tidings.tidings_controls SELECT (json_populate_record(c, '{\"endpoint\": \"new\"}')).* " +
			"FROM tidings.tidings_controls c WHERE endpoint = 'old'",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, db := openURL(t, testdb.Postgres(t))
			log, ctx := postgres.New(db, postgres.Options{}), t.Context()
			old := []eventlog.Partition{{Endpoint: "old", Of: 1}}
			for _, err := range []error{
				log.Prepare(ctx, eventlog.Setup{Partitions: old}),
				log.AddSamples(ctx, []eventlog.Sample{{Endpoint: "old", At: at, Delivered: 7}}),
				log.AddStates(ctx, []eventlog.StateChange{{Endpoint: "old", At: at}}),
				log.SaveControl(ctx, eventlog.Control{Endpoint: "old", Disabled: "paused", Since: at}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			tx := begin(t, db, 0)
			exec(t, tx, write)
			renamed := make(chan error, 1)
			go func() {
				_, err := log.Rename(ctx, "old", "new")
				renamed <- err
			}()
			deadline := time.Now().Add(testtool.Allow(10 * time.Second))
			for waiting := int64(0); waiting == 0; <-time.After(time.Millisecond) {
				if len(renamed) > 0 {
					t.Fatalf("the rename did not wait: %v", <-renamed)
				}
				if time.Now().After(deadline) {
					t.Fatal("the rename neither waits nor ends")
				}
				waiting = query(t, db, "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN "+
					"(SELECT pid FROM pg_stat_activity WHERE datname = current_database())")
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-renamed; err != nil {
				t.Fatal(err)
			}
			for _, table := range []string{"series", "states", "controls"} {
				if n := query(t, db, "SELECT count(*) FROM tidings.tidings_"+table+" WHERE endpoint = 'new'"); n != 1 {
					t.Errorf("%d rows in %s, want 1", n, table)
				}
			}
		})
	}
}

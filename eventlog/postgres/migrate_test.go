package postgres_test

import (
	"context"
	"database/sql"
	"testing"
	"testing/fstest"

	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// Migrations see what others commit concurrently, whatever isolation level the database or its
// sessions have by default: at a higher level, changing a row that was changed fails.
func TestMigrationsReadCommitted(t *testing.T) {
	for _, isolation := range []string{"repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			db, err := sql.Open("pgx",
				testdb.WithDefaults(t, map[string]string{"default_transaction_isolation": "'" + isolation + "'"}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			const text = `-- +goose Up
CREATE TABLE seen (isolation text NOT NULL);
INSERT INTO seen VALUES (current_setting('transaction_isolation'));
`
			log := postgres.New(db, postgres.Options{})
			err = log.Migrate(t.Context(), sqldb.Migrations{
				Files: fstest.MapFS{"00001_seen.sql": {Data: []byte(text)}}, Table: "seen_version",
				Go: map[int64]func(context.Context, *sql.Tx,
					string) error{2: func(ctx context.Context, tx *sql.Tx, schema string) error {
					_,
						err := tx.ExecContext(ctx, "INSERT INTO "+schema+
						"seen VALUES (current_setting('transaction_isolation'))")
					return err
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			var n int
			if err := db.QueryRow("SELECT count(*) FROM tidings.seen WHERE isolation = 'read " +
				"committed'").Scan(&n); err != nil || n != 2 {
				t.Errorf("%d of 2 migrations were run with read committed, %v", n, err)
			}
		})
	}
}

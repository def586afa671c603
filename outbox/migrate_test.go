package outbox_test

import (
	"cmp"
	"io/fs"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

// The SQL files make what Migrate makes, however they are run, and Migrate then has nothing
// left to do.
func TestMigrationFiles(t *testing.T) {
	run := func(t *testing.T, files fs.FS, err error, exec func(text string) error) {
		t.Helper()
		names, globErr := fs.Glob(files, "*.sql")
		if err != nil || globErr != nil || len(names) < 9 {
			t.Fatalf("files: %v, %v, %v", names, err, globErr)
		}
		for _, name := range names {
			text, err := fs.ReadFile(files, name)
			if err == nil {
				err = exec(string(text))
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	for _, test := range []struct{ name, schema, begin, commit string }{
		{name: "statements"}, {"transactions", "shop webhooks", "BEGIN;", "COMMIT;"},
	} {
		t.Run("PostgreSQL in "+test.name, func(t *testing.T) {
			pool := newPool(t, testdb.Postgres(t))
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			searchPath := func() (path string) {
				if err := conn.QueryRow(t.Context(), "SHOW search_path").Scan(&path); err != nil {
					t.Fatal(err)
				}
				return path
			}
			before := searchPath()
			files, err := outbox.PostgresMigrations(test.schema)
			run(t, files, err, func(text string) error {
				_, err := conn.Conn().PgConn().Exec(t.Context(), test.begin+text+test.commit).ReadAll()
				return err
			})
			if after := searchPath(); after != before {
				t.Errorf("the search_path is now %s, and was %s", after, before)
			}
			database := outbox.Postgres(pool).Schema(test.schema)
			hooks := open(t, database, outbox.Options{NoMigrate: true})
			tellPgx(t, pool, hooks, ordered("1"))
			outboxtest.Told(t, database, ordered("1"))
			if err := outbox.Migrate(t.Context(), database); err != nil {
				t.Error(err)
			}
			migrated := outbox.Postgres(pool).Schema("migrated")
			if err := outbox.Migrate(t.Context(), migrated); err != nil {
				t.Fatal(err)
			}
			var differ int
			if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM (
				SELECT table_name, column_name, data_type, column_default IS NULL, is_nullable
				FROM information_schema.columns WHERE table_schema IN ($1, 'migrated') AND table_name !~ '_p?[0-9]+$'
				GROUP BY 1, 2, 3, 4, 5 HAVING count(*) <> 2) d`, cmp.Or(test.schema, "tidings"),
			).Scan(&differ); err != nil || differ != 0 {
				t.Errorf("%d columns differ from those that Migrate makes, %v", differ, err)
			}
		})
	}
	t.Run("SQLite", func(t *testing.T) {
		db := openDB(t, "sqlite", newFile(t)+waiting)
		files, err := outbox.SQLiteMigrations()
		run(t, files, err, func(text string) error {
			_, err := db.ExecContext(t.Context(), text)
			return err
		})
		s := sqlShop(t, outbox.SQLite(db), db)
		hooks := open(t, s.database, outbox.Options{NoMigrate: true})
		if err := s.order(t.Context(), hooks, "1", true); err != nil {
			t.Fatal(err)
		}
		outboxtest.Told(t, s.database, ordered("1"))
		if err := outbox.Migrate(t.Context(), s.database); err != nil {
			t.Error(err)
		}
	})
}

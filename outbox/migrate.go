package outbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
)

// Migrate creates or updates the outbox's tables, as [Open] does by default. It may
// be called at every start, on PostgreSQL by several processes concurrently.
func Migrate(ctx context.Context, database Database) error {
	h, err := database.open(ctx, DefaultRetention)
	if err == nil {
		err = errors.Join(h.log.Migrate(ctx), h.close())
	}
	if err != nil {
		return fmt.Errorf("migrate outbox: %w", err)
	}
	return nil
}

// PostgresMigrations returns the outbox's PostgreSQL migrations as numbered SQL
// files, such as 0001_log.sql, for programs with their own migration tool: goose,
// golang-migrate, Flyway or psql. schema is as in [Database.Schema]; empty means
// "tidings". Run the files in the order of their names, each in a transaction, and
// open with NoMigrate, or call [Migrate], which applies the remaining ones. A file
// never changes once it is released.
func PostgresMigrations(schema string) (fs.FS, error) { return postgres.MigrationFiles(schema) }

// SQLiteMigrations is [PostgresMigrations] for SQLite.
func SQLiteMigrations() (fs.FS, error) { return sqlite.MigrationFiles() }

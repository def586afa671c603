package store

import (
	"context"
	"embed"

	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

//go:embed migrations
var files embed.FS

// resourceMigrations returns the migrations of the resource tables: the same
// list for both databases, with separate files.
func resourceMigrations(folder string) sqldb.Migrations {
	return sqldb.Migrations{Files: sqldb.Folder(files, "migrations/"+folder), Table: "tidings_version"}
}

// Migrate creates or updates the tables. It is safe to call on every start.
func (s *Store) Migrate(ctx context.Context) error {
	return s.session.explainStart(s.log.Migrate(ctx, s.migrations...))
}

// Pending reports whether [Store.Migrate] has anything to do.
func (s *Store) Pending(ctx context.Context) (bool, error) {
	pending, err := s.log.Pending(ctx, s.migrations...)
	return pending, s.session.explainStart(err)
}

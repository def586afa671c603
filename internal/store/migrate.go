package store

import (
	"context"
	"database/sql"
	"embed"

	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings/eventlog/sqllog"
)

//go:embed migrations
var files embed.FS

// migrations of a database: of its log, and of the resources, the same list for
// both databases.
type migrations struct {
	db      *sql.DB
	dialect goose.Dialect
	log     func(context.Context, *sql.DB) error
	pending func(context.Context, *sql.DB) (bool, error)
}

func (m migrations) resources() sqllog.Migrations {
	folder := "migrations/sqlite"
	if m.dialect == goose.DialectPostgres {
		folder = "migrations/postgres"
	}
	return sqllog.Migrations{Dialect: m.dialect, Files: sqllog.Folder(files, folder), Table: "tidings_version"}
}

// Migrate creates or updates the tables. It may be called at every start.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.migrations.log(ctx, s.migrations.db); err != nil {
		return err
	}
	return s.migrations.resources().Run(ctx, s.migrations.db)
}

// Pending reports whether [Store.Migrate] has something to do.
func (s *Store) Pending(ctx context.Context) (bool, error) {
	if pending, err := s.migrations.pending(ctx, s.migrations.db); pending || err != nil {
		return pending, err
	}
	return s.migrations.resources().Pending(ctx, s.migrations.db)
}

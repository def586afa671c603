package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations
var files embed.FS

// migrator moves the tables of the resources forward: the same list of
// migrations for both databases.
func migrator(db *sql.DB, dialect goose.Dialect) (*goose.Provider, error) {
	folder, options := "migrations/sqlite", []goose.ProviderOption{goose.WithTableName("tidings_version")}
	if dialect == goose.DialectPostgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, fmt.Errorf("lock migrations: %w", err)
		}
		folder, options = "migrations/postgres", append(options, goose.WithSessionLocker(locker))
	}
	folders, err := fs.Sub(files, folder)
	if err != nil {
		return nil, fmt.Errorf("open migrations: %w", err)
	}
	provider, err := goose.NewProvider(dialect, db, folders, options...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}

// migrations of a database: of its log, and of the resources.
type migrations struct {
	db      *sql.DB
	dialect goose.Dialect
	log     func(context.Context, *sql.DB) error
	pending func(context.Context, *sql.DB) (bool, error)
}

// Migrate creates or updates the tables. It may be called at every start.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.migrations.log(ctx, s.migrations.db); err != nil {
		return err
	}
	provider, err := migrator(s.migrations.db, s.migrations.dialect)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Pending reports whether [Store.Migrate] has something to do.
func (s *Store) Pending(ctx context.Context) (bool, error) {
	if pending, err := s.migrations.pending(ctx, s.migrations.db); pending || err != nil {
		return pending, err
	}
	provider, err := migrator(s.migrations.db, s.migrations.dialect)
	if err != nil {
		return false, err
	}
	return provider.HasPending(ctx)
}

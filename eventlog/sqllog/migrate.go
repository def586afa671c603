package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrations creates and updates tables, forward only.
type Migrations struct {
	Dialect goose.Dialect
	// Files are the numbered SQL files.
	Files fs.FS
	// Table is where it notes how far it came.
	Table string
}

// Run does what is to be done. It may be called at every start; on PostgreSQL by
// several replicas at once.
func (m Migrations) Run(ctx context.Context, db *sql.DB) error {
	provider, err := m.provider(db)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Pending reports whether [Migrations.Run] has something to do.
func (m Migrations) Pending(ctx context.Context, db *sql.DB) (bool, error) {
	provider, err := m.provider(db)
	if err != nil {
		return false, err
	}
	return provider.HasPending(ctx)
}

func (m Migrations) provider(db *sql.DB) (*goose.Provider, error) {
	options := []goose.ProviderOption{goose.WithTableName(m.Table)}
	if m.Dialect == goose.DialectPostgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, fmt.Errorf("lock migrations: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	provider, err := goose.NewProvider(m.Dialect, db, m.Files, options...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}

// Folder is a folder of embedded files; that it is there was decided at build
// time.
func Folder(files fs.FS, folder string) fs.FS {
	sub, err := fs.Sub(files, folder)
	if err != nil {
		panic(err)
	}
	return sub
}

package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// Migrations is a numbered, forward-only list of database migrations.
type Migrations struct {
	Dialect goose.Dialect
	// Schema is the prefix of table names: the quoted schema and a dot, such as
	// `"tidings".`; empty on SQLite, which has no schemas.
	Schema string
	// Files are the numbered SQL files. They name no schema.
	Files fs.FS
	// Go holds migrations that SQL can't express, by number. They get the
	// transaction that they run in and the schema.
	Go map[int64]func(ctx context.Context, tx *sql.Tx, schema string) error
	// Table is the name of the version table.
	Table string
}

// Run applies the pending migrations. It may be called at every start, but not
// concurrently by two processes.
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

// Pending reports whether any migrations are pending. On PostgreSQL it writes
// nothing.
func (m Migrations) Pending(ctx context.Context, db *sql.DB) (bool, error) {
	if m.Schema != "" {
		if exists, err := m.exists(ctx, db); err != nil || !exists {
			return true, err
		}
	}
	provider, err := m.provider(db)
	if err != nil {
		return false, err
	}
	return provider.HasPending(ctx)
}

// created matches the names of created tables, indexes and sequences.
var created = regexp.MustCompile(`(?im)^CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|SEQUENCE)\s+(\w+)`)

// Creates returns the names of the tables, indexes and sequences that the list
// creates on PostgreSQL, up to the database's version and after it.
func (m Migrations) Creates(ctx context.Context, db *sql.DB) (before, after []string, err error) {
	provider, err := m.provider(db)
	if err != nil {
		return nil, nil, err
	}
	at := int64(-1)
	exists, err := m.exists(ctx, db)
	if err == nil && exists {
		at, err = provider.GetDBVersion(ctx)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the version of the database: %w", err)
	}
	if at < 0 {
		after = []string{m.Table}
	}
	for _, source := range provider.ListSources() {
		if source.Type == goose.TypeGo { // they create nothing
			continue
		}
		text, err := fs.ReadFile(m.Files, source.Path)
		if err != nil {
			return nil, nil, err
		}
		for _, found := range created.FindAllStringSubmatch(string(text), -1) {
			if source.Version <= at {
				before = append(before, found[1])
			} else {
				after = append(after, found[1])
			}
		}
	}
	// A name that a later version reuses after renaming the old object is ours as
	// well.
	after = slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
	return before, after, nil
}

func (m Migrations) provider(db *sql.DB) (*goose.Provider, error) {
	dialect, files, options := m.Dialect, m.Files, []goose.ProviderOption{goose.WithTableName(m.Table)}
	if m.Schema != "" {
		store, err := database.NewStore(m.Dialect, m.Schema+m.Table)
		if err == nil {
			files, err = m.inSchema()
		}
		if err != nil {
			return nil, fmt.Errorf("read migrations: %w", err)
		}
		dialect, options = "", []goose.ProviderOption{goose.WithStore(versions{store, m})}
	}
	for version, do := range m.Go {
		options = append(options, goose.WithGoMigrations(goose.NewGoMigration(version, &goose.GoFunc{
			RunTx: func(ctx context.Context, tx *sql.Tx) error {
				if m.Schema != "" {
					if _, err := tx.ExecContext(ctx, readCommitted); err != nil {
						return err
					}
				}
				return do(ctx, tx, m.Schema)
			},
		}, nil)))
	}
	provider, err := goose.NewProvider(dialect, db, files, options...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}

// readCommitted is the first statement of each migration on PostgreSQL. goose does
// not set an isolation level, and with a stricter one concurrent changes would
// fail.
const readCommitted = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"

// inSchema returns the files with initial statements that make the schema the only
// one on the search path, disable the statement timeout, and set the isolation
// level, all until the end of the file's transaction.
func (m Migrations) inSchema() (fs.FS, error) {
	const up = "-- +goose Up\n"
	names, err := fs.Glob(m.Files, "*.sql")
	if err != nil {
		return nil, err
	}
	files := make(fstest.MapFS)
	for _, name := range names {
		text, err := fs.ReadFile(m.Files, name)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(string(text), up) {
			return nil, fmt.Errorf("%s does not begin with %q", name, up)
		}
		in := up + readCommitted + ";\nSET LOCAL search_path TO " + strings.TrimSuffix(m.Schema, ".") +
			";\nSET LOCAL statement_timeout = 0;\n"
		files[name] = &fstest.MapFile{Data: []byte(strings.Replace(string(text), up, in, 1))}
	}
	return files, nil
}

// versions is a version table in a schema. goose itself cannot check for the
// table's existence if its name is quoted.
type versions struct {
	database.Store
	of Migrations
}

// TableExists implements [database.StoreExtender].
func (v versions) TableExists(ctx context.Context, db database.DBTxConn) (bool, error) {
	return v.of.exists(ctx, db)
}

// exists reports whether the version table exists.
func (m Migrations) exists(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
},
) (exists bool, err error) {
	err = db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", m.Schema+m.Table).Scan(&exists)
	return exists, err
}

// Folder returns a folder of embedded files. It panics if the folder does not
// exist, which is known at build time.
func Folder(files fs.FS, folder string) fs.FS {
	sub, err := fs.Sub(files, folder)
	if err != nil {
		panic(err)
	}
	return sub
}

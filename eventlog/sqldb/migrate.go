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

// Migrations are a numbered list of changes of a database, forward only.
type Migrations struct {
	Dialect goose.Dialect
	// Schema is the schema of the tables, quoted, with the dot that goes before a
	// table's name, such as `"tidings".`; empty on SQLite, which has none.
	Schema string
	// Files are the numbered SQL files. They name no schema.
	Files fs.FS
	// Go are changes that SQL can't express, by their number in the list. They get
	// the transaction that each is run in, and the schema.
	Go map[int64]func(ctx context.Context, tx *sql.Tx, schema string) error
	// Table is where it notes how far it came.
	Table string
}

// Run does what is to be done. It may be called at every start, but not by two
// processes at once.
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

// Pending reports whether [Migrations.Run] has something to do. On PostgreSQL it
// writes nothing.
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

// created finds the names of tables, indexes and sequences.
var created = regexp.MustCompile(`(?im)^CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|SEQUENCE)\s+(\w+)`)

// Creates returns the names of tables, indexes and sequences that the list
// creates on PostgreSQL: up to the version that the database is at, and beyond it.
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
		if source.Type == goose.TypeGo { // creates nothing
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
	// What a later version creates under a name that it has renamed is ours, too.
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

// readCommitted is the first statement of each migration on PostgreSQL: goose asks for no
// isolation, and in another one than this a change fails that meets another.
const readCommitted = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"

// inSchema returns the files with first statements that make the schema the only one,
// and let each statement take its time and see what others committed, up to the end of
// the transaction that each file is run in.
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

// versions is a table of versions in a schema, whose name goose can't look for if
// it is quoted.
type versions struct {
	database.Store
	of Migrations
}

// TableExists implements [database.StoreExtender].
func (v versions) TableExists(ctx context.Context, db database.DBTxConn) (bool, error) {
	return v.of.exists(ctx, db)
}

// exists reports whether there is a table of versions.
func (m Migrations) exists(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
},
) (exists bool, err error) {
	err = db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", m.Schema+m.Table).Scan(&exists)
	return exists, err
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

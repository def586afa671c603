package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

//go:embed migrations/*.sql
var files embed.FS

// migrations returns the log's migrations and further lists, for its schema.
func (l *Log) migrations(more []sqldb.Migrations) []sqldb.Migrations {
	lists := append([]sqldb.Migrations{{
		Files: sqldb.Folder(files, "migrations"), Go: sqllog.Migrations,
		Table: "tidings_log_version",
	}}, more...)
	for i := range lists {
		lists[i].Dialect, lists[i].Schema = goose.DialectPostgres, l.schema
	}
	return lists
}

// Pending reports whether [Log.Migrate] has anything to do. It writes nothing.
func (l *Log) Pending(ctx context.Context, more ...sqldb.Migrations) (bool, error) {
	for _, m := range l.migrations(more) {
		if pending, err := m.Pending(ctx, l.db); pending || err != nil {
			return pending, l.explainRights(ctx, err)
		}
	}
	return false, nil
}

// Migrate creates or updates the log's schema and tables, and those of further
// lists of migrations in the same schema. Several replicas may call it at every
// start: one does the work and the others wait, for up to five minutes. It needs
// two connections.
//
// It returns an error, and creates nothing, if the schema contains foreign tables
// with the names of the log's. Tables that an earlier version of this package
// created on the search_path are moved to [DefaultSchema]; with any other schema
// this is an error.
func (l *Log) Migrate(ctx context.Context, more ...sqldb.Migrations) error {
	if l.db.Stats().MaxOpenConnections == 1 {
		return errors.New("migrate: this takes two connections, but the pool has only one; raise its limit")
	}
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // it writes nothing
	// Use a transaction-level lock, since poolers may not support sessions.
	_, err = tx.ExecContext(ctx,
		"SET LOCAL lock_timeout = '5min'; SET LOCAL statement_timeout = 0; SET LOCAL "+
			"idle_in_transaction_session_timeout = 0")
	if err == nil {
		_, err = tx.ExecContext(ctx, lockName, l.schema+"migrate")
	}
	if err != nil {
		return fmt.Errorf("migrate: wait for other replicas: %w", err)
	}
	lists := l.migrations(more)
	if err := l.prepareSchema(ctx, lists); err != nil {
		return l.explainRights(ctx, err)
	}
	for _, m := range lists {
		if err := m.Run(ctx, l.db); err != nil {
			return l.explainRights(ctx, err)
		}
	}
	return nil
}

// explainRights adds to an error which privileges on an existing schema are
// missing.
func (l *Log) explainRights(ctx context.Context, err error) error {
	if !hasCode(err, insufficientPrivilege) {
		return err
	}
	var exists bool
	var user string
	failed := l.db.QueryRowContext(ctx,
		"SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1), quote_ident(current_user)",
		l.name).Scan(&exists, &user)
	if failed != nil || !exists {
		return err
	}
	return fmt.Errorf("%w; let the owner of the schema run 'GRANT CREATE, USAGE ON SCHEMA %s TO %s'; tables "+
		"already in it must belong to this role, or to one that it is a member of", err, quote(l.name), user)
}

// prepareSchema makes sure that the schema exists and contains no foreign tables
// with the names of these lists.
func (l *Log) prepareSchema(ctx context.Context, lists []sqldb.Migrations) error {
	earlier, err := l.findEarlier(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, m := range lists {
		_, create, err := m.Creates(ctx, l.db)
		if err != nil {
			return err
		}
		if err := l.refuseForeign(ctx, create); err != nil {
			return err
		}
	}
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("prepare schema %s: %w", l.name, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := l.createSchema(ctx, tx); err != nil {
		return err
	}
	if earlier != "" {
		if err := l.moveFrom(ctx, tx, earlier, lists); err != nil {
			return fmt.Errorf("move the tables of an earlier version from schema %s to %s: %w", earlier, l.name, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("prepare schema %s: %w", l.name, err)
	}
	return nil
}

const chooseSchema = "with database_schema (in Go: Options.Schema of package postgres)"

func (l *Log) createSchema(ctx context.Context, tx *sql.Tx) error {
	var exists bool
	var user string
	err := tx.QueryRowContext(ctx, "SELECT to_regnamespace($1) IS NOT NULL, quote_ident(current_user)",
		quote(l.name)).Scan(&exists, &user)
	if err == nil && !exists { // IF NOT EXISTS requires the privilege even if the schema exists
		_, err = tx.ExecContext(ctx, "CREATE SCHEMA "+quote(l.name))
	}
	if hasCode(err, insufficientPrivilege) {
		return fmt.Errorf("%w; let the owner of the database run 'CREATE SCHEMA %s AUTHORIZATION %s', or choose a "+
			"schema that exists %s",
			err, quote(l.name), user, chooseSchema)
	}
	if err != nil {
		return fmt.Errorf("create schema %s: %w", l.name, err)
	}
	return nil
}

const insufficientPrivilege = "42501"

// refuseForeign returns an error if the schema already contains something with one
// of the names.
func (l *Log) refuseForeign(ctx context.Context, names []string) error {
	var found string
	err := l.db.QueryRowContext(ctx, `
		SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM (
			SELECT relname AS name FROM pg_class WHERE relnamespace = to_regnamespace($1)
			UNION SELECT typname FROM pg_type WHERE typnamespace = to_regnamespace($1)
		) o WHERE name = ANY(string_to_array($2, ','))`, quote(l.name), strings.Join(names, ",")).Scan(&found)
	if err != nil {
		return fmt.Errorf("inspect schema %s: %w", l.name, err)
	}
	if found != "" {
		return fmt.Errorf("schema %s of the database contains objects of another program with names that "+
			"Tidings needs: %s; choose another schema %s",
			l.name, found, chooseSchema)
	}
	return nil
}

// schemaVersion is the first version of the log's tables with a schema of its own.
// Earlier ones used the search_path.
const schemaVersion = 3

// findEarlier returns the schema with the tables of an earlier version; empty if
// there are none, or if the log's own schema already has tables.
func (l *Log) findEarlier(ctx context.Context) (string, error) {
	var earlier string
	err := l.db.QueryRowContext(ctx, `
		SELECT coalesce(min(nspname), '') FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
		WHERE c.oid = to_regclass('tidings_log_version') AND to_regclass(quote_ident(nspname) || '.tidings_cursors')
			IS NOT NULL
			AND to_regclass($1) IS NULL`, l.schema+"tidings_log_version").Scan(&earlier)
	if err != nil || earlier == "" {
		return "", err
	}
	var version int64
	err = l.db.QueryRowContext(ctx, "SELECT max(version_id) FROM "+quote(earlier)+".tidings_log_version").Scan(&version)
	if err != nil || version >= schemaVersion {
		return "", err // another log, with a schema of its own
	}
	if l.name != DefaultSchema {
		return "", fmt.Errorf("schema %[1]s of the database holds the tables of an earlier version of Tidings: "+
			"choose schema %[1]s to keep them there, or none to have them moved to schema %[2]s, %[3]s",
			earlier, DefaultSchema, chooseSchema)
	}
	return earlier, nil
}

// moveFrom moves the tables of the lists from another schema. It leaves the version
// tables there, so that a server of the earlier version fails if it is started
// again, rather than creating empty tables.
func (l *Log) moveFrom(ctx context.Context, tx *sql.Tx, earlier string, lists []sqldb.Migrations) error {
	var names []string
	for _, m := range lists {
		m.Schema = quote(earlier) + "."
		before, _, err := m.Creates(ctx, l.db)
		if err != nil {
			return err
		}
		if before == nil {
			continue
		}
		names = append(names, before...)
		from, to := m.Schema+m.Table, l.schema+m.Table
		_, err = tx.ExecContext(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = '30s';
			CREATE TABLE %[2]s (LIKE %[1]s INCLUDING ALL);
			INSERT INTO %[2]s (version_id, is_applied, tstamp) SELECT version_id, is_applied, tstamp FROM %[1]s ORDER BY id;
			COMMENT ON TABLE %[1]s IS 'Tidings keeps its tables in another schema now. '
				'This one prevents an earlier version from creating new ones here.'`,
			from, to))
		if err != nil {
			return err
		}
	}
	statements, err := moves(ctx, tx, quote(earlier), names)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement+l.schema[:len(l.schema)-1]); err != nil {
			return err
		}
	}
	return nil
}

// moves returns the beginnings of the statements that move tables with their
// partitions, and sequences: ALTER … SET SCHEMA.
func moves(ctx context.Context, tx *sql.Tx, schema string, names []string) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `
		WITH RECURSIVE ours AS (
			SELECT oid, relname, relkind FROM pg_class
			WHERE relnamespace = to_regnamespace($1) AND relname = ANY(string_to_array($2, ',')) AND relkind IN ('r', 'p', 'S')
			UNION SELECT c.oid, c.relname, c.relkind FROM ours JOIN pg_inherits ON inhparent = ours.oid
				JOIN pg_class c ON c.oid = inhrelid
			WHERE c.relnamespace = to_regnamespace($1)
		) SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, quote_ident(relname) FROM ours ORDER BY relname`,
		schema, strings.Join(names, ","))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var statements []string
	for rows.Next() {
		var kind, name string
		if err := rows.Scan(&kind, &name); err != nil {
			return nil, err
		}
		statements = append(statements, "ALTER "+kind+" "+schema+"."+name+" SET SCHEMA ")
	}
	return statements, rows.Err()
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// MigrationFiles returns the migrations as numbered SQL files for other tools, for
// tables in a schema; empty means [DefaultSchema].
func MigrationFiles(schema string) (fs.FS, error) {
	l := &Log{schema: quote(cmp.Or(schema, DefaultSchema)) + "."}
	return l.migrations(nil)[0].Export()
}

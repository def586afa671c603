package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun/dialect"

	"github.com/tidings-dev/tidings"
)

// WithoutEvents returns a store that writes no events, to measure their cost.
func (s *Store) WithoutEvents() *Store {
	silent := *s
	silent.transact = func(ctx context.Context, do func(context.Context, *sql.Tx) ([]tidings.Event, error)) error {
		return s.transact(ctx, func(ctx context.Context, tx *sql.Tx) ([]tidings.Event, error) {
			_, err := do(ctx, tx)
			return nil, err
		})
	}
	return &silent
}

// Setting returns a PostgreSQL setting in the transaction.
func (tx *Tx) Setting(ctx context.Context, name string) (value string, err error) {
	err = tx.tx.QueryRowContext(ctx, "SHOW "+name).Scan(&value)
	return value, err
}

// Exec executes a statement in the transaction.
func (tx *Tx) Exec(ctx context.Context, text string) error {
	_, err := tx.tx.ExecContext(ctx, text)
	return err
}

// SQLite reports whether the database is SQLite.
func (s *Store) SQLite() bool { return s.dialect.Name() == dialect.SQLite }

// TakeReaders takes all connections with which requests read.
func (s *Store) TakeReaders(t *testing.T) (release func()) {
	t.Helper()
	var taken []*sql.Conn
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		c, err := s.reader.Conn(ctx)
		cancel()
		if err != nil {
			break
		}
		taken = append(taken, c)
	}
	if len(taken) < 4 {
		t.Errorf("requests have %d connections", len(taken))
	}
	return func() {
		for _, c := range taken {
			_ = c.Close() // back to the pool
		}
	}
}

// Sockets calls do with a network connection of each pool.
func (s *Store) Sockets(t *testing.T, do func(net.Conn)) {
	t.Helper()
	for _, pool := range []*sql.DB{s.reader, s.writer} {
		c, err := pool.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Raw(func(conn any) error {
			if p, ok := conn.(*pipeline); ok {
				conn = p.Conn
			}
			do(conn.(*stdlib.Conn).Conn().PgConn().Conn())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Exec executes a statement.
func (s *Store) Exec(t *testing.T, text string) {
	t.Helper()
	if s.dialect.schema != "" {
		text = "SET LOCAL search_path TO " + strings.TrimSuffix(s.dialect.schema, ".") + "; " + text
	}
	if _, err := s.writer.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// MigrateSome migrates the log, and the resources with some of their
// migrations.
func (s *Store) MigrateSome(t *testing.T, choose func(fs.FS) fs.FS) {
	t.Helper()
	some := s.migrations[0]
	some.Files = choose(some.Files)
	if err := s.log.Migrate(t.Context(), some); err != nil {
		t.Fatal(err)
	}
}

// SecretColumns names the columns that hold encrypted values.
func SecretColumns() (names []string) {
	for _, c := range secretColumns {
		names = append(names, c.table+"."+c.column)
	}
	return names
}

// Column reads the single column of a query.
func (s *Store) Column(ctx context.Context, query string) (values []string, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
		return s.statement(conn).NewRaw(query).Scan(ctx, &values)
	})
	return values, err
}

// Tables lists the tables that [Store.Ready] checks on PostgreSQL.
var Tables = tables

// SQLiteConn and SQLiteStmt are the driver's.
type (
	SQLiteConn = sqliteConn
	SQLiteStmt = sqliteStmt
)

// Prepared is a connection that keeps prepared statements.
func Prepared(conn SQLiteConn) driver.Conn {
	return &preparedConn{conn, make(map[string]sqliteStmt)}
}

// Frontend is one as connections to PostgreSQL have it.
func Frontend(r io.Reader, w io.Writer) *pgproto3.Frontend { return buildFrontend(func() {})(r, w) }

// BeginMessages begin a transaction.
var BeginMessages = beginMessages

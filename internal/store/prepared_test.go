package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"testing"

	"modernc.org/sqlite"

	"github.com/tidings-dev/tidings/internal/store"
)

// counting counts the statements that are prepared and not closed.
type counting struct {
	driver.Connector
	prepared, open int
}

func (c *counting) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return store.Prepared(&countingConn{conn.(store.SQLiteConn), c}), nil
}

type countingConn struct {
	store.SQLiteConn
	count *counting
}

func (c *countingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.SQLiteConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	c.count.prepared++
	c.count.open++
	return &countingStmt{s.(store.SQLiteStmt), c.count}, nil
}

type countingStmt struct {
	store.SQLiteStmt
	count *counting
}

func (s *countingStmt) Close() error {
	s.count.open--
	return s.SQLiteStmt.Close()
}

// A connection prepares a statement once, however often it runs, and keeps a limited
// number of statements.
func TestPreparedStatements(t *testing.T) {
	connector, err := sqlite.NewConnector("file:" + filepath.Join(t.TempDir(), "prepared.db"))
	if err != nil {
		t.Fatal(err)
	}
	count := &counting{Connector: connector}
	db := sql.OpenDB(count)
	db.SetMaxOpenConns(1)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE notes (n INTEGER PRIMARY KEY)")
	exec("INSERT INTO notes (n) VALUES (0)")
	count.prepared = 0
	for n := range 20 {
		exec("INSERT INTO notes (n) VALUES ($1)", n+1)
		var sum, columns int
		if n == 10 {
			exec("ALTER TABLE notes ADD COLUMN text TEXT")
		}
		if err := db.QueryRow("SELECT sum(n), (SELECT count(*) FROM pragma_table_info('notes')) FROM notes").Scan(&sum,
			&columns); err != nil || sum != (n+1)*(n+2)/2 || columns != 1+min(n/10, 1) {
			t.Errorf("after %d: sum %d, %d columns, %v", n+1, sum, columns, err)
		}
		if _, err := db.Exec("INSERT INTO notes (n) VALUES (0)"); err == nil {
			t.Error("a duplicate was inserted")
		}
	}
	if count.prepared > 20+3 { // a statement that failed is not kept
		t.Errorf("%d statements were prepared", count.prepared)
	}
	for range 2 { // PRAGMA works while it is prepared
		for _, want := range []int{0, 1} {
			exec(fmt.Sprintf("PRAGMA foreign_keys = %d", want))
			var got int
			if err := db.QueryRow("PRAGMA foreign_keys").Scan(&got); err != nil || got != want {
				t.Errorf("foreign_keys = %d, %v; want %d", got, err, want)
			}
		}
	}
	for n := range 1000 {
		exec(fmt.Sprintf("DELETE FROM notes WHERE n = %d", 1000+n))
	}
	if count.open > 100 {
		t.Errorf("%d statements are kept", count.open)
	}
	if err := db.Close(); err != nil || count.open != 0 {
		t.Errorf("%d statements are left, %v", count.open, err)
	}
}

// A query may run while the rows of the same query are read.
func TestPreparedStatementTwice(t *testing.T) {
	s, _ := openShared(t)
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const query = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3"
	for range 2 { // the second time, it is prepared
		pairs := 0
		outer, err := conn.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for outer.Next() {
			inner, err := conn.QueryContext(t.Context(), query)
			if err != nil {
				t.Fatal(err)
			}
			for inner.Next() {
				pairs++
			}
			if err := inner.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := outer.Close(); err != nil || pairs != 9 {
			t.Errorf("%d pairs, %v; want 9", pairs, err)
		}
	}
}

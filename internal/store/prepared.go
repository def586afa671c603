package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"regexp"
)

// maxPrepared is how many statements a connection keeps.
const maxPrepared = 64

// preparedConn keeps prepared statements: SQLite takes longer to prepare a short
// statement than to run it.
type preparedConn struct {
	sqliteConn
	idle map[string]sqliteStmt
}

type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// take returns a statement, which no other goroutine may use until it is put back.
func (c *preparedConn) take(ctx context.Context, query string) (sqliteStmt, error) {
	if s, ok := c.idle[query]; ok {
		delete(c.idle, query)
		return s, nil
	}
	s, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.(sqliteStmt), nil
}

// lasting matches statements that may run again. Others, such as PRAGMA, may do their
// work while they are prepared.
var lasting = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE|WITH|SAVEPOINT|RELEASE) `)

// put keeps a statement, unless it failed.
func (c *preparedConn) put(query string, s sqliteStmt, err error) error {
	if _, known := c.idle[query]; known || err != nil || !lasting.MatchString(query) {
		return s.Close()
	}
	c.idle[query] = s
	if len(c.idle) <= maxPrepared {
		return nil
	}
	for query, s := range c.idle { // any of them
		delete(c.idle, query)
		return s.Close()
	}
	return nil
}

// ExecContext implements [driver.ExecerContext].
func (c *preparedConn) ExecContext(
	ctx context.Context, query string, args []driver.NamedValue,
) (driver.Result, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args)
	if e := c.put(query, s, err); err == nil {
		err = e
	}
	return result, err
}

// QueryContext implements [driver.QueryerContext].
func (c *preparedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args)
	if err != nil {
		_ = s.Close() // the error is that of the query
		return nil, err
	}
	return &preparedRows{sqliteRows: rows.(sqliteRows), close: func(err error) error { return c.put(query, s, err) }}, nil
}

// Close implements [driver.Conn].
func (c *preparedConn) Close() error {
	var errs []error
	for _, s := range c.idle {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.sqliteConn.Close())...)
}

// sqliteRows holds the methods that [database/sql] uses of the driver's rows.
type sqliteRows interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
}

// preparedRows puts its statement back when it is closed.
type preparedRows struct {
	sqliteRows
	close func(error) error
}

// Close implements [driver.Rows].
func (r *preparedRows) Close() error {
	err := r.sqliteRows.Close()
	return errors.Join(err, r.close(err))
}

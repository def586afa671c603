package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"io/fs"
	"os"
	"time"

	"modernc.org/sqlite"

	"github.com/tidings-dev/tidings/eventlog"
)

// openedFile is the database file as it was when it was opened. SQLite goes on using a
// file that was moved away or removed, so whatever is written to it from then on would be
// lost without an error.
type openedFile struct {
	path string
	info os.FileInfo
}

// check returns an error if the path no longer leads to the file that was opened.
func (f *openedFile) check() error {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, f.info) {
		return &eventlog.UnavailableError{
			Reason: "the database file in data_dir was moved, removed or replaced while the server was running: nothing " +
				"is written any more; restart the server to use the file that is there now, or put the former one back",
			Err: err,
		}
	}
	return nil // other errors are SQLite's to report
}

// guarded makes connections that refuse to write once the database file was replaced.
type guarded struct {
	driver.Connector
	file   *openedFile
	writes bool
}

func guard(dsn string, file *openedFile, writes bool) (driver.Connector, error) {
	c, err := sqlite.NewConnector(dsn)
	return guarded{c, file, writes}, err
}

// Connect implements [driver.Connector]: all connections lead to the same file.
func (g guarded) Connect(ctx context.Context) (driver.Conn, error) {
	if err := g.file.check(); err != nil { // SQLite would create one that is missing
		return nil, err
	}
	conn, err := g.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.file.check(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if !g.writes {
		return conn, nil
	}
	return &guardedConn{sqliteConn: conn.(sqliteConn), file: g.file}, nil
}

// sqliteConn is what [database/sql] uses of a connection of the driver.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type guardedConn struct {
	sqliteConn
	file *openedFile
	inTx bool
}

// check comes before everything that may write outside a transaction.
func (c *guardedConn) check() error {
	if c.inTx {
		return nil // its commit is checked
	}
	return c.file.check()
}

// Close implements [driver.Conn]. If the file was replaced, it moves what was committed
// from the write-ahead log into the former file, wherever that is now, and empties the log:
// the next start would take it for that of the new file, and damage that. SQLite leaves a
// log as it is if its file was moved.
func (c *guardedConn) Close() error {
	var errs []error
	if c.file.check() != nil {
		ctx, cancel := context.WithTimeout(context.Background(), detachTime)
		defer cancel()
		rows, err := c.sqliteConn.QueryContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)", nil)
		if err == nil {
			err = rows.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, c.sqliteConn.Close())...)
}

// detachTime is longer than a connection waits for those that read.
const detachTime = 15 * time.Second

// BeginTx implements [driver.ConnBeginTx].
func (c *guardedConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	tx, err := c.sqliteConn.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	c.inTx = true
	return guardedTx{tx, c}, nil
}

// ExecContext implements [driver.ExecerContext].
func (c *guardedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return c.sqliteConn.ExecContext(ctx, query, args)
}

// QueryContext implements [driver.QueryerContext]. Some queries write (RETURNING).
func (c *guardedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return c.sqliteConn.QueryContext(ctx, query, args)
}

type guardedTx struct {
	driver.Tx
	conn *guardedConn
}

// Commit implements [driver.Tx].
func (t guardedTx) Commit() error {
	if err := t.conn.file.check(); err != nil {
		return errors.Join(err, t.Rollback())
	}
	t.conn.inTx = false
	return t.Tx.Commit()
}

// Rollback implements [driver.Tx].
func (t guardedTx) Rollback() error {
	t.conn.inTx = false
	return t.Tx.Rollback()
}

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

// openedFile identifies the database file as it was when it was opened. SQLite
// keeps using a file that was moved or removed, so that later writes would be
// lost without an error.
type openedFile struct {
	path string
	info os.FileInfo
}

// check returns an error if the path no longer refers to the file that was
// opened.
func (f *openedFile) check() error {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, f.info) {
		return &eventlog.UnavailableError{
			Reason: "the database file in data_dir was moved, removed or replaced while the server was running: writes " +
				"are refused; restart the server to use the current file, or restore the original one",
			Err: err,
		}
	}
	return nil // SQLite reports other errors
}

// guarded makes connections that refuse to write once the database file has
// been replaced.
type guarded struct {
	driver.Connector
	file   *openedFile
	writes bool
}

func guard(dsn string, file *openedFile, writes bool) (driver.Connector, error) {
	c, err := sqlite.NewConnector(dsn)
	return guarded{c, file, writes}, err
}

// Connect implements [driver.Connector]. It makes sure that all connections
// open the same file.
func (g guarded) Connect(ctx context.Context) (driver.Conn, error) {
	if err := g.file.check(); err != nil { // SQLite would create a missing file
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
	prepared := &preparedConn{conn.(sqliteConn), make(map[string]sqliteStmt)}
	return &guardedConn{sqliteConn: prepared, file: g.file}, nil
}

// sqliteConn holds the methods that [database/sql] uses of the driver's
// connections.
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

// check runs before everything that may write outside a transaction.
func (c *guardedConn) check() error {
	if c.inTx {
		return nil // the commit is checked
	}
	return c.file.check()
}

// Close implements [driver.Conn]. If the file was replaced, it checkpoints the
// write-ahead log into the original file, wherever that is now, and truncates
// the log: the next start would take it for the new file's log, and corrupt
// that file. SQLite keeps the log of a file that was moved.
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

// detachTime is longer than a checkpoint waits for readers.
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

// QueryContext implements [driver.QueryerContext]. Some queries write
// (RETURNING).
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

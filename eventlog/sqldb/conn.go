// Package sqldb is shared by the packages that keep tables in a database, the event
// log and the program's own: statements, connections and transactions with limits,
// and migrations.
package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// How long a statement waits for a connection, and the pauses between attempts to
// open one.
const (
	connTime      = 10 * time.Second
	minConnPause  = 20 * time.Millisecond
	mostConnPause = 500 * time.Millisecond
)

// Execer runs a statement: *sql.Tx, *sql.Conn, or a wrapper of one.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Do calls do with a connection from a pool. It waits up to 10 seconds for one to
// become free, including for a server that is starting or has reached its
// connection limit. The context passed to do ends after limit.
//
// If the error is an [eventlog.UnavailableError], the connection is closed: a new
// one may reach a server that works.
func Do(ctx context.Context, db *sql.DB, limit time.Duration, do func(context.Context, *sql.Conn) error) error {
	return doAfter(ctx, ctx, db, limit, do)
}

// doAfter is like Do; waiting ends the wait for a connection.
func doAfter(
	waiting, ctx context.Context, db *sql.DB, limit time.Duration, do func(context.Context, *sql.Conn) error,
) error {
	conn, err := acquire(waiting, db)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only returns it to the pool
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = do(limited, conn)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = &eventlog.UnavailableError{Reason: "the database did not answer in time", Err: err}
	}
	if _, away := errors.AsType[*eventlog.UnavailableError](err); away {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // makes the pool close it
	}
	return err
}

// beginTime limits the beginning of a transaction, which the first statement on a
// connection usually is: it notices that the database has gone silent.
const beginTime = 10 * time.Second

// beginRetries is how often a transaction is retried if its connection broke while
// it began.
const beginRetries = 2

// Transact calls do in a transaction on a connection from a pool, like [Do], and
// commits it. begin is called first, to make settings. If the connection broke
// before do was called, it retries on another one.
func Transact(
	ctx context.Context, db *sql.DB, limit time.Duration, o *sql.TxOptions, begin,
	do func(context.Context, *sql.Tx) error,
) error {
	return transactAfter(ctx, ctx, db, limit, o, begin, do)
}

// transactAfter is like Transact; waiting ends the wait for a connection.
func transactAfter(
	waiting, ctx context.Context, db *sql.DB, limit time.Duration, o *sql.TxOptions, begin,
	do func(context.Context, *sql.Tx) error,
) error {
	for try := 0; ; try++ {
		connected, hasBegun := false, false
		err := doAfter(waiting, ctx, db, limit, func(ctx context.Context, conn *sql.Conn) error {
			connected = true
			begun, end := context.WithCancel(ctx) // of the whole transaction
			defer end()
			late := time.AfterFunc(beginTime, end)
			tx, err := conn.BeginTx(begun, o)
			if err == nil {
				defer tx.Rollback() //nolint:errcheck // no-op after a commit
				err = begin(begun, tx)
			}
			if !late.Stop() && ctx.Err() == nil {
				return &eventlog.UnavailableError{
					Reason: "the database did not begin a transaction in time", Err: errors.Join(context.DeadlineExceeded, err),
				}
			}
			if err, _ = eventlog.Unavailable(err); err != nil {
				return fmt.Errorf("begin: %w", err)
			}
			hasBegun = true
			if err := do(begun, tx); err != nil {
				return err
			}
			if err, _ := eventlog.Unavailable(tx.Commit()); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
			return nil
		})
		if !connected || hasBegun || try == beginRetries || !isLost(err) {
			return err
		}
	}
}

// isLost reports whether the connection broke or its server is shutting down.
func isLost(err error) bool {
	if state := sqlState(err); state != "" {
		return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P")
	}
	_, away := errors.AsType[*eventlog.UnavailableError](err)
	_, sqlite := errors.AsType[interface {
		error
		Code() int
	}](err) // SQLite, which has no connections to lose
	return away && !sqlite && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded)
}

func acquire(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	waiting, cancel := context.WithTimeout(ctx, connTime)
	defer cancel()
	var full error // error of a server that has no free connection
	for pause := minConnPause; ; pause = min(2*pause, mostConnPause) {
		conn, err := db.Conn(waiting)
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(ctx.Err(), context.Canceled):
			return nil, ctx.Err()
		case waiting.Err() != nil:
			return nil, noConnection(full, err)
		case !isFull(err):
			return nil, noConnection(err, err)
		}
		full = err
		select {
		case <-waiting.Done():
		case <-time.After(pause):
		}
	}
}

// isFull reports whether PostgreSQL refused a connection because it has too many or
// is starting. Both are temporary.
func isFull(err error) bool {
	state := sqlState(err)
	return state == "53300" || state == "57P03"
}

// sqlState returns the SQLSTATE of a PostgreSQL error, or an empty string.
func sqlState(err error) string {
	if pg, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return pg.SQLState()
	}
	return ""
}

// noConnection returns the error for a missing connection. Without a reason, all
// connections are in use.
func noConnection(reason, err error) error {
	if reason == nil {
		return &eventlog.UnavailableError{Reason: "no connection to the database became free in time", Err: err}
	}
	if away, ok := eventlog.Unavailable(reason); ok {
		return away
	}
	// The password, a name or the host may be wrong.
	return &eventlog.UnavailableError{Reason: "can't connect to the database", Err: reason}
}

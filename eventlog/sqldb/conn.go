// Package sqldb is what those share who keep tables in a database, an event log and the
// program beside it: statements, connections and transactions with bounds, and
// migrations.
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

// How long a statement waits for a connection, and between tries to make one.
const (
	connTime      = 10 * time.Second
	minConnPause  = 20 * time.Millisecond
	mostConnPause = 500 * time.Millisecond
)

// Execer runs a statement: *sql.Tx, *sql.Conn, or a wrapper of one.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Do runs do with a connection of a pool. It waits 10 seconds at most for one to
// be free, also for a server that is starting or has as many connections as it
// can. The context that do gets ends after a limit.
//
// If the error is an [eventlog.UnavailableError], the connection is closed: the
// next one may lead to a server that works.
func Do(ctx context.Context, db *sql.DB, limit time.Duration, do func(context.Context, *sql.Conn) error) error {
	conn, err := acquire(ctx, db)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it only goes back to the pool
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = do(limited, conn)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = &eventlog.UnavailableError{Reason: "the database did not answer in time", Err: err}
	}
	if _, away := errors.AsType[*eventlog.UnavailableError](err); away {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // has the pool close it
	}
	return err
}

// beginRetries is how often a transaction that lost its connection as it began
// gets another one.
const beginRetries = 2

// Transact runs do in a transaction on a connection of a pool, as [Do] does, and
// commits it. begin makes settings in it first. A connection may have been lost
// since it was last used; as nothing was done yet, another one takes its place.
func Transact(
	ctx context.Context, db *sql.DB, limit time.Duration, o *sql.TxOptions, begin,
	do func(context.Context, *sql.Tx) error,
) error {
	for try := 0; ; try++ {
		connected, begun := false, false
		err := Do(ctx, db, limit, func(ctx context.Context, conn *sql.Conn) error {
			connected = true
			tx, err := conn.BeginTx(ctx, o)
			if err == nil {
				defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
				err = begin(ctx, tx)
			}
			if err, _ = eventlog.Unavailable(err); err != nil {
				return fmt.Errorf("begin: %w", err)
			}
			begun = true
			if err := do(ctx, tx); err != nil {
				return err
			}
			if err, _ := eventlog.Unavailable(tx.Commit()); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
			return nil
		})
		if !connected || begun || try == beginRetries || !isLost(err) {
			return err
		}
	}
}

// isLost reports whether the connection broke, or its server is about to go.
func isLost(err error) bool {
	if state := sqlState(err); state != "" {
		return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P")
	}
	_, away := errors.AsType[*eventlog.UnavailableError](err)
	_, said := errors.AsType[interface {
		error
		Code() int
	}](err) // by SQLite, which has no connections to lose
	return away && !said && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded)
}

func acquire(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	waiting, cancel := context.WithTimeout(ctx, connTime)
	defer cancel()
	var full error // what a server said that has no room
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

// isFull reports whether PostgreSQL said, as a connection was made, that it has
// too many of them or is starting. Both pass by themselves.
func isFull(err error) bool {
	state := sqlState(err)
	return state == "53300" || state == "57P03"
}

// sqlState returns what code PostgreSQL gave an error, if it did.
func sqlState(err error) string {
	if pg, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return pg.SQLState()
	}
	return ""
}

// noConnection is why there is no connection; without a reason, all of them are
// in use.
func noConnection(reason, err error) error {
	if reason == nil {
		return &eventlog.UnavailableError{Reason: "no connection to the database became free in time", Err: err}
	}
	if away, ok := eventlog.Unavailable(reason); ok {
		return away
	}
	// A password or a name that is wrong now, or a host.
	return &eventlog.UnavailableError{Reason: "no connection to the database can be made", Err: reason}
}

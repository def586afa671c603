package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// A SQLite file releases unused pages in steps of vacuumStep, each of which
// blocks writers for milliseconds. It keeps some for reuse: a tenth of the
// file, but at least vacuumReserve.
const (
	vacuumStep    = 256
	vacuumReserve = 1024
	vacuumTime    = 10 * time.Second // for a step, including the wait for the writer
)

// pragma reads an integer pragma on SQLite's writing connection.
func pragma(ctx context.Context, conn *sql.Conn, name string) (n int64, err error) {
	err = conn.QueryRowContext(ctx, "PRAGMA "+name).Scan(&n)
	return n, err
}

// GiveBack releases unused pages to the file system. It does nothing on
// PostgreSQL, which does so by itself.
func (s *Store) GiveBack(ctx context.Context) error {
	for more := s.file != nil; more; {
		err := sqldb.Do(ctx, s.writer, vacuumTime, func(ctx context.Context, conn *sql.Conn) error {
			free, err := pragma(ctx, conn, "freelist_count")
			if err != nil {
				return err
			}
			pages, err := pragma(ctx, conn, "page_count")
			if err != nil {
				return err
			}
			mode, err := pragma(ctx, conn, "auto_vacuum")
			if more = mode != 0 && free-max(pages/10, vacuumReserve) >= vacuumStep; err != nil || !more {
				return err
			}
			_, err = conn.ExecContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", vacuumStep))
			return err
		})
		if err, _ = eventlog.Unavailable(err); err != nil {
			return fmt.Errorf("release free pages of the database: %w", err)
		}
	}
	return nil
}

// CanGiveBack reports whether [Store.GiveBack] works, and the size of the
// SQLite file in bytes. Files of earlier versions must be rewritten first.
func (s *Store) CanGiveBack(ctx context.Context) (ok bool, size int64, err error) {
	if s.file == nil {
		return true, 0, nil
	}
	err = sqldb.Do(ctx, s.writer, vacuumTime, func(ctx context.Context, conn *sql.Conn) error {
		mode, err := pragma(ctx, conn, "auto_vacuum")
		ok = mode != 0
		return err
	})
	if err != nil {
		return false, 0, fmt.Errorf("inspect the database: %w", err)
	}
	info, err := os.Stat(s.file.path)
	if err != nil {
		return false, 0, fmt.Errorf("inspect the database: %w", err)
	}
	return ok, info.Size(), nil
}

// Rewrite rewrites the SQLite file so that [Store.GiveBack] works. The database
// is unavailable in the meantime, and temporarily takes up three times its
// size.
func (s *Store) Rewrite(ctx context.Context) error {
	conn, err := s.writer.Conn(ctx)
	if err == nil {
		defer conn.Close() //nolint:errcheck // it only returns to the pool
		_, err = conn.ExecContext(ctx, "PRAGMA auto_vacuum = INCREMENTAL")
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "VACUUM")
	}
	if err != nil {
		return fmt.Errorf("rewrite the database: %w", err)
	}
	return nil
}

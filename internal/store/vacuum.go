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

// A SQLite file gives pages back that nothing uses in steps of vacuumStep, each of
// which keeps others from writing for milliseconds. It keeps those that are needed
// again soon: a tenth of the file, and at least vacuumReserve.
const (
	vacuumStep    = 256
	vacuumReserve = 1024
	vacuumTime    = 10 * time.Second // that a step may take, and wait for the writer
)

// pragma reads a number from the writing connection of SQLite.
func pragma(ctx context.Context, conn *sql.Conn, name string) (n int64, err error) {
	err = conn.QueryRowContext(ctx, "PRAGMA "+name).Scan(&n)
	return n, err
}

// GiveBack gives pages that nothing uses back to the file system. On PostgreSQL, which
// does that itself, it does nothing.
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
			return fmt.Errorf("give free pages of the database back: %w", err)
		}
	}
	return nil
}

// CanGiveBack reports whether [Store.GiveBack] works, and how large the SQLite file
// is, in bytes. Files of earlier versions have to be rewritten for it.
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
		return false, 0, fmt.Errorf("look at the database: %w", err)
	}
	info, err := os.Stat(s.file.path)
	if err != nil {
		return false, 0, fmt.Errorf("look at the database: %w", err)
	}
	return ok, info.Size(), nil
}

// Rewrite writes the SQLite file anew, so that [Store.GiveBack] works. Nobody can use
// it meanwhile, and it needs as much space again, twice.
func (s *Store) Rewrite(ctx context.Context) error {
	conn, err := s.writer.Conn(ctx)
	if err == nil {
		defer conn.Close() //nolint:errcheck // it only goes back to the pool
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

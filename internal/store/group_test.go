package store_test

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"modernc.org/sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// openShared opens SQLite in a bubble, so that [synctest.Wait] knows who waits, with a
// row at version 1.
func openShared(t *testing.T) (s *store.Store, folder string) {
	folder = t.TempDir()
	s, err := store.OpenSQLite(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = s.InTx(t.Context(), func(tx *store.Tx) error {
		at := tx.Now.Format("2006-01-02 15:04:05+00:00")
		row := &user{ID: id(1), Version: 1, CreatedAt: at, UpdatedAt: at, Email: "a@example.com", Role: "user"}
		return tx.Insert(t.Context(), row, event(tidings.Created))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, folder
}

// change adds 1 to the version of the row, which takes a microsecond.
func change(ctx context.Context, tx *store.Tx) error {
	row := &user{ID: id(1)}
	if err := tx.Lock(ctx, row); err != nil {
		return err
	}
	row.Version++
	<-time.After(time.Microsecond)
	e := event(tidings.Updated)
	e.ResourceVersion = row.Version
	return tx.Update(ctx, row, e)
}

// commits counts the commits in the write-ahead log: frames with the size of the
// database. See https://sqlite.org/fileformat.html#walformat.
func commits(t *testing.T, folder string) (n int) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(folder, "tidings.db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	salt, size := log[16:24], 24+int(binary.BigEndian.Uint32(log[8:]))
	for frame := log[32:]; len(frame) >= size; frame = frame[size:] {
		if string(frame[8:16]) != string(salt) { // left by an earlier log
			break
		}
		if binary.BigEndian.Uint32(frame[4:]) != 0 {
			n++
		}
	}
	return n
}

// Changes that wait for each other on SQLite share a commit. They see each other's
// rows, and no other reader does; their events are in order and later than what came
// before.
func TestSQLiteSharesCommits(t *testing.T) {
	const waiting = 15
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s, folder := openShared(t)
		before := commits(t, folder)
		var all sync.WaitGroup
		after := 0
		err := s.InTx(ctx, func(tx *store.Tx) error {
			for range waiting {
				all.Go(func() {
					err := s.InTx(ctx, func(tx *store.Tx) error {
						row := &user{ID: id(1)}
						if err := s.Get(ctx, row); err != nil || row.Version != 1 {
							t.Errorf("others see version %d, %v; want 1", row.Version, err)
						}
						tx.After(func() {
							if err := s.Get(ctx, row); err != nil || row.Version != waiting+2 {
								t.Errorf("after the commit others see version %d, %v", row.Version, err)
							}
						})
						return change(ctx, tx)
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			tx.After(func() { after++ })
			synctest.Wait()
			return change(ctx, tx)
		})
		all.Wait()
		if n := commits(t, folder) - before; n != 1 || err != nil || after != 1 {
			t.Errorf("%d commits, %v; want 1", n, err)
		}
		events, err := s.Log().Read(ctx, 0, 100)
		if err != nil || len(events) != waiting+2 {
			t.Fatalf("%d events, %v; want %d", len(events), err, waiting+2)
		}
		for n, e := range events {
			if e.Sequence != int64(n+1) || e.ResourceVersion != int64(n+1) || n > 1 && !e.Time.After(events[n-1].Time) {
				t.Errorf("event %d: position %d, version %d, at %v", n, e.Sequence, e.ResourceVersion, e.Time)
			}
		}
	})
}

// Requests at the same time give their events to the reader in the order of the log,
// without those that were rolled back, and leave nothing to look for.
func TestSQLiteGivesEvents(t *testing.T) {
	const writers, writes = 8, 40
	s, err := store.OpenSQLite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var given []tidings.Event
	s.Log().OnCommitted(func(events []tidings.Event) bool {
		mu.Lock()
		defer mu.Unlock()
		given = append(given, events...)
		return true
	})
	errUndone := errors.New("undone")
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range writes {
				err := s.InTx(t.Context(), func(tx *store.Tx) error {
					at := tx.Now.Format("2006-01-02 15:04:05+00:00")
					who := 1 + w*writes + n
					row := &user{
						ID: id(who), Version: 1, CreatedAt: at, UpdatedAt: at, Role: "user",
						Email: fmt.Sprintf("%d@example.com", who),
					}
					if err := tx.Insert(t.Context(), row, event(tidings.Created)); err != nil || n%4 > 0 {
						return err
					}
					return errUndone
				})
				if err != nil && !errors.Is(err, errUndone) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	read, err := s.Log().Read(t.Context(), 0, 1000)
	if diff := cmp.Diff(read, given); err != nil || diff != "" || len(read) != writers*writes*3/4 {
		t.Errorf("%d events were read, %v, and %d given (-read +given):\n%s", len(read), err, len(given), diff)
	}
	select {
	case <-s.Log().Woken():
		t.Error("the reader was woken, too")
	default:
	}
}

// endRequest is called by the SQL function end_request.
var endRequest atomic.Pointer[context.CancelFunc]

func init() {
	sqlite.MustRegisterScalarFunction("end_request", 0,
		func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
			(*endRequest.Load())()
			return int64(0), nil
		})
}

// A request that ends during a statement undoes its own changes. No other changes are
// undone, not even to be repeated.
func TestSQLiteRequestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := openShared(t)
		ctx, end := context.WithCancel(t.Context())
		endRequest.Store(&end)
		ended := make(chan error, 1)
		runs := 0
		err := s.InTx(t.Context(), func(tx *store.Tx) error {
			if runs++; runs > 1 {
				return change(t.Context(), tx)
			}
			go func() {
				ended <- s.InTx(ctx, func(tx *store.Tx) error {
					if err := change(ctx, tx); err != nil {
						return err
					}
					return errors.Join(tx.Exec(ctx, `UPDATE users SET role = (WITH RECURSIVE n(i) AS
						(SELECT end_request() UNION ALL SELECT i + 1 FROM n WHERE i < 2000000)
						SELECT 'user' FROM n WHERE i = 2000000)`), change(ctx, tx))
				})
			}()
			synctest.Wait()
			return change(t.Context(), tx)
		})
		if err != nil || runs != 1 {
			t.Errorf("another request: %v, run %d times", err, runs)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the request that ended: %v", err)
		}
		if head, err := s.Log().Advance(t.Context()); err != nil || head != 2 {
			t.Errorf("%d events, %v; want 2", head, err)
		}
	})
}

// Events that share a commit and cannot be written fail all its changes.
func TestSQLiteEventsFailTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s, _ := openShared(t)
		s.Exec(t, "CREATE TRIGGER full BEFORE INSERT ON tidings_events BEGIN SELECT RAISE(ABORT, 'full'); END")
		ended := make(chan error, 1)
		err := s.InTx(ctx, func(tx *store.Tx) error {
			go func() { ended <- s.InTx(ctx, func(tx *store.Tx) error { return change(ctx, tx) }) }()
			synctest.Wait()
			return change(ctx, tx)
		})
		if other := <-ended; err == nil || other == nil {
			t.Errorf("changes without their events: %v, %v", err, other)
		}
		s.Exec(t, "DROP TRIGGER full")
		if err := s.InTx(ctx, func(tx *store.Tx) error { return change(ctx, tx) }); err != nil {
			t.Error(err)
		}
		row := &user{ID: id(1)}
		if err := s.Get(ctx, row); err != nil || row.Version != 2 {
			t.Errorf("version %d, %v; want 2", row.Version, err)
		}
		if head, err := s.Log().Advance(ctx); err != nil || head != 2 {
			t.Errorf("%d events, %v; want 2", head, err)
		}
	})
}

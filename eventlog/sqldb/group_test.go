package sqldb_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// endContext is called by the SQL function end_context.
var endContext atomic.Pointer[context.CancelFunc]

func init() {
	sqlite.MustRegisterScalarFunction("end_context", 0,
		func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
			(*endContext.Load())()
			return int64(0), nil
		})
}

// slow runs a statement that takes long, and calls end_context when it begins.
func slow(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO notes (text) WITH RECURSIVE n(i) AS (
		SELECT end_context() UNION ALL SELECT i + 1 FROM n WHERE i < 50000000) SELECT 'slow' || max(i) FROM n`)
	return err
}

// group is a group whose commits are counted.
type group struct {
	*testing.T
	*sqldb.Group
	db      *sql.DB
	commits int
	refuse  bool // every commit
	// committing runs in each commit.
	committing func()
	all        sync.WaitGroup
}

// newGroup must be called in a bubble, so that [synctest.Wait] knows who is waiting.
func newGroup(t *testing.T) *group {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "group.db")+
		"?_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE notes (seq INTEGER PRIMARY KEY AUTOINCREMENT, text UNIQUE)"); err != nil {
		t.Fatal(err)
	}
	g := &group{T: t, Group: sqldb.NewGroup(db, time.Minute, nil), db: db, committing: func() {}}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Raw(func(c any) error {
		c.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 {
			g.commits++
			g.committing()
			if g.refuse {
				return 1
			}
			return 0
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// note writes a text.
func note(text string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO notes (text) VALUES ($1)", text)
		return err
	}
}

// waits starts a transaction and returns when it waits for its turn.
func (g *group) waits(
	ctx context.Context, transact func(context.Context, func(context.Context, *sql.Tx) error) error,
	do func(context.Context, *sql.Tx) error,
) *error {
	result := new(error)
	g.all.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				*result = fmt.Errorf("panic: %v", p)
			}
		}()
		*result = errors.New("left")
		*result = transact(ctx, do)
	})
	synctest.Wait()
	return result
}

// lead runs a transaction during which prepare starts others, and waits for all of
// them.
func (g *group) lead(prepare func()) error {
	err := g.Transact(g.Context(), func(ctx context.Context, tx *sql.Tx) error {
		prepare()
		return note("leader")(ctx, tx)
	})
	g.all.Wait()
	return err
}

func (g *group) wants(want ...string) {
	g.Helper()
	rows, err := g.db.Query("SELECT seq, text FROM notes ORDER BY seq")
	if err != nil {
		g.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var seq int
		var text string
		if err := rows.Scan(&seq, &text); err != nil {
			g.Fatal(err)
		}
		if got = append(got, text); seq != len(got) {
			g.Errorf("%s is number %d, not %d", text, seq, len(got))
		}
	}
	if err := rows.Err(); err != nil || !slices.Equal(got, want) {
		g.Errorf("notes: %q, %v; want %q", got, err, want)
	}
}

// Transactions that wait while one runs share its commit, in the order in which they came,
// and return after it.
func TestGroupSharesCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		want := []string{"leader"}
		var results []*error
		g.committing = func() {
			for n, r := range results {
				if *r == nil {
					t.Errorf("%d returned before the commit", n)
				}
			}
		}
		err := g.lead(func() {
			for n := range 20 {
				want = append(want, fmt.Sprint(n))
				results = append(results, g.waits(t.Context(), g.Transact, note(fmt.Sprint(n))))
			}
		})
		if n := g.commits; n != 1 || err != nil {
			t.Errorf("%d commits, %v; want 1", n, err)
		}
		g.wants(want...)
	})
}

// A transaction that fails, in whatever way, undoes what it wrote itself and nothing else.
func TestGroupFailures(t *testing.T) {
	veto := errors.New("veto")
	undone := func(then func() error) func(context.Context, *sql.Tx) error {
		return func(ctx context.Context, tx *sql.Tx) error { return errors.Join(note("undone")(ctx, tx), then()) }
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	says := func(want string) func(error) bool { return func(err error) bool { return err.Error() == want } }
	failures := []struct {
		name string
		do   func(context.Context, *sql.Tx) error
		ends error // of the context, if it ends while this waits
		want func(error) bool
	}{
		{"error", undone(func() error { return veto }), nil, is(veto)},
		{"constraint", note("leader"), nil, func(err error) bool {
			lite, ok := errors.AsType[*sqlite.Error](err)
			return ok && lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
		}},
		{"panic", undone(func() error { panic("no") }), nil, says("panic: no")},
		{"exit", undone(func() error { runtime.Goexit(); return nil }), nil, says("left")},
		{"canceled", note("canceled"), context.Canceled, is(context.Canceled)},
		{"too late", note("too late"), context.DeadlineExceeded, is(context.DeadlineExceeded)},
	}
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		want, results := []string{"leader"}, make([]*error, len(failures))
		err := g.lead(func() {
			for i, f := range failures {
				ctx, end := context.WithTimeout(t.Context(), time.Minute)
				if errors.Is(f.ends, context.DeadlineExceeded) {
					ctx, end = context.WithTimeout(t.Context(), time.Second)
				}
				t.Cleanup(end)
				results[i] = g.waits(ctx, g.Transact, f.do)
				if errors.Is(f.ends, context.Canceled) {
					end()
				}
				want = append(want, f.name)
				g.waits(t.Context(), g.Transact, note(f.name))
			}
			<-time.After(time.Second)
			synctest.Wait()
		})
		if n := g.commits; n != 1 || err != nil {
			t.Errorf("%d commits, %v; want 1", n, err)
		}
		for i, f := range failures {
			if !f.want(*results[i]) {
				t.Errorf("%s: %v", f.name, *results[i])
			}
		}
		g.wants(want...)
	})
}

// If SQLite rolls everything back because a statement was interrupted, the other transactions
// again.
func TestGroupInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		ctx, end := context.WithCancel(t.Context())
		endContext.Store(&end)
		var before, broken, after *error
		err := g.lead(func() {
			if before != nil {
				return // again
			}
			before = g.waits(t.Context(), g.Transact, note("before"))
			broken = g.waits(t.Context(), g.Transact, func(_ context.Context, tx *sql.Tx) error {
				return errors.Join(note("undone")(t.Context(), tx), slow(ctx, tx))
			})
			after = g.waits(t.Context(), g.Transact, note("after"))
		})
		if err != nil || *before != nil || *after != nil || !errors.Is(*broken, context.Canceled) {
			t.Errorf("errors: %v, %v, %v; that of the broken one: %v", err, *before, *after, *broken)
		}
		var n int
		row := g.db.QueryRow("SELECT count(*) FROM notes WHERE text IN ('leader', 'before', 'after')")
		if err := row.Scan(&n); err != nil || n != 3 {
			t.Errorf("%d notes, %v; want 3", n, err)
		}
	})
}

// The other transactions do not depend on the request of the one that leads.
func TestGroupLeaderEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		request, end := context.WithCancel(t.Context())
		var joined *error
		err := g.Transact(request, func(ctx context.Context, tx *sql.Tx) error {
			joined = g.waits(t.Context(), g.Transact, func(ctx context.Context, tx *sql.Tx) error {
				end()
				synctest.Wait()
				return note("joined")(ctx, tx)
			})
			return note("leader")(ctx, tx)
		})
		g.all.Wait()
		if err != nil || *joined != nil {
			t.Errorf("%v, %v", err, *joined)
		}
		g.wants("leader", "joined")
	})
}

// A commit that fails fails all its transactions, and the next one works.
func TestGroupCommitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.refuse = true
		var results []*error
		err := g.lead(func() {
			for n := range 3 {
				results = append(results, g.waits(t.Context(), g.Transact, note(fmt.Sprint(n))))
			}
			// It duplicates a row that is not there after all.
			results = append(results, g.waits(t.Context(), g.Transact, note("0")))
		})
		for _, r := range append(results, &err) {
			if lite, ok := errors.AsType[*sqlite.Error](*r); !ok ||
				lite.Code() != sqlite3.SQLITE_CONSTRAINT_COMMITHOOK {
				t.Errorf("error: %v; want that of the commit", *r)
			}
		}
		g.wants()
		g.refuse = false
		if err := g.lead(func() { g.waits(t.Context(), g.Transact, note("again")) }); err != nil {
			t.Error(err)
		}
		g.wants("leader", "again")
	})
}

// A transaction that waits for something else holds up no other commit.
func TestGroupAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		hangs, hold := make(chan struct{}), make(chan struct{})
		var before, alone, after *error
		go func() {
			_ = g.lead(func() {
				before = g.waits(t.Context(), g.Transact, note("before"))
				alone = g.waits(t.Context(), g.TransactAlone, func(ctx context.Context, tx *sql.Tx) error {
					after = g.waits(t.Context(), g.Transact, note("after"))
					close(hangs)
					<-hold
					return note("alone")(ctx, tx)
				})
			})
		}()
		<-hangs
		synctest.Wait()
		if *before != nil {
			t.Errorf("while another one hangs: %v", *before)
		}
		close(hold)
		g.all.Wait()
		if *alone != nil || *after != nil || g.commits != 3 {
			t.Errorf("%v, %v, %d commits; want 3", *alone, *after, g.commits)
		}
		g.wants("leader", "before", "alone", "after")
	})
}

// A shared transaction commits although others are waiting, after a number of them and after
// some time.
func TestGroupIsBounded(t *testing.T) {
	for _, c := range []struct {
		name          string
		waiting, want int
		each          time.Duration
	}{
		{"number", 2*sqldb.GroupSize + 1, 3, 0},
		{"time", 6, 3, sqldb.GroupTime / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t)
				err := g.lead(func() {
					for n := range c.waiting {
						g.waits(t.Context(), g.Transact, func(ctx context.Context, tx *sql.Tx) error {
							<-time.After(c.each)
							return note(fmt.Sprint(n))(ctx, tx)
						})
					}
				})
				if n := g.commits; n != c.want || err != nil {
					t.Errorf("%d commits, %v; want %d", n, err, c.want)
				}
			})
		})
	}
}

// A transaction waits for its turn as long as for a connection, and no longer than its
// request.
func TestGroupWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		ctx, end := context.WithCancel(t.Context())
		var canceled, late *error
		err := g.lead(func() {
			canceled = g.waits(ctx, g.Transact, note("canceled"))
			late = g.waits(t.Context(), g.Transact, note("late"))
			end()
			synctest.Wait()
			if !errors.Is(*canceled, context.Canceled) {
				t.Errorf("canceled: %v", *canceled)
			}
			<-time.After(11 * time.Second)
			synctest.Wait()
			if _, ok := errors.AsType[*eventlog.UnavailableError](*late); !ok {
				t.Errorf("late: %v", *late)
			}
		})
		if err != nil {
			t.Error(err)
		}
		for range 20 { // although none is ahead of it
			if err := g.Transact(ctx, note("ended")); !errors.Is(err, context.Canceled) {
				t.Errorf("ended: %v", err)
			}
		}
		g.wants("leader")
	})
}

package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// Limits of a shared transaction, after which it commits although others are waiting: how
// many it holds, and for how long others may join.
const (
	groupSize = 128
	groupTime = 10 * time.Millisecond
)

// lostRetries is how often a transaction is retried if another one broke it.
const lostRetries = 5

// errLost is the error of a shared transaction that the database rolled back because
// of another one in it, for example one whose statement took too long.
var errLost = &eventlog.UnavailableError{Reason: "the database rolled back a transaction shared with others"}

// Group runs transactions on SQLite, which has one writer and waits for the disk in
// each commit. Those that wait while one runs join it: they run one after
// another, each in a savepoint, and share one commit.
type Group struct {
	db    *sql.DB
	limit time.Duration
	last  func(context.Context, *sql.Tx) (committed func(), err error)
	turn  chan struct{} // full while a transaction leads
	join  chan *shared  // unbuffered, so that only waiting ones receive
}

// NewGroup returns a group for the pool of writers, whose transactions take the write
// lock when they begin. limit is that of [Transact]. last writes, before each commit, what
// those that share it left to be written together; may be nil. If it fails, so do they. The
// function that it returns is called after the commit, before the next transaction begins.
func NewGroup(
	db *sql.DB, limit time.Duration, last func(context.Context, *sql.Tx) (committed func(), err error),
) *Group {
	if last == nil {
		last = func(context.Context, *sql.Tx) (func(), error) { return func() {}, nil }
	}
	return &Group{db: db, limit: limit, last: last, turn: make(chan struct{}, 1), join: make(chan *shared)}
}

// shared is a transaction that others may join. The transaction that began it leads: it waits
// while they run, and commits.
type shared struct {
	ctx  context.Context // not a request's, because the transaction is rolled back when it ends
	tx   *sql.Tx
	next chan error    // receives when one that joined has run: an error if the transaction is lost
	done chan struct{} // closed after the commit
	err  error         // of the commit
}

// Transact calls do in a transaction and returns once it is committed. If do fails or
// panics, nothing that it wrote is kept, and other transactions are not affected. Its
// statements must not be interrupted when a request ends, because SQLite may then roll
// back the whole transaction; if it does, do is called again for the others.
func (g *Group) Transact(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	return g.transact(ctx, g.join, do)
}

// TransactAlone is like [Group.Transact], but shares no transaction. It is for a do
// that waits for something other than the database, which would hold up the others'
// commit.
func (g *Group) TransactAlone(ctx context.Context, do func(context.Context, *sql.Tx) error) error {
	return g.transact(ctx, nil, do)
}

// transact leads a transaction, or joins another one through join if that is sooner.
func (g *Group) transact(ctx context.Context, join chan *shared, do func(context.Context, *sql.Tx) error) error {
	unlessEnded := func(begun context.Context, tx *sql.Tx) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return do(begun, tx)
	}
	for try := 0; ; try++ {
		err := g.once(ctx, join, unlessEnded)
		if try == lostRetries || !errors.Is(err, errLost) {
			return err
		}
	}
}

func (g *Group) once(ctx context.Context, join chan *shared, do func(context.Context, *sql.Tx) error) error {
	waiting, cancel := context.WithTimeout(ctx, connTime)
	defer cancel()
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
		return g.lead(waiting, ctx, join, do)
	case s := <-join:
		return s.follow(do)
	case <-waiting.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return noConnection(nil, waiting.Err())
	}
}

func (g *Group) lead(
	waiting, ctx context.Context, join chan *shared, do func(context.Context, *sql.Tx) error,
) error {
	s := &shared{next: make(chan error), done: make(chan struct{}), err: errors.New("the commit did not return")}
	defer close(s.done)
	var committed func()
	s.err = transactAfter(waiting, context.WithoutCancel(ctx), g.db, g.limit, nil,
		func(context.Context, *sql.Tx) error { return nil },
		func(begun context.Context, tx *sql.Tx) error {
			if err := do(begun, tx); err != nil {
				return err // nobody has joined yet
			}
			s.ctx, s.tx = begun, tx
			if err := s.admit(join); err != nil {
				return err
			}
			var err error
			committed, err = g.last(begun, tx)
			return err
		})
	if s.err == nil {
		committed()
	}
	return s.err
}

// admit lets waiting transactions join, one at a time.
func (s *shared) admit(join chan *shared) error {
	for n, begun := 1, time.Now(); n < groupSize && time.Since(begun) < groupTime; n++ {
		select {
		case join <- s:
			if lost := <-s.next; lost != nil {
				return errLost
			}
		default:
			return nil
		}
	}
	return nil
}

// follow runs do in a savepoint of the transaction and waits for the commit, even if do
// fails: the cause may have been written by another one.
func (s *shared) follow(do func(context.Context, *sql.Tx) error) error {
	err, lost := s.inSavepoint(do)
	if lost != nil {
		return cmp.Or(err, lost)
	}
	<-s.done
	return cmp.Or(s.err, err)
}

func (s *shared) inSavepoint(do func(context.Context, *sql.Tx) error) (err, lost error) {
	end := "ROLLBACK TO joined; RELEASE joined"
	defer func() { // also after a panic
		lost = s.exec(end)
		s.next <- lost
	}()
	if err := s.exec("SAVEPOINT joined"); err != nil {
		return err, nil
	}
	if err := do(s.ctx, s.tx); err != nil {
		return err, nil
	}
	end = "RELEASE joined"
	return nil, nil
}

func (s *shared) exec(statement string) error {
	_, err := s.tx.ExecContext(context.WithoutCancel(s.ctx), statement)
	err, _ = eventlog.Unavailable(err)
	return err
}

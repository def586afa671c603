package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// ledger is what a consumer writes under its lease, and reads back. A write is tried
// until it succeeds, the lease is lost or the context ends; after one that was given
// up, the cursor must not move any more.
type ledger struct {
	log    eventlog.Log
	write  func(context.Context, eventlog.Parking) error
	lease  eventlog.Lease // as it was acquired
	tail   *tail
	losses int // of the tail when the lease was acquired
	page   int // how many rows are read at once at the beginning
	logger *slog.Logger
	lost   atomic.Bool
	lose   func()        // ends all that is done under the lease
	frozen bool          // a write was given up
	writes atomic.Int64  // to the partition, by this owner and those before it
	moved  chan struct{} // given once there are more, so that their number is saved

	unparked []int64   // delivered, and still in the retries table
	unparkAt time.Time // when they have to go
	nextDue  time.Time // when a parked event is due; zero if none is
}

const (
	// unparkLimit and unparkInterval bound what was delivered and is still in the
	// retries table, and so what is sent again after a crash.
	unparkLimit    = 256
	unparkInterval = 250 * time.Millisecond
	// laneRows is how many parked events of a resource are held at once: after an
	// hour of retries there may be very many.
	laneRows = 32
	// mergeRows is how many are looked at where updates are merged, mergePage at once:
	// what comes of them should not depend on how far they were read.
	mergeRows = 10_000
	mergePage = 256
	// dueRows is how many parked resources that are due are read at once.
	dueRows = 64
)

var errLost = errors.New("the lease was lost")

// valid returns the lease in the epoch in which this process knows the log now; false if
// it is lost, or if the database lost what was read under it.
func (l *ledger) valid() (lease eventlog.Lease, ok bool) {
	view := l.tail.view.Load()
	if view.losses != l.losses && !l.lost.Load() {
		l.lose()
	}
	lease = l.lease
	lease.Epoch = view.epoch
	return lease, !l.lost.Load()
}

// epochPause is how long a write waits at first that was refused in a new epoch.
const epochPause = 20 * time.Millisecond

// store does a write under the lease.
func (l *ledger) store(ctx context.Context, do func(context.Context, eventlog.Lease) error) bool {
	return l.persist(ctx, func(ctx context.Context, lease eventlog.Lease) error {
		if err := do(ctx, lease); err != nil {
			return err
		}
		if !l.tail.within(lease.Epoch, func() { l.writes.Add(1) }) {
			l.lose() // too late for the check whether the new epoch has it
		}
		give(l.moved)
		return nil
	})
}

// persist does a write under the lease, or a read that can't be done without.
func (l *ledger) persist(ctx context.Context, do func(context.Context, eventlog.Lease) error) bool {
	pause := epochPause
	for failing := false; ; failing = true {
		err := errLost
		if lease, ok := l.valid(); ok {
			err = do(ctx, lease)
		}
		switch {
		case err == nil:
			return true
		case errors.Is(err, eventlog.ErrLeaseLost), errors.Is(err, errLost):
			l.frozen = true
			l.lose()
			return false
		case ctx.Err() != nil:
			l.frozen = true
			return false
		case errors.Is(err, eventlog.ErrNewEpoch):
			l.log.Wake() // the tail finds out first what was lost
			wait(ctx, pause)
			pause = min(2*pause, time.Second)
			continue
		case !failing:
			l.logger.Error("delivery waits for the database, trying again every second", "error", err)
		}
		wait(ctx, time.Second)
	}
}

// park writes events that failed or that wait behind such.
func (l *ledger) park(ctx context.Context, rows []eventlog.Retry) bool {
	if len(rows) == 0 {
		return true
	}
	for _, r := range rows {
		if r.Dead.IsZero() && !r.Next.IsZero() {
			l.dueAt(r.Next)
		}
	}
	return l.store(ctx, func(ctx context.Context, lease eventlog.Lease) error {
		return l.write(ctx, eventlog.Parking{Lease: lease, Retries: rows})
	})
}

// dueAt notes when a parked event is due.
func (l *ledger) dueAt(at time.Time) {
	if l.nextDue.IsZero() || at.Before(l.nextDue) {
		l.nextDue = at
	}
}

// unpark notes that an event needs no row any more; rows are removed in batches.
func (l *ledger) unpark(ctx context.Context, now time.Time, sequences ...int64) {
	if len(sequences) == 0 {
		return
	}
	if len(l.unparked) == 0 {
		l.unparkAt = now.Add(unparkInterval)
	}
	l.unparked = append(l.unparked, sequences...)
	if len(l.unparked) >= unparkLimit {
		l.flush(ctx)
	}
}

// flush removes the rows of what was delivered.
func (l *ledger) flush(ctx context.Context) bool {
	if len(l.unparked) == 0 {
		return true
	}
	done := l.store(ctx, func(ctx context.Context, lease eventlog.Lease) error {
		return l.write(ctx, eventlog.Parking{Lease: lease, Done: l.unparked})
	})
	if done {
		l.unparked = nil
	}
	return done
}

// lane reads the oldest parked events of a resource.
func (l *ledger) lane(ctx context.Context, e tidings.Event, limit int) (rows []eventlog.Retry, ok bool) {
	if !l.flush(ctx) { // or it would read what was delivered
		return nil, false
	}
	ok = l.persist(ctx, func(ctx context.Context, lease eventlog.Lease) (err error) {
		rows, err = l.log.NextParked(ctx, lease.Endpoint, e, limit)
		return err
	})
	return rows, ok
}

// due reads the parked events that are due, and learns when the next one is.
func (l *ledger) due(ctx context.Context, now time.Time, limit int) []eventlog.Retry {
	if l.nextDue.IsZero() || l.nextDue.After(now) || !l.flush(ctx) {
		return nil
	}
	var rows []eventlog.Retry
	l.persist(ctx, func(ctx context.Context, lease eventlog.Lease) (err error) {
		rows, l.nextDue, err = l.log.Due(ctx, lease.Partition, now, limit)
		return err
	})
	if len(rows) == limit { // there may be more
		l.dueAt(now)
	}
	return rows
}

// again makes the events due that were parked for a reason since a time.
func (l *ledger) again(ctx context.Context, reason string, since, now time.Time) {
	l.store(ctx, func(ctx context.Context, lease eventlog.Lease) error {
		n, err := l.log.Requeue(ctx, lease, reason, since, now)
		if n > 0 {
			l.dueAt(now)
			l.logger.Info("events that were parked when the endpoint began to fail are due again", "count", n)
		}
		return err
	})
}

// begin finds the resources that were parked when the last owner stopped, and the
// dead letters that the cursor has not passed: those may not be sent again, for
// later events of their resource went out. What nobody would try again, because the
// one before it became a dead letter, is due at once, and so is what the endpoint does
// not match any more: those behind it need not wait for that.
func (l *ledger) begin(
	ctx context.Context, after int64, parked parkedSet, matches func(tidings.Event) bool, now time.Time,
) (dead map[int64]bool) {
	dead = make(map[int64]bool)
	l.pages(ctx, after, func(ctx context.Context, after int64) ([]eventlog.Retry, error) {
		return l.log.Parked(ctx, eventlog.ParkedFilter{
			Endpoint: l.lease.Endpoint, Dead: true,
			After: after, Limit: l.page,
		})
	}, func(rows []eventlog.Retry) {
		for _, r := range rows {
			dead[r.Event.Sequence] = true
		}
	})
	l.pages(ctx, 0, func(ctx context.Context, after int64) ([]eventlog.Retry, error) {
		return l.log.ParkedLanes(ctx, l.lease.Partition, after, l.page)
	}, func(rows []eventlog.Retry) {
		var forgotten []eventlog.Retry
		for _, r := range rows {
			parked[hashOf(r.Event.Resource())] = struct{}{}
			if r.Next.IsZero() {
				r.First = now
			}
			if r.Next.IsZero() || (r.Next.After(now) && !matches(r.Event)) {
				r.Next = now
				forgotten = append(forgotten, r)
				continue
			}
			l.dueAt(r.Next)
		}
		l.park(ctx, forgotten)
	})
	return dead
}

func (l *ledger) pages(
	ctx context.Context, after int64, read func(context.Context, int64) ([]eventlog.Retry, error),
	take func([]eventlog.Retry),
) {
	for {
		var rows []eventlog.Retry
		ok := l.persist(ctx, func(ctx context.Context, _ eventlog.Lease) (err error) {
			rows, err = read(ctx, after)
			return err
		})
		if !ok {
			return
		}
		take(rows)
		if len(rows) < l.page {
			return
		}
		after = rows[len(rows)-1].Event.Sequence
	}
}

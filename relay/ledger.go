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

// ledger performs a consumer's writes under its lease, and reads them back. A write
// is retried until it succeeds, the lease is lost or the context ends. After a
// write was given up, the cursor must no longer move.
type ledger struct {
	log    eventlog.Log
	write  func(context.Context, eventlog.Parking) error
	lease  eventlog.Lease // as acquired
	tail   *tail
	losses int // the tail's losses when the lease was acquired
	page   int // number of rows per page when loading
	logger *slog.Logger
	lost   atomic.Bool
	lose   func()        // aborts all work under the lease
	frozen bool          // a write was given up
	writes atomic.Int64  // writes to the partition by this owner and earlier ones
	moved  chan struct{} // signaled after each write, so that the count is saved

	unparked []int64   // delivered, but still in the retries table
	unparkAt time.Time // when unparked must be flushed
	nextDue  time.Time // when the next parked event is due; zero if there is none
}

const (
	// unparkLimit and unparkInterval bound the delivered events that are still in
	// the retries table, and thereby what is sent again after a crash.
	unparkLimit    = 256
	unparkInterval = 250 * time.Millisecond
	// laneRows is how many parked events of a resource are held in memory at once:
	// after an hour of retries there may be very many.
	laneRows = 32
	// mergeRows is how many are read for merging, mergePage at a time. It is large
	// so that the result does not depend on how far was read.
	mergeRows = 10_000
	mergePage = 256
	// dueRows is how many due parked resources are read at once.
	dueRows = 64
)

var errLost = errors.New("the lease was lost")

// valid returns the lease with the epoch that this process knows. It returns false
// if the lease is lost, or if the database lost what was read under it.
func (l *ledger) valid() (lease eventlog.Lease, ok bool) {
	view := l.tail.view.Load()
	if view.losses != l.losses && !l.lost.Load() {
		l.lose()
	}
	lease = l.lease
	lease.Epoch = view.epoch
	return lease, !l.lost.Load()
}

// epochPause is the initial pause of a write that was refused because of a new
// epoch.
const epochPause = 20 * time.Millisecond

// store performs a write under the lease.
func (l *ledger) store(ctx context.Context, do func(context.Context, eventlog.Lease) error) bool {
	return l.persist(ctx, func(ctx context.Context, lease eventlog.Lease) error {
		if err := do(ctx, lease); err != nil {
			return err
		}
		if !l.tail.within(lease.Epoch, func() { l.writes.Add(1) }) {
			l.lose() // the new epoch's check may have missed this write
		}
		notify(l.moved)
		return nil
	})
}

// persist performs a write under the lease, or a read that the consumer depends on.
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
			l.log.Wake() // the tail first finds out what was lost
			wait(ctx, pause)
			pause = min(2*pause, time.Second)
			continue
		case !failing:
			l.logger.Error("delivery waits for the database, trying again every second", "error", err)
		}
		wait(ctx, time.Second)
	}
}

// park writes events that failed and those that wait behind them.
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

// unpark notes that an event's row is no longer needed. Rows are removed in
// batches.
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

// flush removes the rows of delivered events.
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
	if !l.flush(ctx) { // otherwise it would read delivered events
		return nil, false
	}
	ok = l.persist(ctx, func(ctx context.Context, lease eventlog.Lease) (err error) {
		rows, err = l.log.NextParked(ctx, lease.Endpoint, e, limit)
		return err
	})
	return rows, ok
}

// due reads the parked events that are due and notes when the next one is.
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

// discarded reads events that operators discarded.
func (l *ledger) discarded(ctx context.Context, limit int) (rows []eventlog.Retry) {
	if !l.flush(ctx) {
		return nil
	}
	l.persist(ctx, func(ctx context.Context, lease eventlog.Lease) (err error) {
		rows, err = l.log.Discarded(ctx, lease.Partition, limit)
		return err
	})
	return rows
}

// requeue makes events due that were parked for a reason since a time.
func (l *ledger) requeue(ctx context.Context, reason string, since, now time.Time) {
	l.store(ctx, func(ctx context.Context, lease eventlog.Lease) error {
		n, err := l.log.Requeue(ctx, lease, reason, since, now)
		if n > 0 {
			l.dueAt(now)
			l.logger.Debug("events that were parked when the endpoint began to fail are due again", "count", n)
		}
		return err
	})
}

// load finds the resources that were parked when the last owner stopped, and the
// dead letters above the cursor; those must not be sent again, since later events
// of their resource have been sent. Two kinds of rows become due immediately: those
// without a next attempt because the one before them became a dead letter, and
// those that the endpoint no longer matches, so that the ones behind them need not
// wait.
func (l *ledger) load(
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

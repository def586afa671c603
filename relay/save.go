package relay

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// saveRegularly saves cursors when they move, at most once per interval unless it is
// urgent. It starts with a shorter interval, so that a process that is killed
// repeatedly still makes progress.
func (r *Relay) saveRegularly(ctx context.Context) {
	pause := r.options.CursorInterval / 16
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.moved:
		}
		err := r.saveCursors(ctx, r.consumers()...)
		if err != nil && !failing && ctx.Err() == nil {
			r.logger.Error("cursors cannot be saved, trying again", "error", err)
		}
		if failing = err != nil; failing {
			notify(r.moved)
		} else {
			r.writeJournal(ctx, false)
		}
		r.waitToSave(ctx, pause)
		pause = min(2*pause, r.options.CursorInterval)
	}
}

// waitToSave waits until cursors may be saved again.
func (r *Relay) waitToSave(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.urgent:
	case <-ctx.Done():
	}
}

func (r *Relay) consumers() []*consumer {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*consumer, 0, len(r.running))
	for c := range r.running {
		all = append(all, c)
	}
	return all
}

// saveCursors writes the cursors that moved and notifies consumers whose lease was
// lost. If a new epoch has begun, it first finds out what was lost.
func (r *Relay) saveCursors(ctx context.Context, consumers ...*consumer) error {
	select {
	case r.saving <- struct{}{}:
		defer func() { <-r.saving }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := r.saveMoved(ctx, consumers)
	if errors.Is(err, eventlog.ErrNewEpoch) {
		if err = r.tail.follow(ctx); err == nil {
			err = r.saveMoved(ctx, consumers)
		}
	}
	return err
}

func (r *Relay) saveMoved(ctx context.Context, consumers []*consumer) error {
	var moved []eventlog.Cursor
	var movers []*consumer
	for _, c := range consumers {
		cursor, ok := c.save()
		if ok && !cursor.Equal(c.progress.saved) {
			moved, movers = append(moved, cursor), append(movers, c)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	lost, err := r.log.SaveCursors(ctx, moved)
	if err != nil {
		return err
	}
	for i, c := range movers {
		c.progress.saved = moved[i]
		for _, l := range lost {
			if l.Same(c.lease()) {
				c.lose()
			}
		}
	}
	return nil
}

// forget releases a consumer that has ended.
func (r *Relay) forget(c *consumer) {
	r.mu.Lock()
	delete(r.running, c)
	r.mu.Unlock()
	r.release(c.configured)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

const (
	// parkedPage is how many parked events are changed before the progress is saved.
	parkedPage = 1000
	// changesInterval is how often a process looks for changes that others added or left
	// unfinished.
	changesInterval = 10 * time.Second
)

// Discard removes parked events or dead letters of an endpoint at the given positions,
// and adds a record of each to the history. It returns how many it removed, also with
// an error.
func (o *Outbox) Discard(
	ctx context.Context, endpoint string, positions []int64, d eventlog.Discard,
) (int64, error) {
	n, err := o.home.log.Discard(ctx, endpoint, positions, d)
	o.removed.discarded.Add(n)
	return n, err
}

// ChangeParked begins to retry or discard many parked events. A process that runs an
// outbox on the database does the work.
func (o *Outbox) ChangeParked(ctx context.Context, c eventlog.ParkedChange) error {
	err := o.home.log.AddParkedChange(ctx, c)
	o.changes.Give()
	return err
}

// changeParked works on changes of parked events until the context ends.
func (o *Outbox) changeParked(ctx context.Context) {
	owner := uuid.NewString()
	for ctx.Err() == nil {
		c, found, err := o.home.log.TakeParkedChange(ctx, owner)
		if err == nil && found {
			err = o.runChange(ctx, owner, c)
		}
		pause := changesInterval
		if err != nil && ctx.Err() == nil {
			o.logger.Error("parked events can't be changed, trying again every second", "error", err)
			pause = time.Second
		} else if found {
			continue // there may be another
		}
		select {
		case <-ctx.Done():
		case <-o.changes.Given():
		case <-time.After(pause):
		}
	}
}

// runChange works on a change until it is done, canceled or taken over.
func (o *Outbox) runChange(ctx context.Context, owner string, c eventlog.ParkedChange) error {
	if _, err := c.Filter(); err != nil { // added by a later version; ignoring it would change more than was requested
		o.logger.Error("a change of parked events is canceled: its patterns can't be read", "change", c.ID, "error", err)
		_, err := o.home.log.CancelParkedChange(ctx, c.ID)
		return err
	}
	for goesOn := true; goesOn; {
		err := o.changePage(ctx, &c)
		if err != nil {
			return err
		}
		if goesOn, err = o.home.log.SaveParkedChange(ctx, owner, c); err != nil {
			return fmt.Errorf("save the progress: %w", err)
		}
		if err := o.home.log.Nudge(ctx); err != nil {
			return fmt.Errorf("wake the replicas: %w", err)
		}
	}
	return nil
}

// changePage changes the next parked events.
func (o *Outbox) changePage(ctx context.Context, c *eventlog.ParkedChange) error {
	f, err := c.Filter()
	if err != nil {
		return err
	}
	f.Limit = int(min(parkedPage, c.Total-c.Done))
	rows, err := o.home.log.Parked(ctx, f)
	if err != nil {
		return err
	}
	if len(rows) < f.Limit || f.Limit == 0 {
		c.State = eventlog.ReplayDone
	}
	events, positions := []tidings.Event{}, []int64{}
	for _, r := range rows {
		if r.Event.Sequence > c.To {
			c.State = eventlog.ReplayDone
			break
		}
		events, positions = append(events, r.Event), append(positions, r.Event.Sequence)
		c.Position = r.Event.Sequence
	}
	if c.Action == eventlog.RetryAction {
		c.Done += int64(len(events))
		return o.home.log.RetryParked(ctx, c.Endpoint, events, time.Now())
	}
	n, err := o.Discard(ctx, c.Endpoint, positions,
		eventlog.Discard{At: time.Now(), By: c.CreatedBy, Comment: c.Comment})
	c.Done += n
	return err
}

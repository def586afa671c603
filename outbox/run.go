package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// How long after an event was told its transaction is looked for first, and between
// looks when nothing happens.
const (
	firstLook = 2 * time.Millisecond
	idleLook  = 100 * time.Millisecond
)

// Run numbers what was told and delivers it, removes what is past its retention, and
// listens to other processes, until the context ends or [Outbox.Close] is called.
// Then it lets the deliveries under way finish. It returns nil if all went well; what
// fails meanwhile is logged and tried again. It may be called once.
//
// Before there are endpoints it waits for [Outbox.SetEndpoints].
func (o *Outbox) Run(ctx context.Context) error {
	ctx, ended, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("run outbox: %w", err)
	}
	defer close(ended)
	defer o.stop()
	select {
	case <-ctx.Done():
		return nil
	case <-o.ready:
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { o.look(background) })
	all.Go(func() { o.expire(background) })
	if o.home.listen != nil {
		all.Go(func() { o.home.listen(background) })
	}
	err = o.Relay().Run(ctx)
	stop()
	all.Wait()
	if err != nil {
		return fmt.Errorf("run outbox: %w", err)
	}
	return nil
}

func (o *Outbox) begin(ctx context.Context) (context.Context, chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return nil, nil, ErrClosed
	case o.ended != nil:
		return nil, nil, ErrRan
	}
	ctx, o.stop = context.WithCancel(ctx)
	o.ended = make(chan struct{})
	return ctx, o.ended, nil
}

// look has the relay look for new events: often, and at shorter intervals after this
// process told of one. Its transaction is committed a moment later, usually.
func (o *Outbox) look(ctx context.Context) {
	pause := idleLook
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.told.Given():
			if pause > firstLook {
				pause = firstLook
				timer.Reset(pause)
			}
			continue
		case <-timer.C:
		}
		o.home.log.Wake()
		pause = min(2*pause, idleLook)
		timer.Reset(pause)
	}
}

// expire removes what is past its retention, until the context ends.
func (o *Outbox) expire(ctx context.Context) {
	tick := time.NewTicker(min(max(o.options.Retention/20, time.Second), 10*time.Minute))
	defer tick.Stop()
	for {
		if err := o.expireOnce(ctx); err != nil && ctx.Err() == nil {
			o.logger.Warn("what is past its retention was not all removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (o *Outbox) expireOnce(ctx context.Context) error {
	log, keep := o.home.log, o.options.Retention
	gone, err := log.ExpireEvents(ctx, keep)
	for _, notice := range gone.Notices {
		o.logger.Warn("the event log was repaired", "what", notice)
	}
	for _, g := range gone.Gaps {
		o.logger.Error("events expired before the endpoint could get them", "endpoint", g.Endpoint, "from", g.From,
			"to", g.To, "count", g.To-g.From+1)
		if o.options.Relay.Observer != nil {
			o.options.Relay.Observer.Missed(g)
		}
	}
	if len(gone.Gaps) > 0 {
		err = errors.Join(err, log.Nudge(ctx)) // consumers go on behind the gap
	}
	if gone.At.IsZero() { // the clock may be wrong
		return err
	}
	before := gone.At.Add(-keep)
	return errors.Join(err, log.ExpireHistory(ctx, keep), log.ExpireReplays(ctx, before), log.ExpireGaps(ctx, before),
		o.expireEndpoints(ctx, log), o.expireDead(ctx, log, gone.At.Add(-o.options.DeadLetterRetention)))
}

func (o *Outbox) expireEndpoints(ctx context.Context, log eventlog.Expirer) error {
	gone, err := log.ExpireEndpoints(ctx, o.options.Retention)
	for _, g := range gone {
		o.logger.Warn("nothing is kept any more of an endpoint that was removed", "endpoint", g.Endpoint, "cursor",
			g.Cursor, "parked", g.Parked)
	}
	return err
}

func (o *Outbox) expireDead(ctx context.Context, log eventlog.Expirer, before time.Time) error {
	gone, err := log.ExpireDead(ctx, before)
	for endpoint, n := range gone {
		o.logger.Warn("dead letters are past their retention and were removed", "endpoint", endpoint, "count", n)
	}
	return err
}

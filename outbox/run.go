package outbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// firstLook is how long after an event was told its transaction is looked for first.
const firstLook = 2 * time.Millisecond

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
	idle := o.options.PollInterval
	pause := idle
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
		pause = min(2*pause, idle)
		timer.Reset(pause)
	}
}

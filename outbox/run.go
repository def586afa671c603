package outbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// firstLook is the delay before the first poll after an event was told.
const firstLook = 2 * time.Millisecond

// Run numbers and delivers events, removes data past its retention, and listens to
// other processes, until the context ends or [Outbox.Close] is called. It then
// waits for attempts in flight. Errors are logged and retried; it returns nil if it
// ended cleanly. Call it only once.
//
// Until endpoints are set, it waits for [Outbox.SetEndpoints].
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
	all.Go(func() { o.changeParked(background) })
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

// look makes the relay poll for new events: regularly, and at shorter intervals
// after this process told an event, whose transaction usually commits a moment
// later.
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

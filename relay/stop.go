package relay

import (
	"context"
	"time"
)

// finalTime bounds the last writes of a process that stops, all of them together.
const finalTime = 5 * time.Second

// StopBy sets when [Relay.Run] returns at the latest once its context has ended, instead
// of DrainTimeout and 5 seconds for the last writes. A third of what is left then, at
// most 5 seconds, is for the last writes.
func (r *Relay) StopBy(at time.Time) { r.stopBy.Store(&at) }

// endAfter sets the contexts of what goes on after the relay was told to stop, and has
// them end in time after ctx.
func (r *Relay) endAfter(ctx context.Context) (release func()) {
	attempts, abort := context.WithCancel(context.WithoutCancel(ctx))
	writes, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	r.attempts, r.writes = attempts, writes
	cancel := context.AfterFunc(ctx, func() {
		drain, final := r.options.DrainTimeout, finalTime
		if at := r.stopBy.Load(); at != nil {
			left := max(time.Until(*at), 0)
			final = min(finalTime, left/3)
			drain = left - final
		}
		time.AfterFunc(drain, abort)
		time.AfterFunc(drain+final, giveUp)
	})
	return func() {
		cancel()
		abort()
		giveUp()
	}
}

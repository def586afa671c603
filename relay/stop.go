package relay

import (
	"context"
	"time"
)

// finalTime bounds all final writes of a stopping process together.
const finalTime = 5 * time.Second

// StopBy sets the time by which [Relay.Run] returns after its context has ended.
// The default is DrainTimeout plus 5 seconds for the final writes. Of the time
// left, a third, but at most 5 seconds, is reserved for the final writes.
func (r *Relay) StopBy(at time.Time) { r.stopBy.Store(&at) }

// endAfter sets the contexts for attempts and writes, which continue after ctx
// ends, and makes them end in time.
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

package app

import (
	"context"
	"time"
)

const (
	watchInterval = 2 * time.Second
	// retryInterval is how often a configuration that was refused is tried again:
	// a file that it names may have come.
	retryInterval = 30 * time.Second
)

// watch reloads once the configuration changes, or a file that it names: by
// what they hold, so that it does not matter how they are replaced.
func (a *App) watch(ctx context.Context) {
	if a.options.Load == nil {
		return
	}
	tried := a.digest
	seen, failed, at := tried, false, time.Now()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := a.config.Load().Digest()
		settled := now == seen // what changes just now may be half of it
		seen = now
		if settled && (now != tried || failed && time.Since(at) >= retryInterval) {
			_, err := a.Reload(ctx) // it says itself what was wrong
			failed, at = err != nil, time.Now()
			tried = a.config.Load().Digest()
			seen = tried
		}
	}
}

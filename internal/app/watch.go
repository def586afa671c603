package app

import (
	"context"
	"time"
)

const (
	watchInterval = 2 * time.Second
	// retryInterval is how often a rejected configuration is tried again, since a
	// file that it refers to may have appeared.
	retryInterval = 30 * time.Second
)

// watch reloads when the configuration, or a file it refers to, changes. It compares
// contents, so it does not matter how files are replaced.
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
		settled := now == seen // files may still be being written
		seen = now
		if settled && (now != tried || failed && time.Since(at) >= retryInterval) {
			_, err := a.Reload(ctx) // Reload logs the error
			failed, at = err != nil, time.Now()
			tried = a.config.Load().Digest()
			seen = tried
		}
	}
}

package app

import (
	"context"
	"time"
)

const (
	watchInterval = 2 * time.Second
	// retryInterval is how often a rejected configuration or endpoint file is tried again,
	// since a file that it refers to may have appeared.
	retryInterval = 30 * time.Second
)

// try is an attempt to load the configuration.
type try struct {
	digest string // of the files
	failed bool   // all or some were refused
	at     time.Time
}

// watch reloads when the configuration, or a file it refers to, differs from what was tried
// last. It compares contents, so it does not matter how files are replaced.
func (a *App) watch(ctx context.Context) {
	if a.options.Load == nil {
		return
	}
	seen := a.tried.Load().digest
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
		last := a.tried.Load()
		if settled && (now != last.digest || last.failed && time.Since(last.at) >= retryInterval) {
			_, _ = a.Reload(ctx) // it logs errors
			seen = a.tried.Load().digest
		}
	}
}

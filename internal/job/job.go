// Package job is what the server does on its own: it asks agents whether they
// are there, lets what is idle expire, and sweeps up. It goes through resource,
// the same door as HTTP.
package job

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/internal/resource"
)

// Job is something to be done again and again.
type Job struct {
	Name  string
	Every time.Duration
	Run   func(context.Context) error
}

// Settings of the jobs.
type Settings struct {
	// CheckInterval is how often agents are asked for their card.
	CheckInterval time.Duration
	// ModelCheckInterval is how often model providers are asked for their models.
	ModelCheckInterval time.Duration
	// ExpireAfter is how long a context may be idle; 0 is for ever.
	ExpireAfter time.Duration
}

const (
	expiryInterval = 5 * time.Minute
	sweepInterval  = time.Hour
	modelsAtOnce   = 4
)

// All returns the server's jobs.
func All(r *resource.Resources, logger *slog.Logger, s Settings) []Job {
	jobs := []Job{
		{"check agents", s.CheckInterval, NewAgentChecks(r.Providers, s.CheckInterval, logger).Run},
		{
			"check model providers", s.ModelCheckInterval,
			func(ctx context.Context) error { return checkModelProviders(ctx, r.ModelProviders) },
		},
		{"sweep file contents", sweepInterval, func(ctx context.Context) error {
			n, err := r.Files.Sweep(ctx)
			if n > 0 {
				logger.InfoContext(ctx, "removed file contents that belong to no file", "count", n)
			}
			return err
		}},
	}
	if s.ExpireAfter > 0 {
		jobs = append(jobs, Job{"expire contexts", min(expiryInterval, s.ExpireAfter), func(ctx context.Context) error {
			n, err := r.Contexts.Expire(ctx, s.ExpireAfter)
			if n > 0 {
				logger.InfoContext(ctx, "idle contexts lost their files and vector stores", "contexts", n)
			}
			return err
		}})
	}
	return jobs
}

// checkModelProviders asks all model providers for their models, several at once.
// One that can't be checked, such as for want of a key, does not keep the others
// from it.
func checkModelProviders(ctx context.Context, providers *resource.ModelProviders) error {
	var group errgroup.Group
	group.SetLimit(modelsAtOnce)
	var mu sync.Mutex
	var failed []error
	err := providers.Each(ctx, func(m *resource.ModelProvider) error {
		group.Go(func() error {
			if err := providers.Check(ctx, m); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
			return nil
		})
		return ctx.Err()
	})
	return errors.Join(append(failed, err, group.Wait())...)
}

// Run does the jobs, each at once and then in its interval, until the context
// ends. A job that fails is logged and done again.
func Run(ctx context.Context, logger *slog.Logger, jobs []Job) {
	var wg sync.WaitGroup
	for _, j := range jobs {
		wg.Go(func() { j.repeat(ctx, logger) })
	}
	wg.Wait()
}

func (j Job) repeat(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(j.Every)
	defer ticker.Stop()
	for {
		if err := j.Run(ctx); err != nil && ctx.Err() == nil {
			logger.ErrorContext(ctx, "job failed", "job", j.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Package job runs the server's periodic tasks: it checks agents and model
// providers, expires idle contexts and removes orphaned file contents. Like the
// HTTP API, it changes resources through package resource.
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

// Job is a periodic task.
type Job struct {
	Name  string
	Every time.Duration
	Run   func(context.Context) error
}

// Settings configures the jobs.
type Settings struct {
	// CheckInterval is how often agents are checked.
	CheckInterval time.Duration
	// ModelCheckInterval is how often model providers are checked.
	ModelCheckInterval time.Duration
	// ExpireAfter is how long a context may be idle; 0 means forever.
	ExpireAfter time.Duration
}

const (
	expiryInterval = 5 * time.Minute
	sweepInterval  = time.Hour
	modelsAtOnce   = 4 // concurrent checks of model providers
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
				logger.InfoContext(ctx, "removed orphaned file contents", "count", n)
			}
			return err
		}},
	}
	if s.ExpireAfter > 0 {
		jobs = append(jobs, Job{"expire contexts", min(expiryInterval, s.ExpireAfter), func(ctx context.Context) error {
			n, err := r.Contexts.Expire(ctx, s.ExpireAfter)
			if n > 0 {
				logger.InfoContext(ctx, "removed files and vector stores of idle contexts", "contexts", n)
			}
			return err
		}})
	}
	return jobs
}

// checkModelProviders checks all model providers, several at a time. A failed
// check, for example because of a missing key, does not affect the others.
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

// Run runs the jobs, each immediately and then periodically, until ctx is done.
// It logs a job's error and runs the job again at the next interval.
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

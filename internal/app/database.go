package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/store"
)

// How long startup waits for the database before it logs that, and how often it then
// logs it again.
const (
	waitNotice  = 5 * time.Second
	waitNotices = 30 * time.Second
)

// openDatabase opens the database and brings it up to date.
func (a *App) openDatabase(ctx context.Context, cfg *config.Config) (err error) {
	defer a.logWaiting()()
	exposed := datadir.Exposed(cfg.DataDir) // before their modes are tightened
	if a.store, err = OpenStore(ctx, *cfg); err != nil {
		return err
	}
	a.onClose("database", a.store.Close)
	a.keepPrivate(cfg, exposed)
	return a.migrate(ctx, a.options.NoMigrate)
}

// logWaiting logs from time to time that startup is still waiting, until stop is called.
func (a *App) logWaiting() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(ended)
		for pause := waitNotice; ; pause = waitNotices {
			select {
			case <-done:
				return
			case <-time.After(pause):
				a.logger.Warn("still waiting for the database: it does not respond, its pooler has no free connection, "+
					"or this or another server is migrating its tables", "for", time.Since(begun).Round(time.Second))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// OpenStore opens the configured database and checks that it is usable.
func OpenStore(ctx context.Context, cfg config.Config) (*store.Store, error) {
	s, err := openStore(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Relay {
		s = s.LogOnly()
	}
	if err := s.Check(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openStore(cfg config.Config) (*store.Store, error) {
	if !cfg.DatabaseURL.Set() {
		return store.OpenSQLite(cfg.DataDir)
	}
	databaseURL, err := cfg.DatabaseURL.Read()
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	return store.OpenPostgres(databaseURL, store.PostgresOptions{
		Schema: cfg.DatabaseSchema, PollOnly: cfg.PollOnly, MaxConnections: cfg.Database.MaxConnections,
		PartitionWidth: partitionWidth(time.Duration(cfg.Webhook.Retention)),
	})
}

// partitionWidth returns the width of a partition, which is how much longer than their
// retention events may stay: a seventh of it, at most a day.
func partitionWidth(retention time.Duration) time.Duration {
	return min(max(retention/7, time.Second), 24*time.Hour)
}

// migrateTries is how often startup tries to migrate a database that is restarting or
// failing over.
const migrateTries = 3

func (a *App) migrate(ctx context.Context, noMigrate bool) error {
	if !noMigrate {
		err := a.store.Migrate(ctx)
		for tries := 1; tries < migrateTries && err != nil; tries++ {
			if _, unavailable := eventlog.Unavailable(err); !unavailable {
				break
			}
			err = a.store.Migrate(ctx)
		}
		if err != nil {
			return err
		}
		a.rewrite(ctx)
		return nil
	}
	pending, err := a.store.Pending(ctx)
	if err == nil && pending {
		command := "tidings migrate"
		if a.config.Load().Relay {
			command += " --relay"
		}
		err = fmt.Errorf("the database needs migrations; run '%s', or start without --no-migrate", command)
	}
	return err
}

// rewriteLimit is the size of the largest SQLite file that is rewritten at startup, which
// takes a second or two.
const rewriteLimit = 256 << 20

// rewrite rewrites a SQLite file of an earlier version, so that it can shrink.
func (a *App) rewrite(ctx context.Context) {
	ok, size, err := a.store.CanGiveBack(ctx)
	switch {
	case err == nil && ok:
		return
	case err == nil && size > rewriteLimit:
		a.logger.Warn("the database file was created by an earlier version and can't shrink; stop the server "+
			"and run 'tidings migrate' to rewrite it", "bytes", size)
		return
	case err == nil:
		a.logger.Info("rewriting the database file once, so that it can shrink", "bytes", size)
		err = a.store.Rewrite(ctx)
	}
	if err != nil { // not fatal
		a.logger.Warn("the database file can't shrink", "error", err)
	}
}

// shrink returns the job that shrinks a SQLite file after events have expired.
func (a *App) shrink() job.Job {
	retention := time.Duration(a.config.Load().Webhook.Retention)
	return job.Job{
		Name: "shrink the database file", Every: min(max(retention/20, time.Second), 10*time.Minute), Run: a.store.GiveBack,
	}
}

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

// How long a start waits for the database before it says so, and says so again.
const (
	waitNotice  = 5 * time.Second
	waitNotices = 30 * time.Second
)

// openDatabase opens the database and brings it up to date.
func (a *App) openDatabase(ctx context.Context, cfg *config.Config) (err error) {
	defer a.noteWaiting()()
	exposed := datadir.Exposed(cfg.DataDir) // before they are tightened
	if a.store, err = OpenStore(ctx, *cfg); err != nil {
		return err
	}
	a.onClose("database", a.store.Close)
	a.keepPrivate(cfg, exposed)
	return a.migrate(ctx, a.options.NoMigrate)
}

// noteWaiting logs that the start still waits, until it is told to stop.
func (a *App) noteWaiting() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(ended)
		for pause := waitNotice; ; pause = waitNotices {
			select {
			case <-done:
				return
			case <-time.After(pause):
				a.logger.Warn("still waiting for the database: it does not answer, a pooler before it has no free "+
					"connection, "+
					"or its tables are being migrated, by this server or another", "for",
					time.Since(begun).Round(time.Second))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// OpenStore opens the configured database and finds out whether it can be used.
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

// partitionWidth lets events stay a seventh longer than their retention, or a
// day.
func partitionWidth(retention time.Duration) time.Duration {
	return min(max(retention/7, time.Second), 24*time.Hour)
}

// migrateTries is how often a start connects to a database that restarts or fails over
// just then, before it gives up.
const migrateTries = 3

func (a *App) migrate(ctx context.Context, not bool) error {
	if !not {
		err := a.store.Migrate(ctx)
		for tries := 1; tries < migrateTries && err != nil; tries++ {
			if _, away := eventlog.Unavailable(err); !away {
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
		err = errors.New("the database needs migrations; run 'tidings migrate', or serve without --no-migrate")
	}
	return err
}

// rewriteLimit is the size of a SQLite file that a start rewrites: that takes a second
// or two.
const rewriteLimit = 256 << 20

// rewrite has a SQLite file of an earlier version give space back from now on.
func (a *App) rewrite(ctx context.Context) {
	ok, size, err := a.store.CanGiveBack(ctx)
	switch {
	case err == nil && ok:
		return
	case err == nil && size > rewriteLimit:
		a.logger.Warn("the database file was made by an earlier version and can't give space back; stop the server "+
			"and run 'tidings migrate', which rewrites it",
			"bytes", size)
		return
	case err == nil:
		a.logger.Info("rewriting the database file once, so that it can give space back", "bytes", size)
		err = a.store.Rewrite(ctx)
	}
	if err != nil { // it works all the same
		a.logger.Warn("the database file can't give space back", "error", err)
	}
}

// giveBack is the job that makes a SQLite file smaller after events have expired.
func (a *App) giveBack() job.Job {
	retention := time.Duration(a.config.Load().Webhook.Retention)
	return job.Job{
		Name: "give space back", Every: min(max(retention/20, time.Second), 10*time.Minute), Run: a.store.GiveBack,
	}
}

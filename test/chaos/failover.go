//go:build unix

package main

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
)

// failover is an asynchronous standby that stops replicating. What is written after
// that is lost when it takes over.
type failover struct {
	standby *testdb.Server
	behind  time.Time
}

// fallBehind starts a standby and disconnects it once it has caught up.
func (w *world) fallBehind() (*failover, error) {
	standby, err := w.postgres.NewStandby()
	if err != nil {
		return nil, err
	}
	err = standby.FollowAsync(w.postgres)
	f := &failover{standby, time.Now()} // writes during the catch-up may be lost as well
	if err == nil {
		err = standby.CatchUp(w.postgres)
	}
	if err == nil {
		err = standby.Stop()
	}
	if err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return f, nil
}

// takeOver kills the primary and promotes the standby.
func (w *world) takeOver(f *failover) error {
	old := w.postgres
	err := old.Kill()
	w.losses = append(w.losses, span{f.behind, time.Now()})
	if err = errors.Join(err, f.standby.Start(), f.standby.Promote()); err != nil {
		return err
	}
	w.postgres, w.databaseURL = f.standby, f.standby.URL("chaos")
	for _, s := range w.servers {
		s.proxy.redirect(f.standby.Address())
	}
	return old.Close()
}

// lossTime is how long a server may still send lost events that it has read: until its
// leases expire.
const lossTime = 12 * time.Second

// mayBeLost reports whether the database may have lost what existed at a time.
func (w *world) mayBeLost(at time.Time) bool {
	for _, s := range w.losses {
		if at.After(s.from) && at.Before(s.to.Add(lossTime)) {
			return true
		}
	}
	return false
}

// checkLosses checks that every endpoint has a gap for lost events.
func (w *world) checkLosses(ctx context.Context, gone int) (found problems) {
	if gone == 0 {
		return nil
	}
	db, schema, err := w.open()
	if err != nil {
		return problems{err.Error()}
	}
	defer db.Close()
	for _, r := range w.receivers {
		var gaps int
		query := "SELECT count(*) FROM " + schema + "tidings_gaps WHERE endpoint = $1 AND reason = 'lost'"
		err := db.QueryRowContext(ctx, query, r.name).Scan(&gaps)
		if err != nil || gaps == 0 {
			found.add("the database lost delivered events, but %s has no gap: %v", r.name, err)
		}
	}
	return found
}

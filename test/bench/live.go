package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/google/uuid"
)

const (
	liveRounds = 5
	liveTime   = 5 * time.Second
	liveRate   = 500 // writes per second
)

// live measures what a write costs more if three endpoints receive its event at once: the
// CPU time of this process, which delivers, and that of PostgreSQL. The receiver is
// another process, and one writer writes at a steady rate.
func live(ctx context.Context, d database) (err error) {
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	receiver, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	defer receiver.stop()
	server, err := d.server(ctx, h.DB)
	if err != nil {
		return err
	}
	owner := uuid.NewString()
	if _, err := h.DB.ExecContext(ctx, `INSERT INTO `+d.schema()+`users (id, version, created_at, updated_at, email, role)
		VALUES ($1, 1, $2, $2, 'bench', 'user')`, owner, time.Now().UTC()); err != nil {
		return err
	}
	// cost returns the CPU time of a write, of this process and of PostgreSQL.
	cost := func() (own, database float64, err error) {
		tick := time.NewTicker(time.Second / liveRate)
		defer tick.Stop()
		used := func() (own, database float64) {
			if server != 0 {
				database = cpuOf(server, true)
			}
			return cpuOf(os.Getpid(), false), database
		}
		ownBefore, databaseBefore := used()
		n := 0.0
		for begun := time.Now(); time.Since(begun) < liveTime; <-tick.C {
			if err := writeOnce(ctx, h, d.schema(), owner, true); err != nil {
				return 0, 0, err
			}
			n++
		}
		<-time.After(100 * time.Millisecond)
		own, database = used()
		return (own - ownBefore) / n * 1e6, (database - databaseBefore) / n * 1e6, nil
	}
	var own, database []float64
	for range liveRounds {
		o, db, err := cost()
		if err != nil {
			return err
		}
		stop, err := threeEndpoints(ctx, h.Log, receiver.url)
		if err != nil {
			return err
		}
		liveOwn, liveDB, err := cost()
		if err = errors.Join(err, stop()); err != nil {
			return err
		}
		own, database = append(own, liveOwn-o), append(database, liveDB-db)
	}
	units := []string{"µs/write"}
	d.results.add(d, "Live/own", units, own)
	d.results.add(d, "Live/database", units, database)
	d.report("live: with three endpoints, a write costs %.0f µs of CPU time more, and %.0f µs of PostgreSQL's",
		median(own), median(database))
	return nil
}

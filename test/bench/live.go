package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	liveRounds    = 5
	liveTime      = 5 * time.Second
	liveRate      = 500 // writes per second
	liveEndpoints = 3
)

// live measures what a write costs more if three endpoints receive its event at once: the
// CPU time of this process, which delivers, and that of PostgreSQL, until all has arrived.
// The receiver is another process. One writer writes at a steady rate, where each write
// and each answer wakes a goroutine, and 16 write as fast as they can. Beside it, a
// net/http client without a database makes three requests at once at the same steady
// rate.
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
	owner := uuid.NewString()
	if _, err := h.DB.ExecContext(ctx, `INSERT INTO `+d.schema()+`users (id, version, created_at, updated_at, email, role)
		VALUES ($1, 1, $2, $2, 'bench', 'user')`, owner, time.Now().UTC()); err != nil {
		return err
	}
	once := func() error { return writeOnce(ctx, h, d.schema(), owner, true) }
	steadily := func() (int, error) { return steady(once) }
	fast := func() (int, error) { return writeRound(once) }
	// cost returns the CPU time of one of the n things that run does and that the
	// endpoints receive, of this process and of PostgreSQL.
	cost := func(run func() (int, error), requests int) (c [2]float64, err error) {
		used := func() [2]float64 { return [2]float64{cpuOf(os.Getpid(), false), d.cpu()} }
		before := used()
		n, err := run()
		if err == nil {
			err = receiver.wait(ctx, n*requests)
		}
		after := used()
		for i := range c {
			c[i] = (after[i] - before[i]) / float64(n) * 1e6
		}
		return c, err
	}
	var bare []float64
	var own, database [2][]float64
	for round := range liveRounds {
		posts, err := cost(func() (int, error) { return postTogether(ctx, receiver.url) }, liveEndpoints)
		if err != nil {
			return err
		}
		bare = append(bare, posts[0])
		for i, run := range []func() (int, error){steadily, fast} {
			without, err := cost(run, 0)
			if err != nil {
				return err
			}
			stop, err := threeEndpoints(ctx, h.Log, fmt.Sprintf("live%d.%d", round, i), receiver.url)
			if err != nil {
				return err
			}
			with, err := cost(run, liveEndpoints)
			if err = errors.Join(err, stop()); err != nil {
				return err
			}
			own[i], database[i] = append(own[i], with[0]-without[0]), append(database[i], with[1]-without[1])
		}
	}
	units := []string{"own-µs/write", "database-µs/write"}
	d.results.add(d, "Live/three requests of net/http", []string{"µs"}, bare)
	d.report("live: three requests of a net/http client cost %.0f µs of CPU time at %d/s", median(bare), liveRate)
	for i, how := range []string{fmt.Sprintf("at %d/s", liveRate), fmt.Sprintf("with %d writers", writers)} {
		d.results.add(d, "Live/"+how, units, own[i], database[i])
		d.report("live: %s, three endpoints make a write cost %.0f µs of CPU time more, and %.0f µs of PostgreSQL's",
			how, median(own[i]), median(database[i]))
	}
	return nil
}

// steady calls do at liveRate for liveTime and returns how often.
func steady(do func() error) (n int, err error) {
	tick := time.NewTicker(time.Second / liveRate)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < liveTime; <-tick.C {
		if err := do(); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// postTogether posts an event three times at once, steadily.
func postTogether(ctx context.Context, url string) (int, error) {
	c := client()
	defer c.CloseIdleConnections()
	return steady(func() error {
		var wg sync.WaitGroup
		var errs [liveEndpoints]error
		for i := range errs {
			wg.Go(func() { errs[i] = postEvent(ctx, c, url) })
		}
		wg.Wait()
		return errors.Join(errs[:]...)
	})
}

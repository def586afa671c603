//go:build unix

// Command chaos runs real servers under load. It kills, suspends and disconnects
// them, restarts their database, fills their disk and makes their receivers
// misbehave. Then it ends all faults and compares the database with what arrived.
// "make chaos" runs it; docs/reliability.md has results.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// settings of a run.
type settings struct {
	time time.Duration
	keep bool
	seed uint64
}

func run(ctx context.Context) (err error) {
	var s settings
	flag.DurationVar(&s.time, "time", time.Minute, "duration of the faults on each database")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "determines which faults occur, but not when")
	flag.BoolVar(&s.keep, "keep", false, "keep the folder with logs and data")
	soaked := flag.Bool("soak", false, "inject no faults into servers; run a dozen failing receivers and print what grows")
	only := flag.String("database", "", "SQLite or PostgreSQL (default both)")
	flag.Parse()
	folder, err := os.MkdirTemp("", "tidings-chaos-")
	if err != nil {
		return err
	}
	if s.keep {
		fmt.Println("logs and data are in", folder)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	}
	binary := filepath.Join(folder, "tidings")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/tidings").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	do := runOn
	if *soaked {
		do = soak
	}
	for _, name := range []string{"SQLite", "PostgreSQL"} {
		if *only != "" && !strings.EqualFold(*only, name) {
			continue
		}
		if err := do(ctx, s, name, filepath.Join(folder, strings.ToLower(name)), binary); err != nil {
			return fmt.Errorf("%s, seed %d: %w", name, s.seed, err)
		}
	}
	return nil
}

// patience is the time limit for settling after the faults.
const patience = 3 * time.Minute

// connections are how many there may be to all receivers, by the seed: enough, or so few
// that endpoints wait for each other.
var connections = []int{512, 16}

func runOn(ctx context.Context, s settings, database, folder, binary string) (err error) {
	w, err := newWorld(ctx, database, folder, binary, checkedReceivers(),
		map[string]any{"max_connections": connections[s.seed%uint64(len(connections))]})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	faulty, stop := context.WithTimeout(ctx, s.time)
	defer stop()
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() { w.write(faulty, rand.New(rand.NewPCG(s.seed, uint64(i)))) })
	}
	w.driveFaults(faulty, rand.New(rand.NewPCG(s.seed, 1000)))
	group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := w.heal(); err != nil {
		return err
	}
	settling := time.Now()
	if err := w.settle(ctx); err != nil {
		return err
	}
	return w.check(ctx, s, time.Since(settling))
}

//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// drivenFault is a fault in the servers or what they depend on; undo ends it.
type drivenFault struct {
	name string
	do   func(s *server) error
	undo func(s *server) error
	most time.Duration // maximum duration
	// disturbs means that a server may lose what it has not saved: afterwards it may
	// repeat recent deliveries.
	disturbs bool
}

// Faults that leave requests in flight without an owner.
const (
	faultKill = "kill -9"
	faultStop = "SIGSTOP, SIGCONT"
	faultCut  = "replica disconnected from the database"

	faultReload = "reload: URL, partitions, patterns"
)

// narrow excludes updates.
var narrow = []string{"context.created", "context.deleted"}

func (w *world) drivenFaults(random *rand.Rand) []drivenFault {
	signal := func(sig syscall.Signal) func(*server) error {
		return func(s *server) error { return s.signal(sig) }
	}
	again := func(s *server) error { return s.start() }
	nothing := func(*server) error { return nil }
	faults := []drivenFault{
		{faultKill, signal(syscall.SIGKILL), again, 2 * time.Second, true},
		{"SIGTERM", signal(syscall.SIGTERM), again, time.Second, true},
		{faultStop, signal(syscall.SIGSTOP), signal(syscall.SIGCONT), 20 * time.Second, true},
		{
			faultReload, func(*server) error { return w.reload(random) }, nothing, time.Second, false,
		},
		{
			"receiver down",
			func(*server) error { return w.named("outages", func(r *receiver) { r.down.Store(true) }) },
			func(*server) error { return w.named("outages", func(r *receiver) { r.down.Store(false) }) },
			8 * time.Second, false,
		},
		{"receiver gone (410), then enabled", func(*server) error {
			return w.named("outages", func(r *receiver) { r.gone.Store(true) })
		}, func(*server) error {
			return errors.Join(w.named("outages", func(r *receiver) { r.gone.Store(false) }), w.enable("outages"))
		}, 2 * time.Second, false},
		{
			"receiver's clock jumps", func(*server) error {
				return w.named("flaky", func(r *receiver) { r.skew.Store(int64(time.Hour)) })
			}, func(*server) error { return w.named("flaky", func(r *receiver) { r.skew.Store(0) }) },
			2 * time.Second, false,
		},
		{
			"bad TLS", func(*server) error { return w.named("encrypted", (*receiver).closeTLS) },
			func(*server) error { return w.named("encrypted", (*receiver).openTLS) }, 4 * time.Second, false,
		},
	}
	if w.postgres != nil {
		var lagging *failover
		start := func(*server) error { return w.postgres.Start() }
		stop := func(*server) error { return w.postgres.Stop() }
		crash := func(*server) error { return w.postgres.Kill() }
		faults = append(faults,
			drivenFault{"PostgreSQL restarts (fast)", stop, start, 2 * time.Second, true},
			drivenFault{"PostgreSQL restarts (immediate)", crash, start, 2 * time.Second, true},
			drivenFault{
				faultCut, func(s *server) error { s.proxy.setCut(true); return nil },
				func(s *server) error { s.proxy.setCut(false); return nil }, 15 * time.Second, true,
			},
			drivenFault{
				"connections to the database go silent", func(s *server) error { s.proxy.silence(); return nil },
				nothing, 10 * time.Second, true,
			},
			drivenFault{"failover to a lagging standby", func(*server) (err error) {
				lagging, err = w.fallBehind()
				return err
			}, func(*server) error {
				if lagging == nil {
					return nil
				}
				return w.takeOver(lagging)
			}, 4 * time.Second, true},
		)
	}
	if w.postgres == nil {
		faults = append(faults, drivenFault{
			"second server in the data directory", w.intrude, nothing,
			time.Millisecond, false,
		})
	}
	if w.disk {
		full := filepath.Join(w.folder, "full")
		faults = append(faults, drivenFault{
			"disk is full", func(*server) error { return fillDisk(full) },
			func(*server) error { return os.Remove(full) }, 4 * time.Second, true,
		})
	}
	return faults
}

// intrude starts a second server in the data directory of a running one. It must refuse to
// start.
func (w *world) intrude(s *server) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.ready(ctx, s); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, s.binary, "serve", "--config", s.file, "--listen",
		"127.0.0.1:0").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Exited() {
		w.problems.add("a second server in the data directory ended with %v: %s", err, out)
	}
	return nil
}

// fillDisk writes a file until the disk is full.
func fillDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	_ = f.Close()
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}

func (w *world) named(name string, do func(*receiver)) error {
	for _, r := range w.receivers {
		if r.name == name {
			do(r)
			return nil
		}
	}
	return fmt.Errorf("no receiver %s", name)
}

// enable enables an endpoint through any server; all of them may be down at first.
func (w *world) enable(name string) error {
	for range 100 {
		for _, s := range w.servers {
			status, _, err := w.call(s, http.MethodPost, "/webhooks/endpoints/"+name+"/enable", nil)
			if err == nil && status == http.StatusOK {
				return nil
			}
		}
		pause(context.Background(), 200*time.Millisecond)
	}
	return fmt.Errorf("no server enabled endpoint %s", name)
}

// driveFaults injects and undoes one fault after another until ctx ends.
func (w *world) driveFaults(ctx context.Context, random *rand.Rand) {
	faults := w.drivenFaults(random)
	for ctx.Err() == nil {
		f := faults[random.IntN(len(faults))]
		s := w.servers[random.IntN(len(w.servers))]
		from := time.Now()
		if err := f.do(s); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", f.name, err)
		}
		pause(ctx, time.Duration(random.Int64N(int64(f.most))))
		if err := f.undo(s); err != nil {
			fmt.Fprintf(os.Stderr, "after %s: %v\n", f.name, err)
		}
		w.mu.Lock()
		w.faults[f.name]++
		if f.name == faultReload {
			w.reloads = append(w.reloads, span{from, time.Now()})
		}
		if f.disturbs {
			w.trouble = append(w.trouble, span{from, time.Now()})
		}
		w.mu.Unlock()
		pause(ctx, time.Duration(300+random.IntN(1500))*time.Millisecond)
		for _, s := range w.servers { // one may have exited while its database was down
			if s.ended() {
				w.mu.Lock()
				w.trouble = append(w.trouble, span{from, time.Now()})
				w.mu.Unlock()
				_ = s.signal(syscall.SIGKILL)
				if err := s.start(); err != nil {
					fmt.Fprintf(os.Stderr, "restart %s: %v\n", s.name, err)
				}
			}
		}
	}
}

// heal ends all faults.
func (w *world) heal() error {
	for _, r := range w.receivers {
		r.healthy.Store(true)
		r.skew.Store(0)
	}
	for _, s := range w.servers {
		if s.ended() {
			if err := s.start(); err != nil {
				return err
			}
		}
	}
	return w.enable("outages")
}

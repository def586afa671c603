// Command bench measures the figures in docs/performance.md, each as a ratio
// within one run, on both databases. "make bench" runs all of them but the size of the
// log, which takes 20 GB of disk: "make bench-growth".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// database is SQLite or PostgreSQL with our tables.
type database struct {
	name string
	// url is PostgreSQL's; it is empty for SQLite in folder.
	url, folder string
	postgres    int // id of PostgreSQL's process; 0 for SQLite
	results     *results
}

// cpu returns the CPU time of PostgreSQL in seconds; 0 for SQLite.
func (d database) cpu() float64 {
	if d.postgres == 0 {
		return 0
	}
	return cpuOf(d.postgres, true)
}

// schema is the prefix of table names.
func (d database) schema() string {
	if d.url != "" {
		return "tidings."
	}
	return ""
}

func (d database) open() (*store.Store, error) {
	if d.url != "" {
		return store.OpenPostgres(d.url, store.PostgresOptions{})
	}
	return store.OpenSQLite(d.folder)
}

// measurement is one row of the report, for each database.
type measurement struct {
	name string
	run  func(ctx context.Context, d database) error
}

func run(ctx context.Context) (err error) {
	var only string
	events := flag.Int("events", 100_000, "events to drain")
	backlog := flag.Int("backlog", 1_000_000, "events in the backlog of the memory measurement")
	draining := flag.Duration("draining", 40*time.Second, "at most so long is memory measured")
	endpoints := flag.Int("endpoints", 0, "endpoints of the memory measurement (default 1, 100 and 1,000)")
	long := flag.Duration("outage", 10*time.Minute, "duration of the outage")
	on := flag.String("database", "", "SQLite or PostgreSQL (default both)")
	grown := flag.Int64("size", 0, "events in the log of size (default 50,000,000 on PostgreSQL, 10,000,000 on SQLite)")
	flag.StringVar(&only, "only", "",
		"run only one of writes, live, send, drain, latency, rest, memory, fanout, neighbor, outage, history, replicas, "+
			"growth, size")
	to := flag.String("results", "", "write figures for benchstat and charts to `FOLDER`")
	profile := flag.String("cpuprofile", "", "write a CPU profile to `FILE`")
	receiver := flag.Bool("receive", false, "run as the receiver of another bench")
	flag.Parse()
	if *receiver {
		return receive(ctx)
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	measurements := []measurement{
		{"writes", writes},
		{"live", live},
		{"send", func(ctx context.Context, d database) error { return send(ctx, d, *events) }},
		{"drain", func(ctx context.Context, d database) error { return drain(ctx, d, *events) }},
		{"latency", latency},
		{"rest", rest},
		{"memory", func(ctx context.Context, d database) error { return memory(ctx, d, *backlog, *draining, *endpoints) }},
		{"fanout", func(ctx context.Context, d database) error { return fanout(ctx, d, *events) }},
		{"neighbor", func(ctx context.Context, d database) error { return neighbor(ctx, d, *events) }},
		{"outage", func(ctx context.Context, d database) error { return outage(ctx, d, *events, *long) }},
		{"history", func(ctx context.Context, d database) error { return history(ctx, d, *events) }},
		{"replicas", func(ctx context.Context, d database) error { return replicas(ctx, d, *events/replicaEndpoints) }},
		{"growth", growth},
		{"size", func(ctx context.Context, d database) error { return size(ctx, d, *grown) }},
	}
	server, err := testdb.StartPostgres()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	folder, err := os.MkdirTemp("", "tidings-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	fmt.Printf("%s, %d CPUs\n", runtime.Version(), runtime.NumCPU())
	all := &results{files: make(map[string]string)}
	if *to != "" {
		defer func() { err = errors.Join(err, all.write(*to)) }()
	}
	for _, m := range measurements {
		if m.name != only && (only != "" || m.name == "size") {
			continue
		}
		for _, name := range []string{"SQLite", "PostgreSQL"} {
			if *on != "" && !strings.EqualFold(*on, name) {
				continue
			}
			d := database{name: name, folder: filepath.Join(folder, m.name+name), results: all}
			if name == "PostgreSQL" {
				d.postgres = server.PID()
				if d.url, err = server.Create(strings.ToLower("bench_" + m.name)); err != nil {
					return err
				}
			}
			if err := prepare(ctx, d); err != nil {
				return err
			}
			if err := m.run(ctx, d); err != nil {
				return fmt.Errorf("%s on %s: %w", m.name, d.name, err)
			}
		}
	}
	return nil
}

func prepare(ctx context.Context, d database) error {
	s, err := d.open()
	if err != nil {
		return err
	}
	return errors.Join(s.Migrate(ctx), s.Close())
}

// report prints one figure.
func (d database) report(format string, args ...any) {
	fmt.Printf("%-12s%s\n", d.name, fmt.Sprintf(format, args...))
}

// median sorts values and returns the median.
func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

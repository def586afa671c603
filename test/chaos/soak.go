//go:build unix

package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// failingReceivers are receivers with a dozen different faults, and two without.
func failingReceivers() []persona {
	always := func(name string, faults ...fault) persona { return persona{name: name, faults: faults, oneIn: 1} }
	personas := []persona{
		{name: "steady"},
		{name: reloaded},
		{name: "flaky", faults: allFaults(), oneIn: 4},
		{name: "comes-and-goes"},
		{name: "up-every-other-half-minute"},
		{name: "dislikes-one-event-in-fourteen", faults: []fault{status(500)}, oneIn: 14},
		{name: "merges-down", faults: []fault{status(500)}, oneIn: 1, endpoint: map[string]any{"coalesce": "latest"}},
		{name: "partitioned-down", faults: []fault{status(502)}, oneIn: 1, endpoint: map[string]any{"partitions": 4}},
		{name: "no-TLS", tls: true},
		always("unauthorized", status(401)),
		always("not-found", status(404)),
		always("throttles", status(429)),
		always("throttles-for-a-second", status(503, "Retry-After", "1")),
		always("any-status", func() (all []fault) {
			for code := 400; code < 600; code++ {
				if code != http.StatusGone { // it disables the endpoint
					all = append(all, status(code))
				}
			}
			return all
		}()...),
	}
	for _, f := range allFaults() {
		if !strings.HasPrefix(f.name, "returns") {
			personas = append(personas, always(strings.ReplaceAll(f.name, " ", "-"), f))
		}
	}
	return personas
}

// soakSettings make data expire within the run.
var soakSettings = map[string]any{"retention": "5m", "history_retention": "5m", "dead_letter_retention": "5m"}

// soak runs servers under load with failing receivers, reloads, replays and readers of
// the feed, and prints what grows.
func soak(ctx context.Context, s settings, database, folder, binary string) (err error) {
	w, err := newWorld(ctx, database, folder, binary, failingReceivers(), soakSettings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.named("no-TLS", (*receiver).closeTLS); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, s.time)
	defer stop()
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() { w.write(ctx, rand.New(rand.NewPCG(s.seed, uint64(i)))) })
	}
	for _, do := range []struct {
		every time.Duration
		what  func(turn int) error
	}{
		{20 * time.Second, func(turn int) error { return w.reload(rand.New(rand.NewPCG(s.seed, uint64(turn)))) }},
		{45 * time.Second, func(turn int) error {
			return errors.Join(w.named("comes-and-goes", func(r *receiver) { r.removed.Store(turn%2 == 0) }),
				w.reloadAll())
		}},
		{30 * time.Second, func(turn int) error {
			return w.named("up-every-other-half-minute", func(r *receiver) { r.down.Store(turn%2 == 0) })
		}},
		{15 * time.Second, w.replay},
		{time.Second, func(turn int) error { return w.readFeed(ctx, turn) }},
	} {
		group.Go(func() {
			for turn := 0; ctx.Err() == nil; turn++ {
				if err := do.what(turn); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, err)
				}
				pause(ctx, do.every)
			}
		})
	}
	samples, err := w.measure(ctx, s.time/60)
	stop()
	group.Wait()
	if err != nil {
		return err
	}
	return samples.print(database)
}

// replay replays the last minute's events to an endpoint.
func (w *world) replay(turn int) error {
	r := w.receivers[turn%len(w.receivers)]
	if r.removed.Load() {
		return nil
	}
	code, answer, err := w.call(w.servers[turn%len(w.servers)], http.MethodPost, "/webhooks/replays", map[string]any{
		"endpoint": r.name, "since": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339),
	})
	if err == nil && code >= http.StatusInternalServerError {
		err = fmt.Errorf("replay for %s: %d %v", r.name, code, answer)
	}
	return err
}

// readFeed reads a page of the feed, or its stream for a second.
func (w *world) readFeed(ctx context.Context, turn int) error {
	s := w.servers[turn%len(w.servers)]
	if turn%2 == 0 {
		_, _, err := w.call(s, http.MethodGet, "/events?limit=1000&types=context.*", nil)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/api/v1/events", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "text/event-stream")
	response, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
	}
	return nil
}

// measure samples what may grow, at intervals, until ctx ends.
func (w *world) measure(ctx context.Context, every time.Duration) (samples series, err error) {
	db, schema, err := w.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for began := time.Now(); ctx.Err() == nil; pause(ctx, every) {
		sample := map[string]float64{"seconds": time.Since(began).Round(time.Second).Seconds()}
		if err := errors.Join(w.measureServers(sample), w.measureTables(db, schema, sample)); err != nil {
			fmt.Fprintf(os.Stderr, "after %v s: %v\n", sample["seconds"], err)
			continue
		}
		samples = append(samples, sample)
	}
	if len(samples) == 0 {
		return nil, errors.New("nothing could be measured")
	}
	return samples, nil
}

// watched are process metrics that must not grow.
var watched = map[string]string{
	"process_resident_memory_bytes": "memory, MiB",
	"go_goroutines":                 "goroutines",
	"process_open_fds":              "descriptors",
}

// measureServers records the largest value of any server.
func (w *world) measureServers(sample map[string]float64) error {
	for _, s := range w.servers {
		response, err := w.client.Get("http://" + s.address + "/metrics")
		if err != nil {
			return err
		}
		n := 0.0
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "#") {
				continue
			}
			n++
			metric, text, _ := strings.Cut(lines.Text(), " ")
			if name, ok := watched[metric]; ok {
				value, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return fmt.Errorf("%s: %w", metric, err)
				}
				if strings.HasSuffix(metric, "_bytes") {
					value /= 1 << 20
				}
				sample[name] = max(sample[name], value)
			}
		}
		sample["metric series"] = max(sample["metric series"], n)
		if err := response.Body.Close(); err != nil {
			return err
		}
	}
	return nil
}

// measureTables records the rows of every table and the size of the database on disk.
func (w *world) measureTables(db *sql.DB, schema string, sample map[string]float64) error {
	list := "SELECT name FROM sqlite_master WHERE type = 'table'"
	if w.postgres != nil {
		list = `SELECT relname FROM pg_class
			WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'tidings'::regnamespace`
		var bytes float64
		if err := db.QueryRow("SELECT pg_database_size(current_database())").Scan(&bytes); err != nil {
			return err
		}
		sample["database, MiB"] = bytes / (1 << 20)
	} else {
		for _, file := range []string{"tidings.db", "tidings.db-wal"} {
			if info, err := os.Stat(filepath.Join(w.folder, "data", file)); err == nil {
				sample[file+", MiB"] = float64(info.Size()) / (1 << 20)
			}
		}
	}
	var tables []string
	rows, err := db.Query(list)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, table := range tables {
		var n float64
		if err := db.QueryRow(fmt.Sprintf("SELECT count(*) FROM %s%q", schema, table)).Scan(&n); err != nil {
			return fmt.Errorf("count %s: %w", table, err)
		}
		sample["rows of "+table] = n
	}
	return nil
}

// series are samples in chronological order.
type series []map[string]float64

// print writes the samples to a CSV file. To standard output it prints each figure's
// first and last value, its slope over the second half of the run, and a chart.
func (s series) print(database string) (err error) {
	path := "soak-" + strings.ToLower(database) + ".csv"
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	names := make(map[string]bool)
	for _, sample := range s {
		for name := range sample {
			names[name] = true
		}
	}
	delete(names, "seconds")
	columns := slices.Concat([]string{"seconds"}, slices.Sorted(maps.Keys(names)))
	out := csv.NewWriter(f)
	_ = out.Write(columns)
	for _, sample := range s {
		var line []string
		for _, name := range columns {
			line = append(line, strconv.FormatFloat(sample[name], 'f', -1, 64))
		}
		_ = out.Write(line)
	}
	out.Flush()
	fmt.Printf("\n%s, %.0f s, samples in %s\n", database, s[len(s)-1]["seconds"], path)
	fmt.Printf("%-34s %10s %10s %14s\n", "", "first", "last", "slope, 1/h")
	for _, name := range columns[1:] {
		first, last := s[0][name], s[len(s)-1][name]
		if !s.changes(name) {
			continue
		}
		fmt.Printf("%-34s %10.0f %10.0f %14.0f  %s\n", name, first, last, s[len(s)/2:].slope(name), s.chart(name))
	}
	return out.Error()
}

// changes reports whether a figure changed.
func (s series) changes(name string) bool {
	return slices.ContainsFunc(s, func(sample map[string]float64) bool { return sample[name] != s[0][name] })
}

// slope returns the least-squares slope per hour.
func (s series) slope(name string) float64 {
	var n, sumX, sumY, sumXX, sumXY float64
	for _, sample := range s {
		x, y := sample["seconds"]/3600, sample[name]
		n, sumX, sumY, sumXX, sumXY = n+1, sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	if d := n*sumXX - sumX*sumX; d > 0 {
		return (n*sumXY - sumX*sumY) / d
	}
	return 0
}

// chart draws the samples, scaled from zero to the maximum.
func (s series) chart(name string) string {
	top := 0.0
	for _, sample := range s {
		top = max(top, sample[name])
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, sample := range s {
		at := 0
		if top > 0 {
			at = int(sample[name] / top * float64(len(bars)-1))
		}
		b.WriteRune(bars[at])
	}
	return b.String()
}

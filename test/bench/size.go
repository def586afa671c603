package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// sizeCalls is how often each query runs, the cold one included.
const sizeCalls = 10

// timing is how long one query takes.
type timing struct {
	name               string
	cold, middle, most time.Duration
	planning           time.Duration // PostgreSQL's share of each warm call
	failed             bool
}

// size measures queries, expiry and the start of the server on a log of 1,000,000 events
// within a week, the default retention, and on a big one that spans 90 days.
func size(ctx context.Context, d database, events int64) error {
	if events == 0 {
		events = map[bool]int64{true: 50_000_000, false: 10_000_000}[d.url != ""]
	}
	var all [2][]timing
	logs := []grown{{min(1_000_000, events), 7}, {events, 90}}
	for i, g := range logs {
		timings, err := sizeOf(ctx, d, g)
		if err != nil {
			return fmt.Errorf("%d events: %w", g.events, err)
		}
		all[i] = timings
		for _, t := range timings {
			d.report("%d events: %s: cold %v, median %v, most %v", g.events, t.name, t.cold, t.middle, t.most)
		}
	}
	var table strings.Builder
	figures := "cold, median, most"
	if d.url != "" {
		figures += ", planning"
	}
	fmt.Fprintf(&table, "%s: %s of %d calls, in ms | %d events, %d days | %d events, %d days\n--- | --- | ---\n",
		d.name, figures, sizeCalls, logs[0].events, logs[0].days, logs[1].events, logs[1].days)
	ms := func(t time.Duration) string { return fmt.Sprintf("%.1f", t.Seconds()*1e3) }
	for i, small := range all[0] {
		fmt.Fprint(&table, small.name)
		for _, t := range []timing{small, all[1][i]} {
			if t.failed {
				table.WriteString(" | failed")
				continue
			}
			fmt.Fprint(&table, " | ", ms(t.cold))
			if t.middle > 0 {
				fmt.Fprint(&table, ", ", ms(t.middle), ", ", ms(t.most))
				if d.url != "" {
					fmt.Fprint(&table, ", ", ms(t.planning))
				}
			}
		}
		table.WriteString("\n")
	}
	fmt.Println(table.String())
	d.results.files["size-"+strings.ToLower(d.name)+".md"] = table.String()
	return nil
}

// disk is a database that can be read anew from the disk.
type disk struct {
	database
	server *testdb.Server // PostgreSQL's own
}

// sizeOf fills a log and measures it.
func sizeOf(ctx context.Context, d database, g grown) (timings []timing, err error) {
	on := disk{database: d}
	on.folder = filepath.Join(d.folder, fmt.Sprint(g.events))
	if d.url != "" {
		// Loading a table in the transaction that creates it then needs no log.
		if on.server, err = testdb.StartPostgres("-c", "wal_level=minimal", "-c", "max_wal_senders=0",
			"-c", "shared_buffers=512MB", "-c", "shared_preload_libraries=pg_stat_statements",
			"-c", "pg_stat_statements.track_planning=on"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, on.server.Close()) }()
		if on.url, err = on.server.Create("bench"); err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(on.folder)) }()
	begun := time.Now()
	if err := on.fill(ctx, g); err != nil {
		return nil, err
	}
	on.report("%d events written in %.0f s", g.events, time.Since(begun).Seconds())
	if timings, err = on.measureLog(ctx, g, on.reads, sizeCalls-1); err != nil {
		return nil, err
	}
	served, err := on.measureServer(ctx, g)
	if err != nil {
		return nil, err
	}
	expired, err := on.measureLog(ctx, g, on.expiry, 0)
	return slices.Concat(timings, served, expired), err
}

// fill writes the log without waiting for the disk.
func (d *disk) fill(ctx context.Context, g grown) (err error) {
	if err := prepare(ctx, d.database); err != nil {
		return err
	}
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	hasty := []string{"PRAGMA synchronous = OFF", "PRAGMA cache_size = -200000"}
	if d.url != "" {
		hasty = []string{"CREATE EXTENSION pg_stat_statements", "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"}
	}
	for _, statement := range hasty {
		if _, err := h.DB.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	db := h.DB
	if d.url != "" { // without our limits on how long a statement takes
		if db, err = sql.Open("pgx", d.url); err != nil {
			return err
		}
		defer db.Close()
	}
	if err := fillLog(ctx, d.database, db, g); err != nil || d.url == "" {
		return err
	}
	_, err = h.DB.ExecContext(ctx, "ALTER SYSTEM RESET fsync")
	return err
}

// evict makes sure that the next query reads from the disk: it stops PostgreSQL, drops the
// files from the cache of the operating system, and starts it again.
func (d *disk) evict(ctx context.Context) (err error) {
	folder := d.folder
	if d.server != nil {
		db, err := sql.Open("pgx", d.url)
		if err != nil {
			return err
		}
		defer db.Close()
		if err := db.QueryRowContext(ctx, "SHOW data_directory").Scan(&folder); err != nil {
			return err
		}
		if err := errors.Join(db.Close(), d.server.Stop()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.server.Start()) }()
	}
	return filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			return err
		}
		_ = exec.CommandContext(ctx, "sync", path).Run() // what is not written stays in the cache
		if out, err := exec.CommandContext(ctx, "dd", "if="+path, "iflag=nocache", "count=0").CombinedOutput(); err != nil {
			return fmt.Errorf("drop %s from the cache: %w: %s", path, err, out)
		}
		return nil
	})
}

// query is something to measure.
type query struct {
	name string
	do   func(ctx context.Context) error
}

// measureLog measures methods of the log, without a server: only one process may deliver
// from SQLite.
func (d *disk) measureLog(
	ctx context.Context, g grown, queries func(eventlog.Home, grown) []query, warm int,
) (timings []timing, err error) {
	if err := d.evict(ctx); err != nil {
		return nil, err
	}
	h, err := d.home()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if _, err := h.Advance(ctx); err != nil { // begins an epoch
		return nil, err
	}
	return d.timesOf(ctx, queries(h.Log, g), warm)
}

// measureServer measures how long the server takes to start, and to respond.
func (d *disk) measureServer(ctx context.Context, g grown) (timings []timing, err error) {
	if err := d.evict(ctx); err != nil {
		return nil, err
	}
	s, err := d.serve(ctx, g)
	if err != nil {
		return nil, err
	}
	begun := timing{name: "start of the server", cold: s.ready}
	timings, err = d.timesOf(ctx, requests(s.url, g), sizeCalls-1)
	if err = errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	var warm []time.Duration
	for range 3 {
		if s, err = d.serve(ctx, g); err == nil {
			err = s.stop()
		}
		if err != nil {
			return nil, err
		}
		warm = append(warm, s.ready)
	}
	begun.warm(warm, 0)
	return append([]timing{begun}, timings...), nil
}

// timesOf calls each query once, and then each often. One that fails is left out, so that
// the others are known.
func (d *disk) timesOf(ctx context.Context, queries []query, warm int) (timings []timing, err error) {
	for _, q := range queries {
		begun := time.Now()
		err := q.do(ctx)
		if err != nil {
			d.report("%s: %v", q.name, err)
		}
		timings = append(timings, timing{name: q.name, cold: time.Since(begun), failed: err != nil})
	}
	for i, q := range queries {
		before, err := d.planned(ctx)
		if err != nil {
			return nil, err
		}
		var all []time.Duration
		for range warm {
			if begun := time.Now(); !timings[i].failed {
				timings[i].failed = q.do(ctx) != nil
				all = append(all, time.Since(begun))
			}
		}
		after, err := d.planned(ctx)
		if err != nil {
			return nil, err
		}
		timings[i].warm(all, after-before)
	}
	return timings, ctx.Err()
}

// planned returns how long PostgreSQL has planned since it started.
func (d *disk) planned(ctx context.Context) (took time.Duration, err error) {
	if d.url == "" {
		return 0, nil
	}
	db, err := sql.Open("pgx", d.url)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var ms float64
	err = db.QueryRowContext(ctx, "SELECT sum(total_plan_time) FROM pg_stat_statements").Scan(&ms)
	return time.Duration(ms * float64(time.Millisecond)), err
}

// warm sets what repeated calls took, if there are any, and the planning of all of them.
func (t *timing) warm(took []time.Duration, planning time.Duration) {
	if n := len(took); n > 0 {
		slices.Sort(took)
		t.middle, t.most, t.planning = took[n/2], took[n-1], planning/time.Duration(n)
	}
}

// reads are the queries of the relay.
func (d *disk) reads(log eventlog.Home, g grown) []query {
	read := func(after int64, limit int) func(context.Context) error {
		return func(ctx context.Context) error {
			events, err := log.Read(ctx, after, limit)
			if err == nil && len(events) != int(min(int64(limit), g.events-after)) {
				return fmt.Errorf("%d events", len(events))
			}
			return err
		}
	}
	ago := time.Duration(g.days) * 12 * time.Hour
	return []query{
		{"look for new events", func(ctx context.Context) error { _, err := log.Advance(ctx); return err }},
		{"read at the head", read(g.events, 500)},
		{"read the last 500", read(g.events-500, 500)},
		{"read 500 far behind", read(g.events/10, 500)},
		{"the oldest position", func(ctx context.Context) error { _, err := log.Oldest(ctx); return err }},
		{"the position of a time", func(ctx context.Context) error {
			_, err := log.SequenceAt(ctx, time.Now().Add(-ago))
			return err
		}},
		{"the events after 20 positions", func(ctx context.Context) error {
			_, err := log.Following(ctx, positions(g, 20))
			return err
		}},
	}
}

// positions returns positions that are spread over the log.
func positions(g grown, n int64) (all []int64) {
	for i := range n {
		all = append(all, i*g.events/n)
	}
	return all
}

// requests are the queries of the feed, operators and the console, as requests.
func requests(url string, g grown) (queries []query) {
	get := func(name, path string) {
		queries = append(queries, query{name, func(ctx context.Context) error {
			return request(ctx, http.MethodGet, url+path, "")
		}})
	}
	const api = "/api/v1/webhooks"
	middle := g.events/2/blockEvents*blockEvents + 12 // has an attempt in the history
	old := middle / 10 / blockEvents * blockEvents
	since := time.Now().Add(-time.Duration(g.days) * 12 * time.Hour).UTC().Format(time.RFC3339)
	id := func(n int64) string { return eventID(n) }
	get("feed, from the oldest", "/api/v1/events?limit=100")
	get("feed, at the head", fmt.Sprint("/api/v1/events?after=", g.events))
	get("feed, a rare type", "/api/v1/events?types=connector.*")
	get("feed, a rare type from the middle", fmt.Sprint("/api/v1/events?types=connector.*&after=", middle))
	get("feed, nothing matches", "/api/v1/events?types=user_feedback.*")
	get("events", api+"/events")
	get("events, far back", fmt.Sprint(api, "/events?before=", old))
	get("events of a rare type", api+"/events?types=connector.*")
	get("events, nothing matches", api+"/events?types=user_feedback.*")
	get("events of a resource, new", api+"/events?resource=provider/"+resourceID(g.events-8))
	get("events of a resource, old", api+"/events?resource=provider/"+resourceID(middle))
	get("events since a time", api+"/events?since="+since)
	get("events until a time", api+"/events?until="+since)
	get("event by id", api+"/events/"+id(middle))
	get("event by position, old", fmt.Sprint(api, "/events/", old+12))
	get("event by position, the newest", fmt.Sprint(api, "/events/", g.events))
	queries = append(queries, query{"event with an unknown id", func(ctx context.Context) error {
		err := request(ctx, http.MethodGet, url+api+"/events/01999999-0000-7000-8000-000000000000", "")
		if missing, ok := errors.AsType[statusError](err); ok && missing.status == http.StatusNotFound {
			return nil
		}
		return fmt.Errorf("expected 404: %w", err)
	}})
	get("attempts", api+"/attempts")
	get("attempts of an event", api+"/attempts?event="+id(middle))
	get("attempts of a resource", api+"/attempts?resource=provider/"+resourceID(g.events-380))
	get("attempts of a resource, nothing matches", api+"/attempts?resource=provider/"+resourceID(1e12-8))
	get("attempts since a time", api+"/attempts?since="+since)
	get("attempts until a time", api+"/attempts?until="+since)
	get("attempts, only failures", api+"/attempts?outcome=failures")
	get("failures of an endpoint without any", api+"/attempts?outcome=failures&endpoint=steady")
	get("attempts of an endpoint without any", api+"/attempts?endpoint=customer-4")
	get("parked events", api+"/parked")
	get("parked events in groups", api+"/parked/groups")
	get("parked event by id", api+"/parked?event="+id(parkedEvery*2))
	get("replays", api+"/replays")
	for _, plan := range []struct{ name, body string }{
		{"plan of a replay", `{"endpoint":"current","since":"` + since + `"}`},
		{"plan of what was missed", `{"endpoint":"current","missed":true,"since":"` + since + `"}`},
		{"plan of one event", `{"endpoint":"current","event":"` + id(middle) + `"}`},
		{"plan of dead letters", `{"endpoint":"current","dead":true}`},
	} {
		queries = append(queries, query{plan.name, func(ctx context.Context) error {
			return request(ctx, http.MethodPost, url+api+"/replays/plan", plan.body)
		}})
	}
	get("endpoints", api+"/endpoints")
	get("problems", api+"/problems")
	get("status", api+"/status")
	get("states of an endpoint, 7 days", api+"/endpoints/current/states?range=7d")
	get("series, 7 days", api+"/series?range=7d")
	get("metrics", "/metrics")
	for _, page := range []string{
		"", "endpoints/current", "events", "attempts", "parked", "replays", "status", "events/" + id(middle),
	} {
		get("console: /"+strings.TrimSuffix(page, id(middle)), "/console/"+page)
	}
	return queries
}

// statusError is an unexpected response.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return fmt.Sprintf("%d: %.300s", e.status, e.text) }

func request(ctx context.Context, method, url, body string) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		return statusError{response.StatusCode, string(text)}
	}
	return err
}

// expiry removes a day.
func (d *disk) expiry(log eventlog.Home, g grown) []query {
	keep := time.Duration(g.days)*24*time.Hour - 25*time.Hour // a partition goes as a whole
	before := time.Now().Add(-keep)
	return []query{
		{"expiry of a day of events", func(ctx context.Context) error { _, err := log.ExpireEvents(ctx, keep); return err }},
		{"expiry of a day of history", func(ctx context.Context) error { return log.ExpireHistory(ctx, keep) }},
		{"expiry of states and samples", func(ctx context.Context) error { return log.ExpireJournal(ctx, before) }},
		{"expiry of dead letters, none due", func(ctx context.Context) error {
			_, err := log.ExpireDead(ctx, before)
			return err
		}},
		{"read the oldest 500 afterwards", func(ctx context.Context) error { _, err := log.Read(ctx, 0, 500); return err }},
	}
}

// serve starts the server, with endpoints that nobody listens at.
func (d *disk) serve(ctx context.Context, g grown) (*server, error) {
	endpoints := make([]any, endpointsOf)
	for i := range endpoints {
		endpoints[i] = map[string]any{"name": endpointName(i + 1), "url": "http://127.0.0.1:1"}
	}
	keep := fmt.Sprintf("%dh", 24*(g.days+2))
	return startProcess(ctx, d.database, "serve", nil, map[string]any{
		"auth":    map[string]any{"disabled": true},
		"log":     map[string]any{"level": "error"}, // it says that the endpoints are down
		"limits":  map[string]any{"requests_per_second": 1e6, "burst": 1_000_000},
		"webhook": map[string]any{"endpoints": endpoints, "retention": keep, "history_retention": keep},
	})
}

// endpointName returns the name of one of the endpoints: two with a history, of which the
// second never failed; one far behind; and others that have received everything.
func endpointName(i int) string {
	switch i {
	case 1:
		return "current"
	case 2:
		return "steady"
	case 3:
		return "behind"
	}
	return fmt.Sprint("customer-", i)
}

//go:build unix

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
)

// settle waits until every endpoint has everything.
func (w *world) settle(ctx context.Context) error {
	deadline := time.Now().Add(patience)
	for {
		left := w.left()
		if left == "" {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("not settled after %v: %s", patience, left)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// left says which endpoints are behind.
func (w *world) left() string {
	status, page, err := w.call(w.servers[0], http.MethodGet, "/webhooks/endpoints", nil)
	if err != nil || status != http.StatusOK {
		return fmt.Sprint("no answer: ", status, " ", err)
	}
	var left []string
	for _, item := range page["items"].([]any) {
		e := item.(map[string]any)
		if e["lag_events"] != 0.0 || e["parked"] != 0.0 {
			left = append(left, fmt.Sprintf("%v is %v (%v): %v events behind, %v parked", e["name"], e["state"], e["reason"], e["lag_events"], e["parked"]))
		}
	}
	return strings.Join(left, "; ")
}

// logged is an event as the database has it.
type logged struct {
	sequence, version int64
	id, typ, action   string
	resource          string
	at                time.Time
}

func (w *world) truth(ctx context.Context) (events []logged, contexts map[string]int64, err error) {
	driver, dsn, schema := "pgx", w.databaseURL, "tidings."
	if dsn == "" {
		driver, schema = "sqlite", ""
		dsn = "file:" + filepath.Join(w.folder, "data", "tidings.db") + "?mode=ro"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, "SELECT seq, id, resource_type, action, resource_id, resource_version, at FROM "+schema+"tidings_events ORDER BY seq")
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e logged
		var id string
		var at int64
		if err := rows.Scan(&e.sequence, &e.id, &e.typ, &e.action, &id, &e.version, &at); err != nil {
			return nil, nil, err
		}
		e.resource, e.at = e.typ+"/"+id, time.UnixMicro(at)
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	contexts = make(map[string]int64)
	found, err := db.QueryContext(ctx, "SELECT id, version FROM "+schema+"contexts")
	if err != nil {
		return nil, nil, err
	}
	defer found.Close()
	for found.Next() {
		var id string
		var version int64
		if err := found.Scan(&id, &version); err != nil {
			return nil, nil, err
		}
		contexts["context/"+id] = version
	}
	return events, contexts, found.Err()
}

// coalescing is the name of the receiver whose endpoint merges.
const coalescing = "coalescing"

// verdict is what the check found.
type verdict struct{ lost, phantom, disordered, late, different, duplicates, delivered, merged int }

// check compares the database with what arrived.
func (w *world) check(ctx context.Context, s settings, settled time.Duration) error {
	events, contexts, err := w.truth(ctx)
	if err != nil {
		return err
	}
	var problems []string
	problems = append(problems, checkLog(events, contexts)...)
	var total verdict
	for _, r := range w.receivers {
		v, found := r.check(events)
		problems = append(problems, found...)
		total.lost, total.phantom, total.disordered = total.lost+v.lost, total.phantom+v.phantom, total.disordered+v.disordered
		total.late += v.late
		total.different, total.duplicates = total.different+v.different, total.duplicates+v.duplicates
		total.delivered, total.merged = total.delivered+v.delivered, total.merged+v.merged
	}
	faults, met := 0, 0
	fmt.Printf("\n%s, %v, %d servers\n", w.database, s.time, len(w.servers))
	for _, name := range slices.Sorted(maps.Keys(w.faults)) {
		faults += w.faults[name]
		fmt.Printf("  %5d  %s\n", w.faults[name], name)
	}
	answers := make(map[string]int)
	for _, r := range w.receivers {
		for name, n := range r.met {
			answers[name] += n
			met += n
		}
	}
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		fmt.Printf("  %5d  receiver %s\n", answers[name], name)
	}
	fmt.Printf("%-36s%d\n%-36s%d\n%-36s%d acknowledged, %d not; the slowest took %v\n%-36s%d\n%-36s%d\n%-36s%d\n%-36s%d\n%-36s%d\n%-36s%d\n%-36s%d\n%-36s%d\n%-36s%v\n",
		"faults done", faults, "requests answered badly", met,
		"writes", w.writes.Load(), w.failed.Load(), time.Duration(w.slow.Load()).Round(time.Millisecond),
		"events", len(events), "deliveries", total.delivered, "lost", total.lost, "phantom", total.phantom, "out of order", total.disordered,
		"late, were under way (coalescing)", total.late, "duplicates", total.duplicates, "merged (coalescing endpoint)", total.merged, "settled after the last fault", settled.Round(100*time.Millisecond))
	if most := inFlight * w.interrupted(); total.late > most {
		problems = append(problems, fmt.Sprintf("%d came late at the coalescing endpoint; no more than %d can have been under way", total.late, most))
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems[:min(len(problems), 20)], "\n"))
	}
	return nil
}

// inFlight is max_in_flight, unless configured.
const inFlight = 16

// interrupted counts the faults that leave requests under way without an owner.
func (w *world) interrupted() (n int) {
	for _, name := range []string{faultKill, faultStop, faultCut} {
		n += w.faults[name]
	}
	return n
}

// checkLog checks promise 1: each change and its event, or neither.
func checkLog(events []logged, contexts map[string]int64) (problems []string) {
	versions := make(map[string]int64)
	deleted := make(map[string]bool)
	for i, e := range events {
		if e.sequence != int64(i)+1 {
			problems = append(problems, fmt.Sprintf("position %d follows %d", e.sequence, i))
			break
		}
		if e.typ != "context" {
			continue
		}
		if e.version != versions[e.resource]+1 {
			problems = append(problems, fmt.Sprintf("%s: version %d follows %d in the log", e.resource, e.version, versions[e.resource]))
		}
		versions[e.resource], deleted[e.resource] = e.version, e.action == string(tidings.Deleted)
	}
	for resource, version := range contexts {
		if versions[resource] != version || deleted[resource] {
			problems = append(problems, fmt.Sprintf("%s is at version %d, its last event at %d", resource, version, versions[resource]))
		}
	}
	for resource := range versions {
		if _, there := contexts[resource]; !there && !deleted[resource] {
			problems = append(problems, fmt.Sprintf("%s is gone and no event tells of it", resource))
		}
	}
	return problems
}

// check checks promises 2 and 3 for an endpoint.
func (r *receiver) check(events []logged) (v verdict, problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := make(map[string]logged)
	for _, e := range events {
		known[e.id] = e
	}
	last := make(map[string]int64)
	for _, a := range r.order {
		e, ok := known[a.id]
		if !ok || e.sequence != a.sequence {
			v.phantom++
			problems = append(problems, fmt.Sprintf("%s got %s, which is not in the log", r.name, a.id))
			continue
		}
		switch {
		case a.sequence >= last[a.resource]:
		case r.name == coalescing:
			v.late++ // it was under way when its sender was stopped, and another owner merged it
		default:
			v.disordered++
			problems = append(problems, fmt.Sprintf("%s got position %d of %s after %d", r.name, a.sequence, a.resource, last[a.resource]))
		}
		last[a.resource] = max(last[a.resource], a.sequence)
	}
	v.delivered, v.duplicates, v.different = len(r.order)+r.duplicates, r.duplicates, r.different
	if r.different > 0 {
		problems = append(problems, fmt.Sprintf("%s got other bytes under the same webhook-id, %d times", r.name, r.different))
	}
	for _, e := range events {
		if _, ok := r.bodies[e.id]; ok {
			continue
		}
		if r.name == coalescing && r.toldOtherwise(e, known, last[e.resource]) {
			v.merged++
			continue
		}
		v.lost++
		problems = append(problems, fmt.Sprintf("%s never got position %d of %s (%s)", r.name, e.sequence, e.resource, e.action))
	}
	return v, problems
}

// toldOtherwise reports whether another event told of one that was merged: a
// later one of the resource, or its creation that arrived afterwards.
func (r *receiver) toldOtherwise(e logged, known map[string]logged, last int64) bool {
	if last > e.sequence {
		return true
	}
	for id, at := range r.arrived {
		other := known[id]
		if other.resource == e.resource && other.action == string(tidings.Created) && at.After(e.at) {
			return true
		}
	}
	return false
}

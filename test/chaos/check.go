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

// left returns which endpoints are behind.
func (w *world) left() string {
	status, page, err := w.call(w.servers[0], http.MethodGet, "/webhooks/endpoints", nil)
	if err != nil || status != http.StatusOK {
		return fmt.Sprint("no response: ", status, " ", err)
	}
	var left []string
	for _, item := range page["items"].([]any) {
		e := item.(map[string]any)
		if e["lag_events"] != 0.0 || e["parked"] != 0.0 {
			left = append(left, fmt.Sprintf("%v is %v (%v): %v events behind, %v parked",
				e["name"], e["state"], e["reason"], e["lag_events"], e["parked"]))
		}
	}
	return strings.Join(left, "; ")
}

// logged is an event in the database.
type logged struct {
	sequence, version int64
	id, typ, action   string
	resource          string
	at                time.Time
}

// open opens the database for reading. schema is the prefix of table names.
func (w *world) open() (db *sql.DB, schema string, err error) {
	driver, dsn, schema := "pgx", w.databaseURL, "tidings."
	if dsn == "" {
		driver, schema = "sqlite", ""
		dsn = "file:" + filepath.Join(w.folder, "data", "tidings.db") + "?mode=ro"
	}
	db, err = sql.Open(driver, dsn)
	return db, schema, err
}

// stored returns the log and the contexts with their versions.
func (w *world) stored(ctx context.Context) (events []logged, contexts map[string]int64, err error) {
	db, schema, err := w.open()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx,
		"SELECT seq, id, resource_type, action, resource_id, resource_version, at FROM "+schema+
			"tidings_events ORDER BY seq")
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

const (
	coalescing = "coalescing" // its endpoint merges
	reloaded   = "reloaded"   // reloads change its endpoint, which sometimes excludes updates
)

// problems are broken guarantees.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// verdict is the result of a check.
type verdict struct {
	delivered, gone, lost, phantom, disordered, late, different, merged, unwanted int
	duplicates, unexplained                                                       int
}

func (v *verdict) add(o verdict) {
	v.gone += o.gone
	v.delivered, v.lost, v.phantom = v.delivered+o.delivered, v.lost+o.lost, v.phantom+o.phantom
	v.disordered, v.late, v.different = v.disordered+o.disordered, v.late+o.late, v.different+o.different
	v.merged, v.unwanted = v.merged+o.merged, v.unwanted+o.unwanted
	v.duplicates, v.unexplained = v.duplicates+o.duplicates, v.unexplained+o.unexplained
}

// check compares the database with what arrived.
func (w *world) check(ctx context.Context, s settings, settled time.Duration) error {
	events, contexts, err := w.stored(ctx)
	if err != nil {
		return err
	}
	found := slices.Concat(w.problems, checkLog(events, contexts), w.checkAcknowledged(events))
	var total verdict
	for _, r := range w.receivers {
		v, more := w.checkReceiver(r, events)
		found = append(found, more...)
		total.add(v)
	}
	found = append(found, w.checkLosses(ctx, total.gone)...)
	w.report(s, settled, len(events), total)
	if most := inFlight * w.interrupted(); total.late > most {
		found.add("%d were late at the coalescing endpoint; at most %d can have been in flight", total.late, most)
	}
	if len(found) > 0 {
		return errors.New(strings.Join(found[:min(len(found), 20)], "\n"))
	}
	return nil
}

// report prints the faults and the results.
func (w *world) report(s settings, settled time.Duration, events int, total verdict) {
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
	slowest := time.Duration(w.slow.Load()).Round(time.Millisecond)
	for _, line := range []struct {
		what  string
		value any
	}{
		{"faults", faults},
		{"bad responses", met},
		{"writes", fmt.Sprintf("%d acknowledged, %d not; slowest %v", len(w.acked), w.failed.Load(), slowest)},
		{"events", events},
		{"deliveries", total.delivered},
		{"lost", total.lost},
		{"delivered, lost by the database", total.gone},
		{"phantom", total.phantom},
		{"out of order", total.disordered},
		{"late (coalescing, reloaded)", total.late},
		{"duplicates", total.duplicates},
		{"unexplained duplicates", total.unexplained},
		{"merged (coalescing endpoint)", total.merged},
		{"filtered (reloaded endpoint)", total.unwanted},
		{"settled after the last fault", settled.Round(100 * time.Millisecond)},
	} {
		fmt.Printf("%-36s%v\n", line.what, line.value)
	}
}

// inFlight is the default of max_in_flight.
const inFlight = 16

// interrupted counts the faults that leave requests in flight without an owner.
func (w *world) interrupted() (n int) {
	for _, name := range []string{faultKill, faultStop, faultCut} {
		n += w.faults[name]
	}
	return n
}

// checkLog checks guarantee 1: a change and its event both exist, or neither.
func checkLog(events []logged, contexts map[string]int64) (found problems) {
	versions := make(map[string]int64)
	deleted := make(map[string]bool)
	for i, e := range events {
		if e.sequence != int64(i)+1 {
			found.add("position %d follows %d", e.sequence, i)
			break
		}
		if e.typ != "context" {
			continue
		}
		if e.version != versions[e.resource]+1 {
			found.add("%s: version %d follows %d in the log", e.resource, e.version, versions[e.resource])
		}
		versions[e.resource], deleted[e.resource] = e.version, e.action == string(tidings.Deleted)
	}
	for resource, version := range contexts {
		if versions[resource] != version || deleted[resource] {
			found.add("%s is at version %d, its last event at %d", resource, version, versions[resource])
		}
	}
	for resource := range versions {
		if _, there := contexts[resource]; !there && !deleted[resource] {
			found.add("%s was deleted without an event", resource)
		}
	}
	return found
}

// checkAcknowledged checks that every acknowledged write has its event.
func (w *world) checkAcknowledged(events []logged) (found problems) {
	known := make(map[write]bool)
	for _, e := range events {
		if e.action == string(tidings.Deleted) {
			e.version = 0
		}
		known[write{e.resource, e.version}] = true
	}
	for _, a := range w.acked {
		if !known[a.write] && !w.mayBeLost(a.at) {
			found.add("%s: version %d (0: deletion) was acknowledged but has no event", a.resource, a.version)
		}
	}
	return found
}

const (
	attempt   = 300 * time.Millisecond // maximum duration of a delivery on a busy machine
	cursorAge = time.Second            // maximum time until a delivery is saved
	recovery  = 15 * time.Second       // until leases have moved and deliveries resume
)

// explained reports whether a delivery may be repeated, because its outcome may be
// unknown to the current owner.
func (r *receiver) explained(first time.Time, trouble []span) bool {
	for _, s := range trouble {
		if first.After(s.from.Add(-cursorAge)) && first.Before(s.to.Add(recovery)) {
			return true
		}
	}
	return slices.ContainsFunc(r.closed, func(at time.Time) bool { return at.Sub(first).Abs() < attempt })
}

// divided reports whether a delivery may be unknown to the new owners of an endpoint's
// partitions, because it was made after the cursors were saved.
func divided(first time.Time, reloads []span) bool {
	return slices.ContainsFunc(reloads, func(s span) bool {
		return first.After(s.from.Add(-cursorAge)) && first.Before(s.to.Add(cursorAge))
	})
}

// checkReceiver checks guarantees 2 and 3 for an endpoint.
func (w *world) checkReceiver(r *receiver, events []logged) (v verdict, found problems) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byID := make(map[string]logged)
	for _, e := range events {
		byID[e.id] = e
	}
	last := make(map[string]int64)
	for _, a := range r.order {
		e, ok := byID[a.id]
		known := ok && e.sequence == a.sequence
		if !known && w.mayBeLost(a.first) { // the event, or only its position
			v.gone++
			continue
		}
		if !known {
			v.phantom++
			found.add("%s got %s at position %d, %v; in the log it is at %d", r.name, a.id, a.sequence,
				a.first.Format(time.StampMilli), e.sequence)
			continue
		}
		switch {
		case a.sequence >= last[a.resource]:
		case r.name == coalescing:
			v.late++ // in flight when its sender was suspended, and another owner merged it
		case r.name == reloaded && len(w.losses) > 0:
			v.late++ // filtered when first read; then the database lost the cursor
		default:
			v.disordered++
			found.add("%s got position %d of %s after %d", r.name, a.sequence, a.resource, last[a.resource])
		}
		last[a.resource] = max(last[a.resource], a.sequence)
	}
	for _, a := range r.duplicates {
		if !r.explained(a.first, w.trouble) && (r.name != reloaded || !divided(a.first, w.reloads)) {
			v.unexplained++
			found.add("%s got position %d of %s again for no known reason; first at %s, then at %s", r.name, a.sequence,
				a.resource, a.first.Format(time.StampMilli), a.again.Format(time.StampMilli))
		}
	}
	v.duplicates, v.delivered, v.different = len(r.duplicates), len(r.order)+len(r.duplicates), r.different
	if r.different > 0 {
		found.add("%s got different bytes with the same webhook-id %d times", r.name, r.different)
	}
	for _, e := range events {
		if _, ok := r.bodies[e.id]; ok {
			continue
		}
		if r.name == coalescing && r.covered(e, byID, last[e.resource]) {
			v.merged++
			continue
		}
		// A reload may leave out updates, and what is no context, before they are delivered.
		if r.name == reloaded && (e.action == string(tidings.Updated) || e.typ != "context") {
			v.unwanted++
			continue
		}
		v.lost++
		found.add("%s never got position %d of %s (%s)", r.name, e.sequence, e.resource, e.action)
	}
	return v, found
}

// covered reports whether another event covers a merged one: a later event of the
// resource, or its creation if that arrived afterwards.
func (r *receiver) covered(e logged, known map[string]logged, last int64) bool {
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

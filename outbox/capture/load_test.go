package capture_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// load is an application that changes four rows of public.hits, found by a column that no
// migration touches.
type load struct {
	changes [4]atomic.Int64
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

func (a *app) startLoad(db *sql.DB) *load {
	l := new(load)
	ctx, stop := context.WithCancel(a.t.Context())
	l.stop = stop
	for row := range l.changes {
		l.ended.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.Exec("UPDATE public.hits SET n = n + 1 WHERE slot = $1", row); err != nil {
					a.t.Errorf("the application's statement: %v", err)
					return
				}
				l.changes[row].Add(1)
			}
		})
	}
	return l
}

// wait waits until every row was changed a number of times.
func (l *load) wait(t *testing.T) {
	t.Helper()
	for row := range l.changes {
		for from := l.changes[row].Load(); l.changes[row].Load() < from+5 && !t.Failed(); {
			<-time.After(time.Millisecond)
		}
	}
}

func (l *load) end() {
	l.stop()
	l.ended.Wait()
}

// While an application writes, its table is migrated in every way: no statement of the
// application or the migration fails, and no change is lost.
func TestMigrationsUnderLoad(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.hits (id int PRIMARY KEY, n int DEFAULT 0, slot int UNIQUE, extra int)",
		"INSERT INTO public.hits SELECT n, 0, n, 0 FROM generate_series(0, 3) n")
	table := capture.Table{Name: "public.hits", Type: "hit", Ignore: []string{"extra"}}
	a.attach(table)
	l := a.startLoad(openDB(t, a.url))
	for _, migration := range []string{
		"ALTER TABLE public.hits RENAME id TO number", "ALTER TABLE public.hits ALTER number TYPE bigint",
		"ALTER TABLE public.hits RENAME number TO id", "ALTER TABLE public.hits DROP extra CASCADE",
		"ALTER TABLE public.hits ALTER n TYPE numeric", "ALTER TABLE public.hits ADD extra text DEFAULT 'x'",
	} {
		l.wait(t)
		a.exec(migration)
		l.wait(t)
		a.repair(table)
	}
	l.wait(t)
	l.end()
	told := make(map[string]int64)
	for _, e := range a.events() {
		told[e.ResourceID]++
	}
	for row := range l.changes {
		if want := l.changes[row].Load(); told[fmt.Sprint(row)] != want {
			t.Errorf("row %d: %d of %d changes have events", row, told[fmt.Sprint(row)], want)
		}
	}
}

// A table that is dropped and created again under load makes events again from the next
// repair on, and events for what was written meanwhile are added.
func TestTableIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.hits (id int PRIMARY KEY, n int DEFAULT 0, slot int UNIQUE)",
		"INSERT INTO public.hits SELECT n, 0, n FROM generate_series(0, 3) n")
	table := capture.Table{Name: "public.hits", Type: "hit"}
	a.attach(table)
	l := a.startLoad(openDB(t, a.url))
	l.wait(t)
	a.inTx("LOCK TABLE public.hits", "CREATE TABLE public.new (LIKE public.hits INCLUDING ALL)",
		"INSERT INTO public.new SELECT * FROM public.hits",
		"DROP TABLE public.hits", "ALTER TABLE public.new RENAME TO hits")
	l.wait(t)
	if found := a.findings(table); !strings.Contains(found, "replaced: ") || !strings.Contains(found, "is missing") {
		t.Errorf("Check: %s", found)
	}
	a.events()
	a.repair(table)
	var before [4]int64
	for row := range before {
		before[row] = l.changes[row].Load()
	}
	l.wait(t)
	l.end()
	created, updated := make(map[string]int), make(map[string]int64)
	for _, e := range a.events() {
		if e.Action == "created" {
			created[e.ResourceID]++
		} else {
			updated[e.ResourceID]++
		}
	}
	for row := range before {
		id := fmt.Sprint(row)
		if created[id] != 1 || updated[id] < l.changes[row].Load()-before[row] {
			t.Errorf("row %d: created %d times, updated %d of %d", row, created[id], updated[id],
				l.changes[row].Load()-before[row])
		}
	}
	gaps, err := capture.Gaps(t.Context(), a.db, a.o, time.Time{})
	if err != nil || len(gaps) != 1 || gaps[0].Recovered != 4 || !gaps[0].Since.Before(gaps[0].Until) {
		t.Errorf("gaps %+v, %v", gaps, err)
	}
}

// Polling the outbox stays cheap however many events a long snapshot keeps alive.
func TestLookWithALongSnapshot(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.hits (id bigint PRIMARY KEY)")
	a.attach(capture.Table{Name: "public.hits", Type: "hit"})
	snapshot, err := a.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Rollback()
	if _, err := snapshot.Exec("SELECT 1 FROM public.hits"); err != nil {
		t.Fatal(err)
	}
	events, batch := 10_000, 1000
	if testtool.All() {
		events, batch = 1_000_000, 50_000
	}
	begun := time.Now()
	for from := 0; from < events; from += batch {
		a.exec(fmt.Sprintf("INSERT INTO public.hits SELECT generate_series(%d, %d)", from, from+batch-1))
		if _, err := a.log.Advance(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begun)
	shortest := time.Hour // the machine is shared
	for range 20 {
		at := time.Now()
		if _, err := a.log.Advance(t.Context()); err != nil {
			t.Fatal(err)
		}
		shortest = min(shortest, time.Since(at))
	}
	t.Logf("a poll takes %v after %d events, which took %v", shortest, events, took)
	if shortest > testtool.Allow(10*time.Millisecond) {
		t.Errorf("a poll takes %v", shortest)
	}
	head, err := a.log.Advance(t.Context())
	if err != nil || head != int64(events) {
		t.Errorf("head = %d, %v; want %d", head, err, events)
	}
}

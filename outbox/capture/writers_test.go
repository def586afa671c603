package capture_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// makeHits creates the five rows that writers change.
const makeHits = `CREATE TABLE public.hits (number int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text);
	INSERT INTO public.hits (number) SELECT generate_series(1, 5)`

// writers change five rows concurrently, with savepoints and aborts, until each has made the
// given number of transactions, and return how often each row was changed.
func writers(t *testing.T, db *sql.DB, table string, count, transactions int) *[6]atomic.Int64 {
	t.Helper()
	var changes [6]atomic.Int64
	var all sync.WaitGroup
	for w := range count {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range transactions {
				var done [6]int64
				tx, err := db.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				id := 1 + r.IntN(5) // one row a transaction: no deadlocks
				update := func() bool {
					_, err := tx.Exec("UPDATE "+table+" SET n = n + 1 WHERE number = $1", id)
					if err != nil {
						t.Error(err)
					}
					return err == nil
				}
				if r.IntN(2) == 0 {
					if update() {
						done[id] = 1
					}
				}
				if _, err := tx.Exec("SAVEPOINT s"); err != nil {
					t.Error(err)
				}
				kept := update()
				if r.IntN(2) == 0 {
					if _, err := tx.Exec("ROLLBACK TO s"); err != nil {
						t.Error(err)
					}
					kept = false
				}
				if kept {
					done[id] = 1
				}
				if r.IntN(4) == 0 {
					_ = tx.Rollback()
					continue
				}
				if err := tx.Commit(); err != nil {
					t.Error(err)
				} else {
					changes[id].Add(done[id])
				}
			}
		})
	}
	all.Wait()
	return &changes
}

// Sixteen writers on five rows: exactly the committed changes make events, one for each
// resource and transaction, with versions that grow in commit order.
func TestWriters(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec(makeHits)
	table := capture.Table{Name: "public.hits", Type: "hit"}
	a.attach(table)
	moving, stop := context.WithCancel(t.Context())
	moved := make(chan error, 1)
	go func() { moved <- a.move(moving) }()
	transactions := 20
	if testtool.All() {
		transactions = 300
	}
	changes := writers(t, a.db, "public.hits", 16, transactions)
	stop()
	if err := <-moved; err != nil {
		t.Error(err)
	}
	told, versions := make(map[string]int64), make(map[string]int64)
	for _, e := range a.events() {
		told[e.ResourceID]++
		if e.ResourceVersion <= versions[e.ResourceID] {
			t.Errorf("resource %s: version %d after %d", e.ResourceID, e.ResourceVersion, versions[e.ResourceID])
		}
		versions[e.ResourceID] = e.ResourceVersion
	}
	for id := 1; id <= 5; id++ {
		if want := changes[id].Load(); told[fmt.Sprint(id)] != want {
			t.Errorf("resource %d: %d of %d changes have events", id, told[fmt.Sprint(id)], want)
		}
	}
}

// move numbers events until the context ends.
func (a *app) move(ctx context.Context) error {
	for ctx.Err() == nil {
		if _, err := a.log.Advance(a.t.Context()); err != nil {
			return err
		}
	}
	return nil
}

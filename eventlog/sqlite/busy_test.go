package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
)

// The log's transactions wait for concurrent writers, even in a pool whose
// transactions take the write lock only when they write.
func TestTransactionsWaitForOtherWriters(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "log.db")+
		"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(30000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log := sqlite.New(db, db)
	if err := log.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := []eventlog.Partition{{Endpoint: "a", Of: 1}}
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := log.Prepare(t.Context(), eventlog.Setup{Partitions: all}); err != nil {
		t.Fatal(err)
	}
	if err := log.Join(t.Context(), eventlog.Replica{ID: "r"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	held, err := log.Acquire(t.Context(), "r", all)
	if err != nil || len(held) != 1 {
		t.Fatal(held, err)
	}
	if _, err := db.Exec("CREATE TABLE orders (id INTEGER PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var program sync.WaitGroup
	program.Go(func() {
		for ctx.Err() == nil {
			if _, err := db.Exec("INSERT INTO orders DEFAULT VALUES"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 200 { // both read before they write
		id := fmt.Sprint(i)
		err := log.AddReplay(t.Context(),
			eventlog.Replay{ID: id, Endpoint: id, From: 1, To: 2, State: eventlog.ReplayRunning})
		if err != nil {
			t.Error(err)
			break
		}
		parked := eventlog.Retry{Endpoint: "a", Event: eventlogtest.Sample(i, 1), Attempts: 1, Next: time.Unix(1, 0)}
		parked.Event.Sequence = int64(i + 1)
		refused, err := log.Park(t.Context(), eventlog.Parking{Lease: held[0].Lease, Retries: []eventlog.Retry{parked}})
		if err != nil || len(refused) > 0 {
			t.Error(refused, err)
			break
		}
	}
	stop()
	program.Wait()
}

package postgres_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// freezer opens connections that send nothing more after a statement, as if the
// process were suspended while its sockets stay open.
type freezer struct {
	after  string
	said   atomic.Bool
	frozen chan struct{} // closed when it would send more
	once   sync.Once
	end    <-chan struct{}
}

type freezingConn struct {
	net.Conn
	f *freezer
}

func (f *freezer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	return freezingConn{c, f}, err
}

func (c freezingConn) Write(p []byte) (int, error) {
	if c.f.said.Load() {
		c.f.once.Do(func() { close(c.f.frozen) })
		<-c.f.end
	}
	if bytes.Contains(p, []byte(c.f.after)) {
		c.f.said.Store(true)
	}
	return c.Conn.Write(p)
}

// A replica that is suspended or cut off in a transaction blocks the others for
// only a few seconds.
func TestFrozenInATransaction(t *testing.T) {
	partition := eventlog.Partition{Endpoint: "e", Of: 1}
	number := func(ctx context.Context, log *postgres.Log) error {
		_, err := log.Advance(ctx)
		return err
	}
	acquire := func(ctx context.Context, log *postgres.Log) error {
		_, err := log.Acquire(ctx, "r", []eventlog.Partition{partition})
		return err
	}
	save := func(ctx context.Context, log *postgres.Log) error {
		cursors, err := log.Cursors(ctx)
		if err != nil {
			return err
		}
		_, err = log.SaveCursors(ctx, cursors)
		return err
	}
	addPartition := func(ctx context.Context, log *postgres.Log) error {
		return log.EnsurePartitions(ctx, time.Now().Add(time.Hour))
	}
	type operation func(context.Context, *postgres.Log) error
	tests := []struct {
		name, after   string
		frozen, other operation
	}{
		{"numbering events", "tidings_head FOR UPDATE", number, number},
		{"taking leases", "tidings_replicas IN EXCLUSIVE MODE", acquire, acquire},
		{"saving a cursor", "tidings_cursors SET", save, acquire},
		{"adding a partition", "pg_advisory_xact_lock", addPartition, addPartition},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url := testdb.Postgres(t)
			log, db := openURL(t, url)
			if err := log.Prepare(t.Context(),
				eventlog.Setup{Partitions: []eventlog.Partition{partition}, Head: 0}); err != nil {
				t.Fatal(err)
			}
			tx := appendIn(t, log, db, tidings.Event{ID: "1", Type: "context.created", ResourceID: "c"})
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}

			end := make(chan struct{})
			thaw := sync.OnceFunc(func() { close(end) })
			defer thaw()
			freezer := &freezer{after: test.after, frozen: make(chan struct{}), end: end}
			cfg, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			cfg.DialFunc = freezer.dial
			cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // sends a statement in one message
			frozenDB := stdlib.OpenDB(*cfg)
			defer frozenDB.Close()
			done := make(chan error, 1)
			go func() {
				done <- test.frozen(t.Context(), postgres.New(frozenDB, postgres.Options{PartitionWidth: width}))
			}()
			select {
			case <-freezer.frozen:
			case err := <-done:
				t.Fatalf("it was never suspended: %v", err)
			}

			waits, stop := context.WithTimeout(t.Context(), 30*time.Second)
			defer stop()
			for test.other(waits, log) != nil { // as the relay retries
				if waits.Err() != nil {
					t.Fatal("the other replica is blocked forever")
				}
			}
			thaw()
			if err := <-done; err == nil {
				t.Error("the suspended one was not told that its transaction had ended")
			}
		})
	}
}

package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/postgres/listen"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

func open(t *testing.T) (*postgres.Log, *sql.DB) {
	t.Helper()
	return openURL(t, testdb.Postgres(t))
}

func openURL(t *testing.T, url string) (*postgres.Log, *sql.DB) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	log := postgres.New(db, postgres.Options{PartitionWidth: width, BoundedSessions: strings.HasSuffix(url, bounded)})
	for range 2 { // a second time changes nothing
		if err := log.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return log, db
}

// bounded is the URL suffix of a database whose sessions all start with the same
// settings.
const bounded = "&statement_timeout=30s&default_transaction_isolation=read%20committed&lock_timeout=10s"

func TestLog(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"defaults": func(t *testing.T) string { return testdb.Postgres(t) },
		// Whatever the database's settings are, and however statements are sent.
		"hostile defaults": func(t *testing.T) string {
			testtool.InAll(t)
			return testdb.WithDefaults(t, testdb.Hostile)
		},
		"hostile defaults, unprepared": func(t *testing.T) string {
			testtool.InAll(t)
			return testdb.WithDefaults(t, testdb.Hostile) + "&default_query_exec_mode=exec"
		},
		"bounded sessions": func(t *testing.T) string {
			testtool.InAll(t)
			return testdb.WithDefaults(t, testdb.Hostile) + bounded
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testLog(t, url)
		})
	}
}

func testLog(t *testing.T, url func(t *testing.T) string) {
	eventlogtest.Run(t, func(t *testing.T) eventlogtest.Home {
		log, db := openURL(t, url(t))
		transact := func(t *testing.T, end func(*sql.Tx) error, events ...tidings.Event) {
			if err := end(appendIn(t, log, db, events...)); err != nil {
				t.Fatal(err)
			}
		}
		return eventlogtest.Home{
			Log: log,
			Append: func(t *testing.T, events ...tidings.Event) {
				transact(t, (*sql.Tx).Commit, events...)
				log.Committed(events...)
			},
			Rollback: func(t *testing.T, events ...tidings.Event) { transact(t, (*sql.Tx).Rollback, events...) },
			Expire:   func(t *testing.T) { expireAll(t, log) },
			Cut: func(t *testing.T, after int64) {
				for _, cut := range []string{
					"DELETE FROM tidings.tidings_events WHERE seq > $1",
					"UPDATE tidings.tidings_head SET seq = $1",
				} {
					if _, err := db.ExecContext(t.Context(), cut, after); err != nil {
						t.Fatal(err)
					}
				}
			},
			Backup: func(t *testing.T) func(*testing.T) { return backup(t, db) },
			Start: func(*testing.T) eventlog.Log {
				return postgres.New(db, postgres.Options{PartitionWidth: width})
			},
			Restart: func(t *testing.T) eventlog.Log {
				if _,
					err := db.ExecContext(t.Context(),
					"UPDATE tidings.tidings_epochs SET start = 'an earlier one'"); err != nil {
					t.Fatal(err)
				}
				return postgres.New(db, postgres.Options{PartitionWidth: width})
			},
		}
	})
}

// backup copies all tables. restore deletes their rows and loads the copies.
func backup(t *testing.T, db *sql.DB) (restore func(t *testing.T)) {
	t.Helper()
	each := func(t *testing.T, statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), `DO $$ DECLARE name text; BEGIN
			FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'tidings'::regnamespace
				AND relkind IN ('r', 'p') AND NOT relispartition AND NOT starts_with(relname, 'copy_')
			LOOP EXECUTE replace('`+statement+`', '%', name); END LOOP;
		END $$`); err != nil {
			t.Fatal(err)
		}
	}
	each(t, "CREATE TABLE tidings.copy_% AS TABLE tidings.%")
	return func(t *testing.T) {
		each(t, "DELETE FROM tidings.%; "+
			"INSERT INTO tidings.% OVERRIDING SYSTEM VALUE SELECT * FROM tidings.copy_%")
	}
}

// width is short, so that a test need not wait long for a partition to end.
const width = time.Second

// expireAll expires events as the passage of time does: with their partition, once
// it has ended.
func expireAll(t *testing.T, log *postgres.Log) {
	t.Helper()
	head, err := log.Advance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := log.ExpireEvents(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		oldest, err := log.Oldest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if oldest > head {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("events from %d on are still there", oldest)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func appendIn(t *testing.T, log *postgres.Log, db *sql.DB, events ...tidings.Event) *sql.Tx {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append(t.Context(), tx, events...); err != nil {
		t.Fatal(err)
	}
	return tx
}

// A transaction that commits late must not be skipped by a reader that has gone
// on to later ones.
func TestLateCommitIsNotSkipped(t *testing.T) {
	log, db := open(t)
	late := appendIn(t, log, db, eventlogtest.Sample(1, 1))
	early := appendIn(t, log, db, eventlogtest.Sample(2, 1))
	if err := early.Commit(); err != nil {
		t.Fatal(err)
	}
	if head, err := log.Advance(t.Context()); err != nil || head != 1 {
		t.Fatalf("head = %d, %v; want 1", head, err)
	}
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	if head, err := log.Advance(t.Context()); err != nil || head != 2 {
		t.Fatalf("head = %d, %v; want 2", head, err)
	}
	events, err := log.Read(t.Context(), 1, 10)
	if err != nil || len(events) != 1 || events[0].ID != "evt-1-1" {
		t.Errorf("after 1: %v, %v; want the late event", events, err)
	}
}

// Several replicas number the outbox at once while others write to it: every
// event once, no gap, and in commit order for each resource.
func TestConcurrentAdvance(t *testing.T) {
	log, db := open(t)
	if _, err := db.Exec("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counters SELECT g, " +
		"0 FROM generate_series(0, 4) g"); err != nil {
		t.Fatal(err)
	}
	const writers, writes = 8, 60
	var writing, moving sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		moving.Go(func() {
			for {
				if _, err := log.Advance(t.Context()); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range writes {
				if err := increment(t, log, db, (w+i)%5); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(done)
	moving.Wait()
	head, err := log.Advance(t.Context())
	if err != nil || head != writers*writes {
		t.Fatalf("head = %d, %v; want %d", head, err, writers*writes)
	}
	events, err := log.Read(t.Context(), 0, writers*writes+1)
	if err != nil {
		t.Fatal(err)
	}
	version := make(map[string]int64)
	for i, e := range events {
		if e.Sequence != int64(i)+1 {
			t.Fatalf("event %d has position %d", i, e.Sequence)
		}
		if e.ResourceVersion != version[e.ResourceID]+1 {
			t.Fatalf("resource %s: version %d after %d", e.ResourceID, e.ResourceVersion, version[e.ResourceID])
		}
		version[e.ResourceID] = e.ResourceVersion
	}
}

func increment(t *testing.T, log *postgres.Log, db *sql.DB, id int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var n int
	if err := tx.QueryRow("UPDATE counters SET n = n + 1 WHERE id = $1 RETURNING n", id).Scan(&n); err != nil {
		return fmt.Errorf("increment: %w", err)
	}
	if err := log.Append(t.Context(), tx, eventlogtest.Sample(id, n)); err != nil {
		return err
	}
	return tx.Commit()
}

func TestUpgrade(t *testing.T) {
	db, err := sql.Open("pgx", testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	eventlogtest.Upgrade(t, db, goose.DialectPostgres, postgres.New(db, postgres.Options{}))
}

// A signal from another replica wakes the readers that it is meant for.
func TestNotified(t *testing.T) {
	log, _ := open(t)
	given := func(signal <-chan struct{}) bool {
		select {
		case <-signal:
			return true
		default:
			return false
		}
	}
	for payload, want := range map[string][2]bool{
		"events of another": {true, false}, "changes": {false, true}, "": {true, true},
	} {
		log.Notified(payload)
		if got := [2]bool{given(log.Woken()), given(log.Nudged())}; got != want {
			t.Errorf("%q wakes %v, want %v", payload, got, want)
		}
	}
}

// A process has what it has numbered itself: only others look for it.
func TestOwnNotification(t *testing.T) {
	url := testdb.Postgres(t)
	here, db := openURL(t, url)
	there, _ := openURL(t, url)
	ctx, stop := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	defer listening.Wait()
	defer stop()
	for _, log := range []*postgres.Log{here, there} {
		listening.Go(func() {
			listen.Run(ctx, log, 0, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
		})
		<-log.Woken() // it listens now
		<-log.Nudged()
	}
	var taken int
	here.OnCommitted(func(events []tidings.Event) bool { taken += len(events); return true })
	if err := appendIn(t, here, db, eventlogtest.Sample(1, 1)).Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Advance(t.Context()); err != nil || taken != 1 {
		t.Fatalf("%d events given, %v", taken, err)
	}
	<-there.Woken()
	if err := there.Nudge(t.Context()); err != nil { // a later notification
		t.Fatal(err)
	}
	<-here.Nudged()
	select {
	case <-here.Woken():
		t.Error("it is woken by what it has numbered itself")
	default:
	}
}

// A failover to a standby without the last partition, or a restored backup, leaves
// the log without it: the next event recreates it.
func TestLostPartition(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("pgx", testdb.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	log := postgres.New(db, postgres.Options{}) // a partition lasts a day
	if err := log.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	block := func() *eventlog.HistoryBlock { return &eventlog.HistoryBlock{Endpoint: "e"} }
	for n := range int64(2) {
		if err := appendIn(t, log, db, eventlogtest.Sample(int(n), 1)).Commit(); err != nil {
			t.Fatal(err)
		}
		if head, err := log.Advance(t.Context()); err != nil || head != n+1 {
			t.Fatalf("head = %d, %v; want %d", head, err, n+1)
		}
		if err := log.AppendHistory(t.Context(), []*eventlog.HistoryBlock{block()}); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
		_, err := db.ExecContext(t.Context(), `DO $$ DECLARE partition text; BEGIN
			FOR partition IN SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
				WHERE relkind = 'r' LOOP
				EXECUTE 'DROP TABLE ' || partition;
			END LOOP; END $$`)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A connection to a server that accepts no writes is not used again.
func TestReadOnlyConnection(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	db.SetMaxOpenConns(3)
	write := func() error { return log.SaveControl(t.Context(), eventlog.Control{Endpoint: "e"}) }
	if err := write(); err != nil || log.Outage() != nil {
		t.Fatal(err, log.Outage())
	}
	for range 3 { // all connections
		if _, err := db.ExecContext(t.Context(), "SET default_transaction_read_only = on"); err != nil {
			t.Fatal(err)
		}
		err := write()
		away, ok := errors.AsType[*eventlog.UnavailableError](err)
		if !ok || !strings.Contains(away.Reason, "read-only") {
			t.Errorf("a write to a standby: %v", err)
		}
		if log.Outage() == nil {
			t.Error("the log does not report that writes fail")
		}
		if err := write(); err != nil || log.Outage() != nil {
			t.Errorf("after it: %v, outage %v", err, log.Outage())
		}
	}
}

// With bounded sessions, a writing statement takes one round trip.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t) + bounded
	openURL(t, url)
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	var said atomic.Int64
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return countingConn{c, &said}, err
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	log := postgres.New(db, postgres.Options{BoundedSessions: true})
	for range 3 { // the statement is prepared, the connection checked, the third time neither
		said.Store(0)
		if err := log.SaveControl(t.Context(), eventlog.Control{Endpoint: "e"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := said.Load(); n != 1 {
		t.Errorf("a write took %d round trips, want 1", n)
	}
}

type countingConn struct {
	net.Conn
	said *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.said.Add(1)
	return c.Conn.Write(p)
}

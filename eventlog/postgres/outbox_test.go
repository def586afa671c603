package postgres_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/internal/sqllog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

func begin(t *testing.T, db *sql.DB, level sql.IsolationLevel) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

func query(t *testing.T, db interface {
	QueryRow(query string, args ...any) *sql.Row
}, text string, args ...any,
) (n int64) {
	t.Helper()
	if err := db.QueryRow(text, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return n
}

// Other transactions that hold a snapshot or uncommitted changes do not make a query
// of the outbox read events that were numbered, rolled back or are uncommitted.
func TestOutboxReadsOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	_, db := openURL(t, url)
	_, one := openURL(t, url)
	one.SetMaxOpenConns(1)                       // it counts the blocks read
	log := postgres.New(one, postgres.Options{}) // with wide partitions
	reader := begin(t, db, sql.LevelRepeatableRead)
	query(t, reader, "SELECT count(*) FROM tidings.tidings_outbox")
	writer := begin(t, db, sql.LevelReadCommitted)
	exec(t, writer, "CREATE TABLE held (id int)") // a transaction with an id
	if err := log.Append(t.Context(), writer, eventlogtest.Sample(0, 1)); err != nil {
		t.Fatal(err)
	}
	number := func(events int) {
		t.Helper()
		before, err := log.Advance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fill(t, one, events)
		if head, err := log.Advance(t.Context()); err != nil || head != before+int64(events) {
			t.Fatalf("head = %d, %v; want %d", head, err, before+int64(events))
		}
	}
	for range 20 {
		number(1000)
	}
	number(7000)
	bulk := begin(t, db, sql.LevelReadCommitted)
	fill(t, bulk, 20_000)

	for what, do := range map[string]func() error{
		"looking for events": func() error { _, err := log.Advance(t.Context()); return err },
		"numbering one event": func() error {
			fill(t, one, 1)
			_, err := log.Advance(t.Context())
			return err
		},
		"counting events": func() error {
			n, err := log.Unnumbered(t.Context())
			if n != 0 {
				t.Errorf("unnumbered = %d, want none", n)
			}
			return err
		},
	} {
		n := blocksRead(t, one, func() {
			if err := do(); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s read %d blocks", what, n)
		if n > 150 {
			t.Errorf("%s read %d blocks of the outbox", what, n)
		}
	}
	head, err := log.Advance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tx := range []*sql.Tx{writer, bulk} {
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := log.Advance(t.Context()); err != nil || now != head+20_001 {
		t.Errorf("head = %d, %v; want %d: the late event", now, err, head+20_001)
	}
}

// Where deliveries or operators wait for them, the first events of a huge transaction are
// numbered before all are.
func TestHugeTransaction(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	_, db := openURL(t, testdb.Postgres(t))
	log := postgres.New(db, postgres.Options{}) // with wide partitions
	const events = 200_000
	fill(t, db, events)
	var longest [2]time.Duration
	calls := 0
	for head := int64(0); head < events; calls++ {
		ctx := eventlog.Urgent(t.Context())
		if calls%2 == 1 {
			ctx = eventlog.Brief(t.Context())
		}
		begun := time.Now()
		next, err := log.Advance(ctx)
		if err != nil {
			t.Fatal(err)
		}
		longest[calls%2] = max(longest[calls%2], time.Since(begun))
		if head = next; head < events {
			select {
			case <-log.Woken():
			default:
				t.Fatal("the log is not woken for the rest")
			}
		}
	}
	t.Logf("the longest of %d calls took %v for deliveries, %v for an operator", calls, longest[0], longest[1])
	if longest[0] > testtool.Allow(5*time.Second) || longest[1] > testtool.Allow(time.Second) {
		t.Error("a call took too long")
	}
	if calls < 2 {
		t.Errorf("all were numbered in one call")
	}
	read, err := log.Read(t.Context(), events-1, 2)
	if err != nil || len(read) != 1 {
		t.Errorf("%d events at the end, %v", len(read), err)
	}
}

func exec(t *testing.T, db interface {
	Exec(query string, args ...any) (sql.Result, error)
}, text string, args ...any,
) {
	t.Helper()
	if _, err := db.Exec(text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// blocksRead returns how many blocks of the outbox and of the head are read by do, on a
// pool of one connection.
func blocksRead(t *testing.T, db *sql.DB, do func()) int64 {
	t.Helper()
	count := func() int64 {
		exec(t, db, "SELECT pg_stat_force_next_flush()")
		return query(t, db, `SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)
			FROM pg_statio_user_tables WHERE relname IN ('tidings_outbox', 'tidings_head')`)
	}
	before := count()
	do()
	return count() - before
}

// Events that keep coming, here one with each move, do not keep those that were
// numbered from being read.
func TestAdvanceEndsWhileEventsCome(t *testing.T) {
	t.Parallel()
	log, db := openURL(t, testdb.Postgres(t))
	exec(t, db, `CREATE FUNCTION tidings.another() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF new.seq > old.seq THEN
				INSERT INTO tidings.tidings_outbox (`+sqllog.EventColumns+`)
				SELECT gen_random_uuid(), `+strings.TrimPrefix(sqllog.EventColumns, "id, ")+
		` FROM tidings.tidings_events LIMIT 1;
			END IF;
			RETURN NULL;
		END $$`)
	fill(t, db, 1)
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "CREATE TRIGGER another AFTER UPDATE ON tidings.tidings_head FOR EACH ROW EXECUTE FUNCTION "+
		"tidings.another()")
	fill(t, db, 1)
	ctx, cancel := context.WithTimeout(t.Context(), testtool.Allow(5*time.Second))
	defer cancel()
	if head, err := log.Advance(ctx); err != nil || head < 2 {
		t.Errorf("head = %d, %v", head, err)
	}
}

// A large number of events is numbered in batches, and keeps the order of each resource while
// transactions with lower positions commit in between.
func TestOrderWhileABacklogIsNumbered(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	const late = 20
	var open []*sql.Tx
	for i := range late {
		open = append(open, begin(t, db, sql.LevelReadCommitted))
		if err := log.Append(t.Context(), open[i], eventlogtest.Sample(i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		fill(t, db, 3000)
	}
	done := make(chan error, 1)
	go func() {
		_, err := log.Advance(context.Background())
		done <- err
	}()
	for i, tx := range open { // the next change of the resource waits for this commit
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := appendIn(t, log, db, eventlogtest.Sample(i, 2)).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	head, err := log.Advance(t.Context())
	if err != nil || head != 30_000+2*late {
		t.Fatalf("head = %d, %v", head, err)
	}
	events, err := log.Read(t.Context(), 0, int(head))
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]int64)
	for _, e := range events {
		if !strings.HasPrefix(e.ID, "evt-") {
			continue
		}
		if e.ResourceVersion != versions[e.ResourceID]+1 {
			t.Errorf("resource %s: version %d after %d", e.ResourceID, e.ResourceVersion, versions[e.ResourceID])
		}
		versions[e.ResourceID] = e.ResourceVersion
	}
	if len(versions) != late {
		t.Errorf("%d resources, want %d", len(versions), late)
	}
}

// Whatever isolation the application's transactions have, and whenever they began,
// their events are numbered.
func TestIsolationOfApplications(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	var want int64
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		for _, savepoint := range []bool{false, true} {
			tx := begin(t, db, level)
			query(t, tx, "SELECT 1")
			fill(t, db, 10)
			want += 11
			if head, err := log.Advance(t.Context()); err != nil || head != want-1 {
				t.Fatalf("head = %d, %v; want %d", head, err, want-1)
			}
			if savepoint {
				exec(t, tx, "SAVEPOINT s")
			}
			if err := log.Append(t.Context(), tx, eventlogtest.Sample(1, 1)); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if head, err := log.Advance(t.Context()); err != nil || head != want {
				t.Fatalf("%v: head = %d, %v; want %d", level, head, err, want)
			}
		}
	}
}

// Events that a server of an earlier version writes and numbers alongside newer
// ones are neither lost nor numbered twice.
func TestOutboxOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	for round := range int64(3) {
		fill(t, db, 5)
		exec(t, db, `WITH moved AS (
				DELETE FROM tidings.tidings_outbox WHERE position IN (SELECT position FROM tidings.tidings_outbox
					ORDER BY position LIMIT 3) RETURNING *
			), numbered AS (
				INSERT INTO tidings.tidings_events (seq, id, resource_type, action, resource_id, resource_url,
					user_id, at, resource_version, owner_id, trace, logged_at)
				SELECT (SELECT seq FROM tidings.tidings_head) + row_number() OVER (ORDER BY position), id,
					resource_type, action, resource_id, resource_url,
					user_id, at, resource_version, owner_id, trace, 1 FROM moved RETURNING 1
			) UPDATE tidings.tidings_head SET seq = seq + (SELECT count(*) FROM numbered)`)
		if head, err := log.Advance(t.Context()); err != nil || head != 5*(round+1) {
			t.Fatalf("head = %d, %v; want %d", head, err, 5*(round+1))
		}
	}
}

// A dump restored elsewhere contains transaction ids of another database system.
func TestDumpRestoredElsewhere(t *testing.T) {
	t.Parallel()
	for _, ids := range []string{"5", "pg_current_xact_id()::text::bigint + 1000000"} {
		log, db := open(t)
		fill(t, db, 3)
		exec(t, db, "UPDATE tidings.tidings_outbox SET xid = "+ids)
		exec(t, db, `UPDATE tidings.tidings_head SET system = 'another', seen = format('%1$s:%1$s:', `+
			`pg_current_xact_id()::text::bigint + 500000)`)
		if head, err := log.Advance(t.Context()); err != nil || head != 3 {
			t.Errorf("head = %d, %v; want 3", head, err)
		}
		fill(t, db, 2)
		if head, err := log.Advance(t.Context()); err != nil || head != 5 {
			t.Errorf("head = %d, %v; want 5", head, err)
		}
	}
}

// A log that went back, as after a failover that lost its end, is read from its new
// head.
func TestHeadThatWentBack(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	fill(t, db, 5)
	if head, err := log.Advance(t.Context()); err != nil || head != 5 {
		t.Fatalf("head = %d, %v", head, err)
	}
	exec(t, db, "UPDATE tidings.tidings_head SET seq = 2")
	exec(t, db, "DELETE FROM tidings.tidings_events WHERE seq > 2")
	if head, err := log.Advance(t.Context()); err != nil || head != 2 {
		t.Errorf("head = %d, %v; want 2", head, err)
	}
	fill(t, db, 1)
	if head, err := log.Advance(t.Context()); err != nil || head != 3 {
		t.Errorf("head = %d, %v; want 3", head, err)
	}
}

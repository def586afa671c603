package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testtool"
)

const partitionCount = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tidings.tidings_events'::regclass"

// Locks held by VACUUM, ANALYZE and CREATE INDEX prevent a partition from being
// added, but not events from being numbered while the current one suffices.
func TestMaintenanceDoesNotStopNumbering(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	if err := log.EnsurePartitions(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	before := query(t, db, partitionCount)
	maintenance := begin(t, db, sql.LevelReadCommitted)
	exec(t, maintenance, "LOCK TABLE tidings.tidings_events, tidings.tidings_history IN SHARE UPDATE EXCLUSIVE MODE")
	wider := postgres.New(db, postgres.Options{PartitionWidth: 24 * time.Hour}) // it wants to add one
	begun := time.Now()
	for n := range int64(3) {
		fill(t, db, 1)
		if head, err := wider.Advance(t.Context()); err != nil || head != n+1 {
			t.Fatalf("head = %d, %v; want %d", head, err, n+1)
		}
	}
	took := time.Since(begun)
	t.Logf("three events were numbered in %s", took)
	if took > testtool.Allow(2*time.Second) {
		t.Errorf("numbering took %s", took)
	}
	if err := maintenance.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.New(db, postgres.Options{PartitionWidth: 24 * time.Hour}).Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, db, 1)
	if _, err := postgres.New(db, postgres.Options{PartitionWidth: 24 * time.Hour}).Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := query(t, db, partitionCount); now != before+1 {
		t.Errorf("%d partitions, then %d; want one more", before, now)
	}
}

// A transaction that reads the log keeps a partition from being dropped but does
// not block other readers; the interrupted drop is finished once it has ended.
func TestDropBlocksNobody(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	fill(t, db, 1)
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader := begin(t, db, sql.LevelRepeatableRead)
	query(t, reader, "SELECT count(*) FROM tidings.tidings_events")
	if err := log.EnsurePartitions(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	ended := time.Now().Add(2 * width)
	dropped := make(chan error, 1)
	go func() {
		<-time.After(time.Until(ended))
		_, err := log.ExpireEvents(context.Background(), 0)
		dropped <- err
	}()
	var err error
	for waiting := true; waiting; {
		limited, cancel := context.WithTimeout(t.Context(), testtool.Allow(2*time.Second))
		if _, err := log.Read(limited, 0, 10); err != nil {
			t.Errorf("reading beside it: %v", err)
		}
		fill(t, db, 1)
		if _, err := log.Advance(limited); err != nil {
			t.Errorf("numbering beside it: %v", err)
		}
		cancel()
		select {
		case err = <-dropped:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err == nil {
		t.Error("the partition was dropped although a transaction reads it")
	}
	if n := query(t, reader, "SELECT count(*) FROM tidings.tidings_events"); n != 1 {
		t.Errorf("the reader sees %d events, want 1", n)
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.ExpireEvents(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	const left = "SELECT count(*) FROM pg_class WHERE relname ~ '^tidings_events_[0-9]+_[0-9]+$' AND relkind = 'r'"
	if tables, partitions := query(t, db, left), query(t, db, partitionCount); tables != partitions {
		t.Errorf("%d tables, of which %d are partitions", tables, partitions)
	}
	if oldest, err := log.Oldest(t.Context()); err != nil || oldest == 1 {
		t.Errorf("oldest = %d, %v", oldest, err)
	}
}

// If the clock was set forward, nothing expires until it is set back or the
// retention has passed.
func TestClockSetForward(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	fill(t, db, 1)
	expireAll(t, log)
	fill(t, db, 1)
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "UPDATE tidings.tidings_expiry SET run_at = run_at - $1::bigint", (30 * 24 * time.Hour).Microseconds())
	const keep = 2 * time.Second
	for range 2 {
		_, err := log.ExpireEvents(t.Context(), keep)
		if clock, ok := errors.AsType[*eventlog.ClockError](err); !ok || clock.Jump < 29*24*time.Hour {
			t.Errorf("error = %v, want one about the clock", err)
		}
		if oldest, err := log.Oldest(t.Context()); err != nil || oldest != 2 {
			t.Errorf("oldest = %d, %v; want 2", oldest, err)
		}
	}
	exec(t, db, "UPDATE tidings.tidings_expiry SET run_at = run_at + $1::bigint, jumped_at = jumped_at + $1::bigint",
		(30 * 24 * time.Hour).Microseconds())
	if _, err := log.ExpireEvents(t.Context(), keep); err != nil {
		t.Errorf("the clock was set back: %v", err)
	}
}

// Partitions and times from a clock that was years ahead are corrected.
func TestPartitionsOfTheFuture(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	fill(t, db, 2)
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	future := time.Now().AddDate(3, 0, 0)
	for _, at := range []time.Time{future, future.AddDate(0, 0, 1)} {
		if err := log.EnsurePartitions(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, db, `INSERT INTO tidings.tidings_events SELECT seq + 2, 'late' || id, resource_type, action,
		resource_id, resource_url, user_id, at,
		resource_version, owner_id, trace, $1 FROM tidings.tidings_events`, future.UnixMicro())
	exec(t, db, "UPDATE tidings.tidings_head SET seq = 4")
	x, err := log.ExpireEvents(t.Context(), time.Hour)
	if err != nil || len(x.Notices) == 0 {
		t.Fatalf("%+v, %v; want a notice of what was wrong", x, err)
	}
	if events, err := log.Read(t.Context(), 0, 10); err != nil || len(events) != 4 {
		t.Errorf("%d events, %v; want 4", len(events), err)
	}
	limit := time.Now().Add(4 * 24 * time.Hour).UnixMicro()
	if n := query(t, db,
		`SELECT count(*) FROM pg_class WHERE relname ~ '^tidings_events_[0-9]+_[0-9]+$' AND relkind = 'r'
		AND split_part(relname, '_', 4)::bigint > $1`, limit); n > 0 {
		t.Errorf("%d partitions are still those of the future", n)
	}
	fill(t, db, 1)
	if head, err := log.Advance(t.Context()); err != nil || head != 5 {
		t.Errorf("head = %d, %v; want 5", head, err)
	}
	expireAll(t, log)
	if x, err := log.ExpireEvents(t.Context(), time.Hour); err != nil || len(x.Notices) > 0 {
		t.Errorf("%+v, %v; want nothing more to correct", x, err)
	}
}

// The newest events expire although nothing was logged since, and although the next
// partition could not be added when they were logged.
func TestNewestEventsExpire(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	fill(t, db, 1)
	if _, err := log.Advance(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, db, `DO $$ DECLARE part regclass; used boolean; BEGIN
		FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'tidings.tidings_events'::regclass LOOP
			EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part) INTO used;
			IF NOT used THEN EXECUTE format('DROP TABLE %s', part); END IF;
		END LOOP; END $$`)
	if n := query(t, db, partitionCount); n != 1 {
		t.Fatalf("%d partitions, want the one with the event", n)
	}
	expireAll(t, log)
}

// A clock that goes back before all partitions still finds one.
func TestClockBeforeAllPartitions(t *testing.T) {
	t.Parallel()
	log, db := open(t)
	fill(t, db, 1)
	expireAll(t, log) // the first partition contained all of the past
	past := time.Now().AddDate(0, 0, -10)
	if err := log.EnsurePartitions(t.Context(), past); err != nil {
		t.Fatal(err)
	}
	e := eventlogtest.Sample(1, 1)
	exec(t, db, `INSERT INTO tidings.tidings_events (seq, id, resource_type, action, resource_id, resource_url,
		user_id, at, resource_version, logged_at)
		VALUES (2, 'id', 'provider', 'created', $1, '/p', 'u', 1, 1, $2)`, e.ResourceID, past.UnixMicro())
	if err := log.EnsurePartitions(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

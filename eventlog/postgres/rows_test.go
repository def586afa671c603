package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// What operators look up reads few rows of a log and a history that have many.
func TestReadsFewRows(t *testing.T) {
	t.Parallel()
	const events, blocks = 20_000, 3000
	url := testdb.Postgres(t)
	log, db := openURL(t, url)
	if err := log.EnsurePartitions(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	fill(t, db, events)
	if head, err := log.Advance(t.Context()); err != nil || head != events {
		t.Fatalf("head = %d, %v", head, err)
	}
	var history []*eventlog.HistoryBlock
	for i := range int64(blocks) {
		b := &eventlog.HistoryBlock{Endpoint: []string{"failing", "steady"}[i%2]}
		for sequence := i*400 + 1; sequence <= (i+1)*400; sequence += 399 {
			r := eventlog.Record{
				Endpoint: b.Endpoint, At: time.Now(), Sequence: sequence, EventID: "id", Event: "provider.created",
				Resource: "provider/x", Outcome: "delivered",
			}
			if b.Endpoint == "failing" {
				r.Outcome = "refused"
			}
			b.Add(r)
		}
		history = append(history, b)
	}
	if err := log.AppendHistory(t.Context(), history); err != nil {
		t.Fatal(err)
	}
	var ranges []eventlog.Range
	var positions []int64
	for i := range int64(60) {
		ranges = append(ranges, eventlog.Range{From: i*10 + 1, To: i*10 + 5})
		positions = append(positions, i*100)
	}
	_, err := db.ExecContext(t.Context(), `INSERT INTO tidings.tidings_retries (endpoint, seq, id, resource_type, action,
			resource_id, resource_url, user_id, at, resource_version, attempts, first_at, next_at, dead_at, reason)
		SELECT 'failing', seq, id, resource_type, action, resource_id, resource_url, user_id, at, resource_version, 1, 1,
			CASE WHEN seq % 2000 = 0 THEN at ELSE 0 END, CASE WHEN seq <= 20 THEN at ELSE 0 END, 'status'
		FROM tidings.tidings_events`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "VACUUM (ANALYZE)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // sessions tell what they have read when they end
		t.Fatal(err)
	}
	read := func(f eventlog.HistoryFilter) func(context.Context, eventlog.Home) error {
		return func(ctx context.Context, log eventlog.Home) error {
			f.Limit = 1
			_, _, err := log.ReadHistory(ctx, f)
			return err
		}
	}
	for name, tt := range map[string]struct {
		do   func(context.Context, eventlog.Home) error
		most int64
	}{
		"attempts of an old event":      {read(eventlog.HistoryFilter{Sequence: 700}), 60},
		"attempts of a new event":       {read(eventlog.HistoryFilter{Sequence: blocks*400 - 300}), 60},
		"attempts of an unknown event":  {read(eventlog.HistoryFilter{Sequence: blocks * 500}), 60},
		"failures of a steady endpoint": {read(eventlog.HistoryFilter{Endpoint: "steady", Failures: true}), 10},
		"failures of all, oldest first": {read(eventlog.HistoryFilter{Failures: true, Before: 2}), 10},
		"attempts after the newest partition": {
			read(eventlog.HistoryFilter{Since: time.Now().Add(72 * time.Hour)}), 10,
		},
		"parked events that are due": {func(ctx context.Context, log eventlog.Home) error {
			_, _, err := log.Due(ctx, eventlog.Partition{Endpoint: "failing"}, time.UnixMicro(1), 50)
			return err
		}, 50},
		"dead letters": {func(ctx context.Context, log eventlog.Home) error {
			_, err := log.Parked(ctx, eventlog.ParkedFilter{Dead: true, Limit: 50})
			return err
		}, 50},
		"the number of dead letters": {func(ctx context.Context, log eventlog.Home) error {
			_, err := log.CountParked(ctx, eventlog.ParkedFilter{Dead: true})
			return err
		}, 50},
		"a read of the log": {func(ctx context.Context, log eventlog.Home) error {
			_, err := log.Read(ctx, events/2, 500)
			return err
		}, 1100},
		"the newest events": {func(ctx context.Context, log eventlog.Home) error {
			_, err := log.Search(ctx, eventlog.EventFilter{To: events}, 50)
			return err
		}, 150},
		"the newest attempts": {read(eventlog.HistoryFilter{}), 10},
		"what is settled, of few events": {func(ctx context.Context, log eventlog.Home) error {
			return log.Settled(ctx, "steady", 100, 900, func(int64) {})
		}, 200},
		"numbers of events in ranges": {func(ctx context.Context, log eventlog.Home) error {
			n, err := log.Count(ctx, eventlog.EventFilter{}, ranges)
			if err == nil && n != (eventlog.Count{Events: 300, First: 1, Last: 595}) {
				err = fmt.Errorf("counted %+v", n)
			}
			return err
		}, 1000},
		"events after positions": {func(ctx context.Context, log eventlog.Home) error {
			found, err := log.Following(ctx, positions)
			if err == nil && len(found) != len(positions) {
				err = fmt.Errorf("found %d", len(found))
			}
			return err
		}, 200},
	} {
		for _, mode := range []string{"auto", "force_generic_plan"} { // the latter is the server's
			t.Run(name+" "+mode, func(t *testing.T) {
				before := rowsRead(t, url)
				pool, err := sql.Open("pgx", url+"&application_name=reader&plan_cache_mode="+mode)
				if err == nil {
					err = errors.Join(tt.do(t.Context(), postgres.New(pool, postgres.Options{})), pool.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
				if n := rowsRead(t, url) - before; n > tt.most {
					t.Errorf("read %d rows, want at most %d", n, tt.most)
				}
			})
		}
	}
}

// rowsRead returns how many rows, or entries of indexes, of the log, the history and the
// parked events all other sessions have read, once these have ended.
func rowsRead(t *testing.T, url string) int64 {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const sessions = `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`
	for deadline := time.Now().Add(20 * time.Second); query(t, db, sessions) > 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a session does not end")
		}
	}
	return query(t, db, `SELECT ((SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname ~ $1) +
		(SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname ~ $1))::bigint`,
		"^tidings_(events|history|retries)")
}

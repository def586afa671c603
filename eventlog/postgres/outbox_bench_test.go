package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// BenchmarkOutbox measures, with more and more events that were numbered while a
// transaction elsewhere keeps its snapshot, how long it takes to look for events
// where there are none, and to number one.
func BenchmarkOutbox(b *testing.B) {
	db, err := sql.Open("pgx", testdb.Postgres(b))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	log := postgres.New(db, postgres.Options{BoundedSessions: true})
	if err := log.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	reader, err := db.BeginTx(b.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	defer reader.Rollback()
	if _, err := reader.Exec("SELECT 1 FROM tidings.tidings_head"); err != nil {
		b.Fatal(err)
	}
	for round := range 4 {
		begun := time.Now()
		for range round * 500 {
			fill(b, db, 100)
			if _, err := log.Advance(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		head, err := log.Advance(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if round > 0 {
			b.ReportMetric(float64(round*50_000)/time.Since(begun).Seconds(), fmt.Sprintf("events/s-to-%d", head))
		}
		look := median(b, func(ctx context.Context) error { _, err := log.Advance(ctx); return err })
		b.ReportMetric(look.Seconds()*1000, fmt.Sprintf("ms/look-%d", head))
		one := median(b, func(ctx context.Context) error {
			fill(b, db, 1)
			_, err := log.Advance(ctx)
			return err
		})
		b.ReportMetric(one.Seconds()*1000, fmt.Sprintf("ms/event-%d", head))
	}
	b.ReportMetric(0, "ns/op")
}

// fill commits events in one transaction.
func fill(tb testing.TB, db interface {
	Exec(query string, args ...any) (sql.Result, error)
}, events int,
) {
	tb.Helper()
	e := eventlogtest.Sample(1, 1)
	_, err := db.Exec(`INSERT INTO tidings.tidings_outbox (id, resource_type, action, resource_id, resource_url,
		user_id, at, resource_version)
		SELECT gen_random_uuid(), $1, $2, $3, $4, $5, $6, 1 FROM generate_series(1, $7::bigint)`,
		string(e.Type), string(e.Action), e.ResourceID, e.ResourceURL, e.UserID, e.Time.UnixMicro(), events)
	if err != nil {
		tb.Fatal(err)
	}
}

func median(tb testing.TB, do func(context.Context) error) time.Duration {
	tb.Helper()
	var times []time.Duration
	for range 15 {
		begun := time.Now()
		if err := do(tb.Context()); err != nil {
			tb.Fatal(err)
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

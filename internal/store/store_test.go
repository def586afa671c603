package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// cursor stands in for a resource: a table that every log has.
type cursor struct {
	bun.BaseModel `bun:"table:tidings_cursors"`

	Endpoint   string `bun:",pk"`
	Part       int64
	Parts      int64
	Seq        int64
	Owner      string
	Generation int64
	Status     string
	SavedAt    int64
}

func event(a tidings.Action) tidings.Event {
	return tidings.Event{Type: "provider", Action: a, ResourceID: "p", ResourceURL: "/p", ResourceVersion: 1}
}

func TestStore(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (*store.Store, error){
		"SQLite": func(t *testing.T) (*store.Store, error) { return store.OpenSQLite(t.TempDir()) },
		"PostgreSQL": func(t *testing.T) (*store.Store, error) {
			return store.OpenPostgres(testdb.Postgres(t), store.PostgresOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			for _, want := range []bool{true, false} { // a second time changes nothing
				if pending, err := s.Pending(t.Context()); err != nil || pending != want {
					t.Fatalf("pending = %v, %v; want %v", pending, err, want)
				}
				if err := s.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			testTransactions(t, s)
			testReads(t, s)
			testRows(t, s)
			testListStops(t, s)
			testReady(t, s)
		})
	}
}

// Requests that use all their connections do not make the server unready.
func testReady(t *testing.T, s *store.Store) {
	release := s.TakeReaders(t)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), testtool.Allow(10*time.Second))
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Errorf("ready: %v", err)
	}
}

// Replicas that start concurrently migrate the database once.
func TestMigrateTogether(t *testing.T) {
	url := testdb.Postgres(t)
	const replicas = 5
	migrated := make(chan error, replicas)
	for range replicas {
		s, err := store.OpenPostgres(url, store.PostgresOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		go func() { migrated <- s.Migrate(t.Context()) }()
	}
	for range replicas {
		if err := <-migrated; err != nil {
			t.Error(err)
		}
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, table := range []string{"tidings_version", "tidings_log_version"} {
		var rows, versions int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*), count(DISTINCT version_id) FROM tidings."+
			table).Scan(&rows, &versions); err != nil {
			t.Fatal(err)
		}
		if rows != versions || rows < 2 {
			t.Errorf("%s: %d rows, %d versions", table, rows, versions)
		}
	}
}

// Every session starts with the same settings, even behind a pooler without
// sessions: the database's defaults do not matter, and parameters in the URL
// take precedence.
func TestSessionsStartTheSame(t *testing.T) {
	url := testdb.WithDefaults(t, map[string]string{
		"statement_timeout": "'1h'", "lock_timeout": "'1h'", "idle_in_transaction_session_timeout": "'1h'",
		"session_replication_role": "replica", "DateStyle": "SQL, DMY", "TimeZone": "'Asia/Tokyo'",
		"standard_conforming_strings": "off", "default_transaction_isolation": "serializable",
	})
	for name, pollOnly := range map[string]bool{"sessions": false, "transactions only": true} {
		for parameter, want := range map[string]string{
			"": "90s", "&idle_in_transaction_session_timeout=7s&timezone=Asia/Tokyo": "7s",
		} {
			t.Run(name+parameter, func(t *testing.T) {
				s, err := store.OpenPostgres(url+parameter, store.PostgresOptions{PollOnly: pollOnly})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				err = s.InTx(t.Context(), func(tx *store.Tx) error {
					for name, want := range map[string]string{
						"idle_in_transaction_session_timeout": want, "statement_timeout": "2min", "lock_timeout": "20s",
						"session_replication_role": "origin", "DateStyle": "ISO, MDY", "TimeZone": "UTC",
						"client_encoding":             "UTF8",
						"standard_conforming_strings": "on", "transaction_isolation": "read committed",
						"transaction_read_only": "off", "jit": "off", "plan_cache_mode": "force_generic_plan",
					} {
						if got, err := tx.Setting(t.Context(), name); err != nil || got != want {
							t.Errorf("%s = %q, %v; want %q", name, got, err, want)
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func testTransactions(t *testing.T, s *store.Store) {
	ctx := t.Context()
	veto := errors.New("veto")
	steps := []struct {
		name   string
		do     func(*store.Tx) error
		err    error
		events int64 // in the log afterwards
	}{
		{
			"insert", func(tx *store.Tx) error { return tx.Insert(ctx, &cursor{Endpoint: "a"}, event(tidings.Created)) },
			nil, 1,
		},
		{"rolled back", func(tx *store.Tx) error {
			return errors.Join(veto, tx.Update(ctx, &cursor{Endpoint: "a", Seq: 9}, event(tidings.Updated)))
		}, veto, 1},
		{"update of nothing", func(tx *store.Tx) error {
			return tx.Update(ctx, &cursor{Endpoint: "b"}, event(tidings.Updated))
		}, store.ErrNotFound, 1},
		{"update and delete", func(tx *store.Tx) error {
			return errors.Join(
				tx.Update(ctx, &cursor{Endpoint: "a", Seq: 1}, event(tidings.Updated)),
				tx.Delete(ctx, &cursor{Endpoint: "a"}, event(tidings.Deleted)))
		}, nil, 3},
		{"delete of nothing", func(tx *store.Tx) error {
			return tx.Delete(ctx, &cursor{Endpoint: "a"}, event(tidings.Deleted))
		}, store.ErrNotFound, 3},
	}
	for _, step := range steps {
		if err := s.InTx(ctx, step.do); !errors.Is(err, step.err) {
			t.Fatalf("%s: error = %v, want %v", step.name, err, step.err)
		}
		if head, err := s.Log().Advance(ctx); err != nil || head != step.events {
			t.Fatalf("%s: %d events, %v; want %d", step.name, head, err, step.events)
		}
	}
	events, err := s.Log().Read(ctx, 1, 10)
	if err != nil || len(events) != 2 || !events[0].Time.Equal(events[1].Time) || events[1].Action != tidings.Deleted {
		t.Errorf("events = %+v, %v; want an update and a deletion at the same time", events, err)
	}
}

// An application's own URL is used unchanged.
func TestOpenSQLAlchemyURL(t *testing.T) {
	s, err := store.OpenPostgres(strings.Replace(testdb.Postgres(t), "://", "+asyncpg://", 1), store.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
}

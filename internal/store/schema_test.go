package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// server is a database that a test inspects.
type server struct {
	*testing.T
	*sql.DB
	url string
}

func newServer(t *testing.T) *server {
	t.Helper()
	url := testdb.Postgres(t)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &server{t, db, url}
}

func (s *server) exec(statements ...string) {
	s.Helper()
	for _, statement := range statements {
		if _, err := s.ExecContext(s.Context(), statement); err != nil {
			s.Fatalf("%s: %v", statement, err)
		}
	}
}

func (s *server) strings(query string) (all []string) {
	s.Helper()
	rows, err := s.QueryContext(s.Context(), query)
	if err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			s.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// relations returns the tables, sequences and indexes in all schemas except
// PostgreSQL's own.
func (s *server) relations() []string {
	s.Helper()
	return s.strings(`SELECT nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE nspname !~ '^(pg_|information_schema)' ORDER BY 1`)
}

// rows returns all rows in the tables of a schema, each with its table.
func (s *server) rows(schema string) (rows []string) {
	s.Helper()
	for _, table := range s.strings("SELECT tablename FROM pg_tables WHERE schemaname = '" + schema + "' ORDER BY 1") {
		if !strings.HasSuffix(table, "_version") {
			rows = append(rows,
				s.strings(fmt.Sprintf("SELECT '%[2]s ' || r::text FROM ONLY %[1]s.%[2]s r ORDER BY 1", schema,
					table))...)
		}
	}
	return rows
}

// open opens a store in a schema; search is the search_path of its connections.
func (s *server) open(schema, search string) *store.Store {
	s.Helper()
	opened, err := store.OpenPostgres(s.url+"&search_path="+search, store.PostgresOptions{Schema: schema})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { opened.Close() })
	return opened
}

func (s *server) migrated(schema, search string) *store.Store {
	s.Helper()
	opened := s.open(schema, search)
	if err := opened.Migrate(s.Context()); err != nil {
		s.Fatal(err)
	}
	return opened
}

// startEarlier does what the last version without schemas did on startup.
func (s *server) startEarlier(search string) {
	s.Helper()
	db, err := sql.Open("pgx", s.url+"&search_path="+search)
	if err != nil {
		s.Fatal(err)
	}
	defer db.Close()
	for _, list := range []struct {
		table, folder string
		version       int64
	}{{"tidings_log_version", "../../eventlog/postgres/migrations", 2}, {"tidings_version", "migrations/postgres", 1}} {
		provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS(list.folder),
			goose.WithTableName(list.table))
		if err != nil {
			s.Fatal(err)
		}
		if _, err := provider.UpTo(s.Context(), list.version); err != nil {
			s.Fatal(err)
		}
	}
}

const ann = "00000000-0000-4000-8000-000000000001"

// fillEarlier adds rows to the tables of an earlier version.
func (s *server) fillEarlier(schema string) {
	s.Helper()
	const event = "'evt', 'context', 'created', 'c', '/c', 'u', 1700000000000000, 1"
	s.exec("SET search_path TO "+schema,
		"INSERT INTO users (id, version, created_at, updated_at, email, role) VALUES ('"+ann+
			"', 1, now(), now(), 'ann@example.com', 'admin')",
		"INSERT INTO contexts VALUES (gen_random_uuid(), 1, now(), now(), '"+ann+"', NULL, '{}', now(), 0)",
		"INSERT INTO tidings_outbox (id, resource_type, action, resource_id, resource_url, user_id, at, "+
			"resource_version) VALUES ("+event+")",
		"INSERT INTO tidings_events_0_"+
			s.strings("SELECT substring(relname from 18) FROM pg_class WHERE relname ~ '^tidings_events_0_[0-9]+$'")[0]+
			" (seq, id, resource_type, action, resource_id, resource_url, user_id, at, resource_version, logged_at) "+
			"VALUES (1, "+event+", 1)",
		"UPDATE tidings_head SET seq = 1",
		"INSERT INTO tidings_cursors (endpoint, seq, saved_at) VALUES ('crm', 1, 1)",
		"INSERT INTO tidings_history (endpoint, first_at, last_at, lowest, highest, records, failures, records_text, "+
			"written_at) VALUES ('crm', 1, 1, 1, 1, 1, 0, '', 1)",
		"SET search_path TO app")
}

// All rows that an earlier version stored according to the search_path move to
// the schema. If the earlier version is started again, it finds nothing that it
// could start over with.
func TestTablesOfAnEarlierVersionMove(t *testing.T) {
	for _, earlier := range []string{"public", "app"} {
		t.Run(earlier, func(t *testing.T) {
			s := newServer(t)
			s.SetMaxOpenConns(1)
			s.startEarlier(earlier)
			s.fillEarlier(earlier)
			before := s.rows(earlier)
			if len(before) < 8 {
				t.Fatalf("the earlier version left only %q", before)
			}
			opened := s.open("", earlier)
			if pending, err := opened.Pending(t.Context()); err != nil || !pending {
				t.Errorf("pending = %v, %v", pending, err)
			}
			if diff := cmp.Diff(before, s.rows(earlier)); diff != "" {
				t.Errorf("a check changed something (-before +after):\n%s", diff)
			}
			if err := opened.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			after := s.rows("tidings")
			for _, row := range before {
				begins := func(now string) bool {
					return strings.HasPrefix(now,
						strings.TrimSuffix(row, ")"))
				} // columns may have been added
				if !slices.ContainsFunc(after, begins) {
					t.Errorf("lost %s", row)
				}
			}
			want := []string{
				earlier + ".tidings_log_version", earlier + ".tidings_log_version_id_seq",
				earlier + ".tidings_log_version_pkey",
				earlier + ".tidings_version", earlier + ".tidings_version_id_seq", earlier + ".tidings_version_pkey",
			}
			left := slices.DeleteFunc(s.relations(),
				func(name string) bool { return strings.HasPrefix(name, "tidings.") })
			if diff := cmp.Diff(want, left); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
			if head, err := opened.Log().Advance(t.Context()); err != nil || head != 2 {
				t.Errorf("head = %d, %v; want the event in the outbox to have the next number", head, err)
			}
			row := &user{ID: ann}
			if err := opened.Get(t.Context(), row); err != nil || row.Email != "ann@example.com" {
				t.Errorf("user = %+v, %v", row, err)
			}

			relations := s.relations()
			s.startEarlier(earlier)
			if err := opened.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(relations, s.relations()); diff != "" {
				t.Errorf("what the earlier version did when restarted (-before +after):\n%s", diff)
			}
		})
	}
}

// An unsuitable database is refused before anything is created in it, with an
// error that names the setting.
func TestSchemaRefused(t *testing.T) {
	const setting = "with database_schema (in Go: Options.Schema of package postgres)"
	for _, test := range []struct {
		name, schema string
		prepare      func(*server)
		want         string
	}{
		{"foreign tables", "", func(s *server) {
			s.exec("CREATE SCHEMA tidings", "CREATE TABLE tidings.users (name text)",
				"CREATE TABLE tidings.orders (id int)", "CREATE TABLE tidings.files (id int)")
		}, "schema tidings of the database contains objects of another program with names that Tidings needs: " +
			"files, users; choose another schema " + setting},
		{"a foreign index", "app", func(s *server) {
			s.exec("CREATE TABLE app.other (n int)", "CREATE INDEX contexts_last_active ON app.other (n)")
		}, "names that Tidings needs: contexts_last_active; choose"},
		{
			"a foreign type", "app", func(s *server) { s.exec("CREATE TYPE app.contexts AS ENUM ('a')") },
			"names that Tidings needs: contexts; choose",
		},
		{
			"a foreign table that only the log has", "app",
			func(s *server) { s.exec("CREATE TABLE app.tidings_gaps (n int)") }, "that Tidings needs: tidings_gaps; choose",
		},
		{"tables of an earlier version elsewhere", "webhooks", func(s *server) {
			s.startEarlier("public")
			s.fillEarlier("public")
		}, "schema public of the database holds the tables of an earlier version of Tidings: choose schema public to " +
			"keep them there, or none to have them moved to schema tidings, " + setting},
		{"foreign tables where those of an earlier version would go", "", func(s *server) {
			s.startEarlier("public")
			s.exec("CREATE SCHEMA tidings", "CREATE TABLE tidings.users (name text)")
		}, "names that Tidings needs: users; choose"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t)
			s.SetMaxOpenConns(1)
			test.prepare(s)
			before := s.relations()
			err := s.open(test.schema, "public").Migrate(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v\nwant %s", err, test.want)
			}
			if diff := cmp.Diff(before, s.relations()); diff != "" {
				t.Errorf("it changed something (-before +after):\n%s", diff)
			}
		})
	}
}

// A role that may not create schemas is told what to do; after that it works.
func TestSchemaWithoutTheRight(t *testing.T) {
	s := newServer(t)
	role := "guest_" + s.strings("SELECT current_database()")[0]
	s.exec("CREATE ROLE "+role+" LOGIN", "REVOKE ALL ON DATABASE "+s.strings("SELECT current_database()")[0]+
		" FROM public",
		"GRANT CONNECT ON DATABASE "+s.strings("SELECT current_database()")[0]+" TO "+role)
	s.url = strings.Replace(s.url, "tidings@", role+"@", 1)
	want := `let the owner of the database run 'CREATE SCHEMA "tidings" AUTHORIZATION ` + role +
		`', or choose a schema that exists with database_schema`
	if err := s.open("", "public").Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want %s", err, want)
	}
	s.exec(`CREATE SCHEMA "tidings" AUTHORIZATION ` + role)
	s.migrated("", "public")
}

// The schema with an earlier version's tables can be chosen explicitly; the
// tables then stay in it.
func TestEarlierSchemaChosen(t *testing.T) {
	s := newServer(t)
	s.SetMaxOpenConns(1)
	s.startEarlier("public")
	s.fillEarlier("public")
	opened := s.migrated("public", "public")
	if head, err := opened.Log().Advance(t.Context()); err != nil || head != 2 {
		t.Errorf("head = %d, %v; want 2", head, err)
	}
	if found := s.strings("SELECT nspname FROM pg_namespace WHERE nspname = 'tidings'"); found != nil {
		t.Error("a schema tidings was created as well")
	}
	// A second installation whose search_path leads to the first one's tables
	// leaves them alone.
	before := s.rows("public")
	other := s.migrated("", "public")
	testReads(t, other)
	if diff := cmp.Diff(before, s.rows("public")); diff != "" {
		t.Errorf("another installation changed the first one (-before +after):\n%s", diff)
	}
}

// Installations with different schemas in one database are isolated: they share
// no events, rows, notifications or locks.
func TestInstallationsInOneDatabase(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	names := []string{"app", "tidings", "Odd_Name", "user"}
	stores := make(map[string]*store.Store)
	for _, name := range names {
		stores[name] = s.open(name, "public")
	}
	// While one is being migrated, the others do not have to wait.
	held, err := s.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback()
	if _, err := held.ExecContext(ctx,
		`SELECT pg_advisory_xact_lock(hashtextextended('"app".migrate', 0)), `+
			`pg_advisory_xact_lock(hashtextextended('"app".tidings_events', 0))`); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, name := range names[1:] {
		if err := stores[name].Migrate(soon); err != nil {
			t.Fatal(err)
		}
		err := stores[name].InTx(soon, func(tx *store.Tx) error {
			return tx.Insert(soon, &cursor{Endpoint: name},
				tidings.Event{Type: "provider", Action: tidings.Created, ResourceID: name})
		})
		if err != nil {
			t.Fatal(err)
		}
		if head, err := stores[name].Log().Advance(soon); err != nil || head != 1 {
			t.Errorf("%s: head = %d, %v", name, head, err)
		}
	}
	if err := held.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := stores["app"].Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range names[1:] {
		if events, err := stores[name].Log().Read(ctx, 0, 10); err != nil || len(events) != 1 ||
			events[0].ResourceID != name {
			t.Errorf("%s: events = %v, %v", name, events, err)
		}
		if cursors, err := stores[name].Log().Cursors(ctx); err != nil || len(cursors) != 1 ||
			cursors[0].Endpoint != name {
			t.Errorf("%s: cursors = %v, %v", name, cursors, err)
		}
	}
	if found := s.strings("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"); found != nil {
		t.Errorf("public holds %v", found)
	}
	s.checkNotifications(stores, "Odd_Name")
}

// checkNotifications checks that each store receives only its own
// notifications.
func (s *server) checkNotifications(stores map[string]*store.Store, name string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{name}.Sanitize()); err != nil {
		s.Fatal(err)
	}
	for _, each := range stores {
		if err := each.Log().Nudge(ctx); err != nil {
			s.Fatal(err)
		}
	}
	if _, err := conn.Exec(ctx, "SELECT pg_notify($1, 'end')", name); err != nil {
		s.Fatal(err)
	}
	var got []string
	for !slices.Contains(got, "end") {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, n.Payload)
	}
	if diff := cmp.Diff([]string{"changes", "end"}, got); diff != "" {
		s.Errorf("notifications of %s (-want +got):\n%s", name, diff)
	}
}

package capture_test

import (
	"context"
	"crypto/md5"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// Each of statements runs in its own transaction; want are the resulting events.
var statements = []struct {
	what, want string
	statements []string
}{
	{"insert", "created 1@ann", []string{"INSERT INTO public.orders VALUES (1, 'new', 1, 'ann', '{\"a\":1}')"}},
	{"several rows", "created 2, created 3", []string{"INSERT INTO public.orders (id) VALUES (2), (3)"}},
	{"update", "updated 1@ann", []string{"UPDATE public.orders SET status = 'paid' WHERE id = 1"}},
	{"ignored column", "", []string{"UPDATE public.orders SET updated_at = now() + interval '1 s'"}},
	{"same values", "", []string{"UPDATE public.orders SET status = status, total = total, data = data"}},
	{"same JSON", "", []string{"UPDATE public.orders SET data = '{ \"a\": 1 }' WHERE id = 1"}},
	{"other JSON", "updated 1@ann", []string{"UPDATE public.orders SET data = '{\"a\": 2}' WHERE id = 1"}},
	{"JSON that jsonb refuses", "updated 1@ann", []string{`UPDATE public.orders SET data = '{"a": "\u0000"}' ` +
		`WHERE id = 1`}},
	{"more of it", "updated 1@ann", []string{`UPDATE public.orders SET data = '{"a": "\u0000", "b": ` +
		`1e999999}' WHERE id = 1`}},
	{"null", "updated 2", []string{"UPDATE public.orders SET status = '' WHERE id = 2"}},
	{"upsert of a row", "updated 1@ann", []string{"INSERT INTO public.orders (id) VALUES (1) ON CONFLICT " +
		"(id) DO UPDATE SET status = 'sent'"}},
	{"upsert without one", "created 4", []string{"INSERT INTO public.orders (id) VALUES (4) ON CONFLICT (id) " +
		"DO UPDATE SET status = 'sent'"}},
	{"upsert of nothing", "", []string{"INSERT INTO public.orders (id) VALUES (4) ON CONFLICT DO NOTHING"}},
	{"merge", "created 5, deleted 3, updated 4", []string{`
			MERGE INTO public.orders o USING (VALUES (4, 'x'), (3, 'delete'), (5, 'y')) v (id, s)
			ON v.id = o.id
			WHEN MATCHED AND s = 'delete' THEN DELETE WHEN MATCHED THEN UPDATE SET status = s
			WHEN NOT MATCHED THEN INSERT (id, status) VALUES (v.id, s)`}},
	{"changed key", "created 6, deleted 5", []string{"UPDATE public.orders SET id = 6 WHERE id = 5"}},
	{"swapped keys", "deleted 4, created 104, deleted 6, created 4, deleted 104, created 6", []string{
		"UPDATE public.orders SET id = 104 WHERE id = 4", "UPDATE public.orders SET id = 4 WHERE id = 6",
		"UPDATE public.orders SET id = 6 WHERE id = 104",
	}},
	{"several updates are one", "updated 1@ann", []string{
		"UPDATE public.orders SET status = 'a' WHERE id = 1",
		"UPDATE public.orders SET status = 'b' WHERE id = 1",
	}},
	{"created and updated", "created 7", []string{
		"INSERT INTO public.orders (id) VALUES (7)",
		"UPDATE public.orders SET status = 'b' WHERE id = 7",
	}},
	{"updated and deleted", "deleted 7", []string{
		"UPDATE public.orders SET status = 'c' WHERE id = 7",
		"DELETE FROM public.orders WHERE id = 7",
	}},
	{"created and deleted", "created 8, deleted 8", []string{
		"INSERT INTO public.orders (id) VALUES (8)",
		"DELETE FROM public.orders WHERE id = 8",
	}},
	{"deleted and created", "deleted 6, created 6", []string{
		"DELETE FROM public.orders WHERE id = 6",
		"INSERT INTO public.orders (id) VALUES (6)",
	}},
	{"savepoint", "created 10, created 12", []string{
		"INSERT INTO public.orders (id) VALUES (10)", "SAVEPOINT s", "INSERT INTO public.orders (id) VALUES (11)",
		"ROLLBACK TO s", "INSERT INTO public.orders (id) VALUES (12)",
	}},
	{"rollback", "", []string{"INSERT INTO public.orders (id) VALUES (13)", "ROLLBACK", "BEGIN"}},
	{"replica", "", []string{
		"SET LOCAL session_replication_role = replica",
		"INSERT INTO public.orders (id) VALUES (14)",
	}},
	{"user of the session", "updated 1@bob", []string{
		"SET LOCAL tidings.user_id = 'bob'",
		"UPDATE public.orders SET status = 'z' WHERE id = 1",
	}},
	{"the setting ends with the transaction", "updated 1@ann", []string{"UPDATE public.orders SET status = " +
		"'y' WHERE id = 1"}},
	{"common table expressions", "created 15, deleted 12", []string{"WITH gone AS (DELETE FROM public.orders " +
		"WHERE id = 12 RETURNING *) INSERT INTO public.orders (id) SELECT 15 FROM gone"}},
	{
		"delete of several", "deleted 1@ann, deleted 2, deleted 4",
		[]string{"DELETE FROM public.orders WHERE id < 5"},
	},
	{"truncate", "deleted 10, deleted 14, deleted 15, deleted 6", []string{"TRUNCATE public.orders"}},
	{"truncate of nothing", "", []string{"TRUNCATE public.orders"}},
}

// Each kind of statement creates exactly the events of its changes.
func TestStatements(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec(makeOrders)
	a.attach(orders)
	for _, c := range statements {
		a.inTx(c.statements...)
		if len(c.statements) == 1 { // rows are processed in physical order
			a.wantSorted(c.what, c.want)
		} else {
			a.wantTold(c.what, c.want)
		}
	}
	if found := a.findings(orders); found != "" {
		t.Errorf("Check: %s", found)
	}
}

// What a foreign key does to other tables is told in the order in which PostgreSQL does it:
// after the row that they refer to.
func TestCascades(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.owners (id int PRIMARY KEY)",
		"CREATE TABLE public.pets (id int PRIMARY KEY, owner int REFERENCES public.owners ON DELETE CASCADE "+
			"ON UPDATE CASCADE)",
		"CREATE TABLE public.toys (id int PRIMARY KEY, pet int REFERENCES public.pets ON DELETE SET NULL)")
	a.attach(capture.Table{Name: "owners", Type: "owner"}, capture.Table{Name: "pets", Type: "pet"},
		capture.Table{Name: "toys", Type: "toy"})
	a.exec("INSERT INTO public.owners VALUES (1)", "INSERT INTO public.pets VALUES (11, 1)",
		"INSERT INTO public.toys VALUES (111, 11)")
	a.told()
	a.exec("UPDATE public.owners SET id = 2")
	a.wantTold("ON UPDATE CASCADE", "deleted 1, created 2, updated 11")
	a.exec("DELETE FROM public.owners")
	a.wantTold("ON DELETE CASCADE and SET NULL", "deleted 2, deleted 11, updated 111")
}

// COPY is exact, and so is a statement of many rows.
func TestCopy(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec(makeOrders)
	a.attach(orders)
	conn, err := pgx.Connect(t.Context(), a.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n2\n3\n"),
		"COPY public.orders (id) FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	a.wantTold("COPY", "created 1, created 2, created 3")
	a.exec("INSERT INTO public.orders (id) SELECT n FROM generate_series(4, 5003) n")
	if n := len(a.events()); n != 5000 {
		t.Errorf("%d events of 5,000 rows", n)
	}
}

// Keys of every kind make valid ids and URLs.
func TestKeys(t *testing.T) {
	t.Parallel()
	a := openApp(t, testdb.WithDefaults(t, testdb.Hostile)+"&client_encoding=UTF8", capture.Options{})
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		columns, key, url, values string
		where                     []string
		wantID, wantURL           string
	}{
		{columns: "id int PRIMARY KEY", values: "1", wantID: "1", wantURL: "/thing/1"},
		{
			columns: "id uuid PRIMARY KEY", values: "'550E8400-E29B-41D4-A716-446655440000'",
			wantID: "550e8400-e29b-41d4-a716-446655440000", wantURL: "/thing/550e8400-e29b-41d4-a716-446655440000",
		},
		{
			columns: "id text PRIMARY KEY", values: "'a/b c?ä'", wantID: "a/b c?ä",
			wantURL: "/thing/a%2Fb%20c%3F%C3%A4",
		},
		{columns: "id text PRIMARY KEY", values: `E'a\nb'`, wantID: "a%0Ab", wantURL: "/thing/a%250Ab"},
		{columns: "id text PRIMARY KEY", values: "''", wantID: "?", wantURL: "/thing/%3F"},
		{
			columns: "id text PRIMARY KEY", values: "'" + long + "'", wantID: long[:100] + "~" + md5sum(long),
			wantURL: "/thing/" + long[:100] + "~" + md5sum(long),
		},
		{
			columns: "a int, b text, PRIMARY KEY (b, a)", values: "7, 'x:y%'", wantID: "x%3Ay%25:7",
			wantURL: "/thing/x%253Ay%2525:7",
		},
		{
			columns: "id timestamptz PRIMARY KEY", values: "'2026-02-03 04:05:06.7+00'",
			wantID:  "2026-02-03 04:05:06.7+00",
			wantURL: "/thing/2026-02-03%2004:05:06.7+00",
		},
		{columns: "id bytea PRIMARY KEY", values: `E'\\xC0FFEE'`, wantID: `\xc0ffee`, wantURL: "/thing/%5Cxc0ffee"},
		{columns: "id public.mood PRIMARY KEY", values: "'glad'", wantID: "glad", wantURL: "/thing/glad"},
		{columns: "id public.short PRIMARY KEY", values: "'s'", wantID: "s", wantURL: "/thing/s"},
		{columns: `"we""ird %{}' \" int PRIMARY KEY`, values: "1", wantID: "1", wantURL: "/thing/1"},
		{
			columns: `id int PRIMARY KEY, tenant text, extra json`, url: "https://x.example/{tenant}/things/{id}?v=1",
			values: "1, 'a b', '{}'",
			wantID: "1", wantURL: "https://x.example/a%20b/things/1?v=1",
		},
		{
			columns: `id int PRIMARY KEY`, url: "https://x.example/things/{id}.json", values: "1", wantID: "1",
			wantURL: "https://x.example/things/1.json",
		},
		{columns: `id int PRIMARY KEY`, url: "/settings", values: "1", wantID: "1", wantURL: "/settings"},
		{
			columns: `id int PRIMARY KEY, tenant text`, key: "tenant", values: "1, NULL", wantID: "?",
			wantURL: "/thing/%3F",
		},
	} {
		a.exec("DROP TABLE IF EXISTS public.things", "DROP TYPE IF EXISTS public.mood",
			"DROP DOMAIN IF EXISTS public.short",
			"CREATE TYPE public.mood AS ENUM ('glad')", "CREATE DOMAIN public.short AS text CHECK (length(value) < 5)",
			"CREATE TABLE public.things ("+c.columns+")")
		table := capture.Table{Name: "public.things", Type: "thing", URL: c.url}
		if c.key != "" {
			table.Key = []string{c.key}
		}
		a.attach(table)
		a.exec("INSERT INTO public.things VALUES ("+c.values+")", "DELETE FROM public.things")
		events := a.events()
		if len(events) != 2 {
			t.Fatalf("%s: %d events", c.columns, len(events))
		}
		for _, e := range events {
			if e.ResourceID != c.wantID || e.ResourceURL != c.wantURL {
				t.Errorf("%s: id %q, URL %q; want %q, %q", c.columns, e.ResourceID, e.ResourceURL, c.wantID, c.wantURL)
			}
		}
	}
}

// Rows of partitions create one event each, whichever way they are written, and a row that
// moves to another partition is updated.
func TestPartitions(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	table := capture.Table{Name: "public.parts", Type: "part"}
	a.exec("CREATE TABLE public.parts (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST "+
		"(region)",
		"CREATE TABLE public.north PARTITION OF public.parts FOR VALUES IN ('n')",
		"CREATE TABLE public.south (gone int, v int, region text NOT NULL, id int NOT NULL)", // another order
		"ALTER TABLE public.south DROP COLUMN gone",
		"ALTER TABLE public.parts ATTACH PARTITION public.south FOR VALUES IN ('s')")
	table.Key = []string{"id"}
	a.attach(table)
	a.exec("CREATE TABLE public.west PARTITION OF public.parts FOR VALUES IN ('w')")
	for _, c := range []struct{ what, statement, want string }{
		{
			"insert", "INSERT INTO public.parts VALUES (1, 'n', 1), (2, 's', 1), (3, 'w', 1)",
			"created 1, created 2, created 3",
		},
		{"leaf", "INSERT INTO public.south (id, region, v) VALUES (4, 's', 1)", "created 4"},
		{"update", "UPDATE public.parts SET v = 2 WHERE id IN (1, 2)", "updated 1, updated 2"},
		{"same", "UPDATE public.parts SET v = 2 WHERE id IN (1, 2)", ""},
		{"move", "UPDATE public.parts SET region = 's' WHERE id = 1", "updated 1"},
		{"moves", "UPDATE public.parts SET region = 'n' WHERE region = 's'", "updated 1, updated 2, updated 4"},
		{
			"move with another key", "UPDATE public.parts SET region = 'w', id = 14 WHERE id = 4",
			"created 14, deleted 4",
		},
		{"move of nothing", "UPDATE public.parts SET region = 'w' WHERE id = 14", ""},
		{"delete", "DELETE FROM public.parts WHERE id = 14", "deleted 14"},
		{"truncate of a leaf", "TRUNCATE public.north", "deleted 1, deleted 2, deleted 4"},
	} {
		a.exec(c.statement)
		if c.what == "truncate of a leaf" {
			c.want = "deleted 1, deleted 2"
		}
		a.wantSorted(c.what, c.want)
	}
	if found := a.repair(table); !strings.Contains(found, `on public.west is missing (mended)`) {
		t.Errorf("a new partition lacks its trigger for TRUNCATE: %s", found)
	}
	a.exec("DELETE FROM public.parts")
	a.told()
	for _, c := range partitioned {
		a.exec("INSERT INTO public.parts VALUES (1, 'n', 1), (2, 's', 1)")
		a.told()
		a.inTx(c.statements...)
		a.wantTold(c.what, c.want)
		a.exec("DELETE FROM public.parts")
		a.told()
	}
	a.exec("INSERT INTO public.parts SELECT n, 'n', 1 FROM generate_series(100, 5099) n")
	a.events()
	a.exec("UPDATE public.parts SET region = 's' WHERE id >= 100")
	events := a.events()
	for _, e := range events {
		if e.Action != "updated" {
			t.Fatalf("a move created %s %s", e.Action, e.ResourceID)
		}
	}
	if len(events) != 5000 {
		t.Errorf("%d events of 5,000 moves", len(events))
	}
	a.exec("TRUNCATE public.parts")
	if n := len(a.events()); n != 5000 {
		t.Errorf("%d events of TRUNCATE, want 5,000", n)
	}
}

// What one transaction does to rows of public.parts, which has 1 in north and 2 in south.
var partitioned = []struct {
	what       string
	statements []string
	want       string
}{
	{
		"inserted and deleted",
		[]string{"INSERT INTO public.parts VALUES (3, 'n', 1)", "DELETE FROM public.parts WHERE id = 3"},
		"created 3, deleted 3",
	},
	{
		"moved and deleted",
		[]string{"UPDATE public.parts SET region = 's' WHERE id = 1", "DELETE FROM public.parts WHERE id = 1"},
		"deleted 1",
	},
	{
		"inserted and moved",
		[]string{"INSERT INTO public.parts VALUES (3, 'n', 1)", "UPDATE public.parts SET region = 's' WHERE id = 3"},
		"created 3",
	},
	{
		"moved and moved back",
		[]string{"UPDATE public.parts SET region = 's' WHERE id = 1", "UPDATE public.parts SET region = 'n' WHERE id = 1"},
		"updated 1",
	},
	{
		"deleted and inserted is told as a move",
		[]string{"DELETE FROM public.parts WHERE id = 1", "INSERT INTO public.parts VALUES (1, 's', 1)"},
		"updated 1",
	},
	{
		"deleted and inserted with another between",
		[]string{
			"DELETE FROM public.parts WHERE id = 1", "INSERT INTO public.parts VALUES (3, 'n', 1)",
			"INSERT INTO public.parts VALUES (1, 'n', 1)",
		},
		"deleted 1, created 3, created 1",
	},
	{
		"deleted, inserted and deleted",
		[]string{
			"DELETE FROM public.parts WHERE id = 1", "INSERT INTO public.parts VALUES (1, 's', 1)",
			"DELETE FROM public.parts WHERE id = 1",
		},
		"deleted 1",
	},
	{
		"inserted, deleted and inserted",
		[]string{
			"INSERT INTO public.parts VALUES (3, 'n', 1)", "DELETE FROM public.parts WHERE id = 3",
			"INSERT INTO public.parts VALUES (3, 'n', 1)",
		},
		"created 3",
	},
	{
		"deleted, and inserted in vain",
		[]string{
			"DELETE FROM public.parts WHERE id = 1", "SAVEPOINT s", "INSERT INTO public.parts VALUES (1, 's', 1)",
			"ROLLBACK TO s",
		},
		"deleted 1",
	},
	{
		"deleted in vain, and another inserted",
		[]string{
			"SAVEPOINT s", "DELETE FROM public.parts WHERE id = 1", "ROLLBACK TO s",
			"INSERT INTO public.parts VALUES (1, 's', 1)", // the key of the table is id and region
		},
		"created 1",
	},
	{
		"key changed and changed back",
		[]string{"UPDATE public.parts SET id = 3 WHERE id = 1", "UPDATE public.parts SET id = 1 WHERE id = 3"},
		"deleted 1, created 3, deleted 3, created 1",
	},
	{
		"key changed and changed back, and moved",
		[]string{
			"UPDATE public.parts SET id = 3, region = 's' WHERE id = 1",
			"UPDATE public.parts SET id = 1, region = 'n' WHERE id = 3",
		},
		"deleted 1, created 3, deleted 3, created 1",
	},
	{
		"keys swapped",
		[]string{
			"UPDATE public.parts SET id = 3 WHERE id = 1", "UPDATE public.parts SET id = 1 WHERE id = 2",
			"UPDATE public.parts SET id = 2 WHERE id = 3",
		},
		"deleted 1, created 3, deleted 2, created 1, deleted 3, created 2",
	},
}

func md5sum(text string) string { return fmt.Sprintf("%x", md5.Sum([]byte(text))) }

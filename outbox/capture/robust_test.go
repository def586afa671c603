package capture_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// migrations are what an application does to a table with the columns id, v, n and who.
var migrations = []struct {
	what       string
	table      capture.Table
	columns    string
	migration  []string
	write      string
	told       string // of write, before Repair and after it
	check      string // a finding
	mended     bool   // nothing is found afterwards
	gap        string
	afterwards string // events of a second write, if they differ
}{
	{
		what: "the key is renamed", migration: []string{"ALTER TABLE public.t RENAME id TO number"},
		write: "UPDATE public.t SET v = v || 'x' WHERE number = 1", told: "updated 1@ann",
		check: "the column id is now named number", mended: true,
	},
	{
		what: "the key becomes wider", migration: []string{"ALTER TABLE public.t ALTER id TYPE bigint"},
		write: "UPDATE public.t SET v = v || 'x' WHERE id = 1", told: "updated 1@ann", mended: true,
	},
	{
		what: "the key becomes text", migration: []string{"ALTER TABLE public.t ALTER id TYPE text"},
		write: "UPDATE public.t SET v = v || 'x' WHERE id = '1'", told: "updated 1@ann", mended: true,
	},
	{
		what: "another key takes its name",
		migration: []string{
			"ALTER TABLE public.t ADD new_id bigint", "UPDATE public.t SET new_id = id + 100",
			"ALTER TABLE public.t DROP CONSTRAINT t_pkey CASCADE",
			"ALTER TABLE public.t RENAME id TO old_id", "ALTER TABLE public.t RENAME new_id TO id",
			"ALTER TABLE public.t ADD PRIMARY KEY (id)",
		},
		write: "UPDATE public.t SET v = v || 'x' WHERE id = 101", told: "updated 101@ann", mended: true,
	},
	{
		what: "the key is dropped, and there is another one",
		migration: []string{
			"ALTER TABLE public.t DROP id CASCADE",
			"ALTER TABLE public.t ADD uid int DEFAULT 5 PRIMARY KEY",
		},
		write: "UPDATE public.t SET v = v || 'x'", told: "updated 5@ann", check: "the column id is gone",
		mended: true,
	},
	{
		what: "the key is dropped", migration: []string{"ALTER TABLE public.t DROP id CASCADE"},
		write: "UPDATE public.t SET v = v || 'x'", told: "updated ?@ann", check: "the column id is gone",
	},
	{
		what: "a watched column is renamed", table: capture.Table{Watch: []string{"v"}},
		migration: []string{"ALTER TABLE public.t RENAME v TO w"},
		write:     "UPDATE public.t SET w = w || 'x', n = n + 1", told: "updated 1@ann",
		check: "the column v is now named w",
	},
	{
		what: "a watched column is dropped", table: capture.Table{Watch: []string{"v", "n"}},
		migration: []string{"ALTER TABLE public.t DROP v CASCADE"},
		write:     "UPDATE public.t SET n = n + 1", told: "updated 1@ann", check: "the column v is gone",
	},
	{
		what: "an ignored column is renamed", table: capture.Table{Ignore: []string{"n"}},
		migration: []string{"ALTER TABLE public.t RENAME n TO m"},
		write:     "UPDATE public.t SET m = m + 1", told: "", check: "the column n is now named m",
	},
	{
		what: "an ignored column gets another type", table: capture.Table{Ignore: []string{"n"}},
		migration: []string{"ALTER TABLE public.t ALTER n TYPE text"},
		write:     "UPDATE public.t SET n = n || '1'", told: "", mended: true,
	},
	{
		what: "a column is added", table: capture.Table{Ignore: []string{"n"}},
		migration: []string{"ALTER TABLE public.t ADD w int DEFAULT 1"},
		write:     "UPDATE public.t SET w = w + 1", told: "updated 1@ann", mended: true,
	},
	{
		what: "a JSON column is added", migration: []string{"ALTER TABLE public.t ADD j json DEFAULT '[1]'"},
		write: "UPDATE public.t SET j = json_build_array(random())", told: "updated 1@ann", mended: true,
	},
	{
		what: "the user is dropped", migration: []string{"ALTER TABLE public.t DROP who CASCADE"},
		write: "UPDATE public.t SET v = v || 'x'", told: "updated 1", check: "the column who is gone",
	},
	{
		what: "a column of the URL is dropped", table: capture.Table{URL: "/{n}/{id}"},
		migration: []string{"ALTER TABLE public.t DROP n CASCADE"},
		write:     "UPDATE public.t SET v = v || 'x'", told: "updated 1@ann", check: "the column n is gone",
	},
	{
		what: "a condition's column is renamed", table: capture.Table{Where: []string{"n != 0"}},
		migration: []string{"ALTER TABLE public.t RENAME n TO m"},
		write:     "UPDATE public.t SET v = v || 'x'", told: "updated 1@ann", check: "the column n is now named m",
	},
	{
		what: "the table is renamed", migration: []string{"ALTER TABLE public.t RENAME TO t2"},
		write: "UPDATE public.t2 SET v = v || 'x'", told: "updated 1@ann",
		check: "the table is now named public.t2",
	},
	{
		what: "the table moves to another schema", migration: []string{"ALTER TABLE public.t SET SCHEMA app"},
		write: "UPDATE app.t SET v = v || 'x'", told: "updated 1@ann", check: "the table is now named app.t",
	},
	{
		what: "the table is dropped and created again",
		migration: []string{"DROP TABLE public.t CASCADE", "CREATE TABLE public.t (v text, who text, id int " +
			"PRIMARY KEY)", "INSERT INTO public.t VALUES ('a', 'eve', 1), ('b', 'eve', 2)"},
		write: "UPDATE public.t SET v = v || 'x' WHERE id = 1", told: "", afterwards: "updated 1@eve",
		mended: true, gap: "replaced, trigger 2",
	},
	{
		what: "it is created again without a column of its URL", table: capture.Table{URL: "/{n}/{id}"},
		migration: []string{"DROP TABLE public.t CASCADE", "CREATE TABLE public.t (v text, who text, id int " +
			"PRIMARY KEY)", "INSERT INTO public.t VALUES ('a', 'eve', 1), ('b', 'eve', 2)"},
		write: "UPDATE public.t SET v = v || 'x' WHERE id = 1", told: "", afterwards: "updated 1@eve",
		check: "the column n is gone; change url (URLs lack it until then) in the configuration, and run attach",
		gap:   "replaced, trigger 2",
	},
	{
		what: "it is created again without its key and its user", table: capture.Table{Key: []string{"n"}},
		migration: []string{
			"DROP TABLE public.t CASCADE", "CREATE TABLE public.t (v text)", "INSERT INTO public.t VALUES ('a')",
		},
		write: "UPDATE public.t SET v = v || 'x'", told: "", afterwards: "updated ?",
		check: "the column n is gone; change key (ids are ? until then)", gap: "replaced, trigger 1",
	},
	{
		what:  "it is created again without its condition's and watched columns",
		table: capture.Table{Where: []string{"n != 0"}, Watch: []string{"n", "v"}},
		migration: []string{"DROP TABLE public.t CASCADE", "CREATE TABLE public.t (id int PRIMARY KEY, v text, " +
			"who text)", "INSERT INTO public.t VALUES (1, 'a', 'eve')"},
		write: "UPDATE public.t SET v = v || 'x'", told: "", afterwards: "updated 1@eve",
		check: "the column n is gone; change where (which is ignored until then), watch", gap: "replaced, trigger 1",
	},
	{
		what: "a column is renamed and the trigger dropped", table: capture.Table{Watch: []string{"n"}},
		migration: []string{"ALTER TABLE public.t RENAME n TO m", "DROP TRIGGER _tidings_1 ON public.t"},
		write:     "UPDATE public.t SET m = m + 1", told: "", afterwards: "updated 1@ann",
		check: "the column n is now named m; change watch in the configuration", gap: "trigger 1",
	},
	{
		what:      "the trigger is dropped",
		migration: []string{"DROP TRIGGER _tidings_1 ON public.t", "INSERT INTO public.t (id, v) VALUES (2, 'a')"},
		write:     "UPDATE public.t SET v = v || 'x' WHERE id = 1", told: "", afterwards: "updated 1@ann",
		mended: true, gap: "trigger 2",
	},
	{
		what: "the trigger is disabled", migration: []string{"ALTER TABLE public.t DISABLE TRIGGER ALL"},
		write: "UPDATE public.t SET v = v || 'x'", told: "",
		check: "disabled: the trigger _tidings_1 on public.t is disabled",
	},
	{
		what: "the function is replaced", migration: []string{"CREATE OR REPLACE FUNCTION " +
			"tidings.capture_1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"},
		write: "UPDATE public.t SET v = v || 'x'", told: "", afterwards: "updated 1@ann", mended: true,
	},
	{
		what: "the table is dropped", migration: []string{"DROP TABLE public.t CASCADE"}, write: "SELECT 1",
		told: "", check: "missing: there is no such table",
	},
}

// Migrations may change anything: their statements succeed, writes make events in sessions
// that knew the table before and in new ones, Check says what differs, and Repair mends
// what can be mended.
func TestMigrations(t *testing.T) {
	t.Parallel()
	for _, c := range migrations {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			a.exec("CREATE TABLE public.t (id int PRIMARY KEY, v text, n int, who text)")
			c.table.Name, c.table.Type, c.table.User = "public.t", "thing", "who"
			a.attach(c.table)
			a.db.SetMaxOpenConns(1) // one session: functions have cached plans
			a.exec("INSERT INTO public.t VALUES (1, 'a', 1, 'ann')")
			for range 7 { // generic plans
				a.exec("UPDATE public.t SET v = v || 'x', n = n + 1")
			}
			a.events()
			a.repair(c.table) // the triggers have been seen
			for _, statement := range c.migration {
				a.exec(statement)
			}
			a.told()
			other := openDB(t, a.url)
			a.exec(c.write)
			a.wantTold("in the same session", c.told)
			if _, err := other.Exec(c.write); err != nil {
				t.Fatal(err)
			}
			a.wantTold("in a new session", c.told)
			if found := a.findings(c.table); !strings.Contains(found, c.check) || strings.Contains(found, "onfigured") {
				t.Errorf("Check: %s; want %s", found, c.check)
			}
			a.repair(c.table)
			a.events()
			found := a.repair(c.table)
			if c.mended && found != "" || !c.mended && !strings.Contains(found, c.check) {
				t.Errorf("after Repair: %s", found)
			}
			gaps, err := capture.Gaps(t.Context(), a.db, a.o, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			var gap string
			for _, g := range gaps {
				gap += strings.TrimSpace(g.Reason + " " + string('0'+rune(g.Recovered)))
			}
			if gap != c.gap {
				t.Errorf("gaps %q, want %q", gap, c.gap)
			}
			a.exec(c.write)
			want := c.told
			if c.afterwards != "" {
				want = c.afterwards
			}
			a.wantTold("after Repair", want)
		})
	}
}

// Attach enables what somebody disabled, on partitions too, and adds events for what was
// written meanwhile.
func TestAttachEnables(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
		"CREATE TABLE public.leaf PARTITION OF public.t FOR VALUES FROM (0) TO (100)")
	table := capture.Table{Name: "t", Type: "thing"}
	a.attach(table)
	for n, disabled := range []string{"public.t", "public.leaf"} {
		a.exec(fmt.Sprintf("INSERT INTO public.t VALUES (%d, 1)", n))
		a.repair(table)
		a.told()
		a.exec("ALTER TABLE "+disabled+" DISABLE TRIGGER ALL",
			fmt.Sprintf("UPDATE public.t SET v = v + 1 WHERE id = %d", n))
		a.wantTold("disabled", "")
		if found := a.repair(table); !strings.Contains(found, "disabled: ") || strings.Contains(found, "mended") {
			t.Errorf("Repair: %s", found)
		}
		a.attach(table)
		if found := a.findings(table); found != "" {
			t.Errorf("Check: %s", found)
		}
		if told := a.told(); !strings.Contains(told, fmt.Sprintf("updated %d", n)) {
			t.Errorf("recovered: %s", told)
		}
		a.exec(fmt.Sprintf("UPDATE public.t SET v = v + 1 WHERE id = %d", n))
		a.wantTold("enabled", fmt.Sprintf("updated %d", n))
	}
	gaps, err := capture.Gaps(t.Context(), a.db, a.o, time.Time{})
	if err != nil || len(gaps) != 2 || gaps[0].Reason != "disabled" {
		t.Errorf("gaps %+v, %v", gaps, err)
	}
}

// A role that may only write the table makes events, and has no other rights.
func TestRoleWithoutRights(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.role("writer")
	a.exec(makeOrders, "CREATE TABLE public.lines (id int PRIMARY KEY, order_id int REFERENCES public.orders ON "+
		"DELETE CASCADE)")
	table := orders
	table.Parts = []capture.Part{{Name: "lines"}}
	a.attach(table)
	a.exec("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON public.orders, public.lines TO writer")
	writer := a.as("writer")
	for _, statement := range []string{
		"INSERT INTO public.orders (id, created_by) VALUES (1, 'ann'), (2, 'bob')",
		"INSERT INTO public.lines VALUES (1, 1)",
		"UPDATE public.orders SET status = 'x' WHERE id = 2", "DELETE FROM public.orders WHERE id = 1",
		"TRUNCATE public.orders CASCADE",
	} {
		if _, err := writer.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	a.wantTold("by another role", "created 1@ann, created 2@bob, updated 1@ann, updated 2@bob, deleted 1@ann, "+
		"deleted 2@bob")
	for _, statement := range []string{
		"SELECT * FROM tidings.tidings_outbox", "DELETE FROM tidings.tidings_outbox",
		"SELECT tidings.emit('order', 'created', '1')",
		"INSERT INTO tidings.tidings_outbox (id, resource_type, action, resource_id, resource_url, user_id, at, " +
			"resource_version) " +
			"VALUES ('1', 'order', 'created', '1', '/', '', 1, 1)",
	} {
		if _, err := writer.Exec(statement); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	// Attach refuses tables that the role of the relay may not read.
	a.role("blind")
	a.exec("GRANT CREATE ON DATABASE "+a.query("SELECT current_database()")+" TO blind",
		"GRANT TRIGGER ON public.orders TO blind")
	options := capture.Options{Schema: "blind"}
	err := capture.Attach(t.Context(), a.as("blind"), []capture.Table{orders}, options)
	if err == nil || !strings.Contains(err.Error(), "GRANT SELECT ON public.orders TO blind, or set truncate: refuse") {
		t.Error(err)
	}
	refusing := orders
	refusing.Truncate = capture.TruncateRefuse
	if err := capture.Attach(t.Context(), a.as("blind"), []capture.Table{refusing}, options); err != nil {
		t.Error(err)
	}
	a.exec("DROP TRIGGER _tidings_1_blind ON public.orders")
	found, err := capture.Repair(t.Context(), a.as("blind"), []capture.Table{refusing}, options)
	if err != nil || len(found) != 1 || !found[0].Mended {
		t.Errorf("Repair: %v, %v", found, err)
	}
}

// Functions, operators and casts of others change nothing and get no rights.
func TestHostileObjects(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.role("mallory")
	a.exec("GRANT CREATE, USAGE ON SCHEMA public TO mallory", "GRANT CREATE ON SCHEMA app TO mallory",
		"GRANT USAGE ON SCHEMA app TO mallory")
	mallory := a.as("mallory")
	exec := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := mallory.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	refused := func(statement string) {
		t.Helper()
		if _, err := mallory.Exec(statement); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	exec("CREATE TYPE public.evil AS (x int)", "CREATE TABLE public.marks (who text)",
		"GRANT ALL ON public.marks TO PUBLIC",
		`CREATE FUNCTION public.leak(public.evil) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO public.marks VALUES (current_user); RETURN 'leaked'; END $$`,
		"CREATE CAST (public.evil AS text) WITH FUNCTION public.leak(public.evil)",
		"CREATE TABLE public.docs (id public.evil PRIMARY KEY, note public.evil, v text)",
		`CREATE TABLE public."ta""b;le' \ %s {}" ("co""l ' \ %I" text PRIMARY KEY, "{}" int)`)
	for _, f := range []string{
		"concat(variadic text[])", "coalesce_text(text)", "record_image_eq(record, record)",
		"current_setting(text, boolean)",
		"clock_timestamp()", "date_part(text, timestamptz)", "to_regclass(text)", "format(text, variadic text[])",
		"tidings_escape(text, boolean)",
		"capture_slowly(int, text, record, record, text)", "num_nulls(variadic text[])", "capture_list(jsonb)",
		"md5(text)", "overlay(text, text, int, int)",
	} {
		for _, schema := range []string{"public", "app"} {
			_, err := mallory.Exec("CREATE FUNCTION " + schema + "." + f + " RETURNS text LANGUAGE plpgsql AS " +
				"$$ BEGIN INSERT INTO public.marks VALUES ('function'); RETURN 'hijacked'; END $$")
			if err != nil {
				t.Fatal(f, err)
			}
		}
	}
	exec(`CREATE FUNCTION public.evil_op(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO `+
		`public.marks VALUES ('operator'); RETURN true; END $$`,
		"CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.evil_op)",
		"CREATE OPERATOR public.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = public.evil_op)")
	// The schema may come first in the search path.
	tables := []capture.Table{
		{Name: "public.docs", Type: "doc", URL: "/docs/{id}/{note}", User: "note", Where: []string{"v != gone"}},
		{Name: `public."ta""b;le' \ %s {}"`, Type: "odd", Ignore: []string{"{}"}},
	}
	a.exec("GRANT TRIGGER, SELECT ON ALL TABLES IN SCHEMA public TO tidings")
	a.attach(tables...)
	path := "SET search_path = public, app, pg_catalog; "
	exec(path+"INSERT INTO public.docs VALUES (ROW(1), ROW(2), 'a')", path+"UPDATE public.docs SET v = 'b'",
		path+"UPDATE public.docs SET note = ROW(3)", "RESET search_path")
	events := a.events()
	if len(events) != 3 || events[0].ResourceID != "(1)" || events[0].ResourceURL != "/docs/(1)/(2)" ||
		events[2].UserID != "(3)" {
		t.Errorf("events %+v", events)
	}
	exec("ALTER TABLE public.docs RENAME id TO number", path+"UPDATE public.docs SET v = 'c'")
	a.wantTold("slowly", "updated (1)@(3)")
	exec(`INSERT INTO public."ta""b;le' \ %s {}" VALUES ('it''s {} %s \', 1)`,
		`UPDATE public."ta""b;le' \ %s {}" SET "{}" = 2`,
		`ALTER TABLE public."ta""b;le' \ %s {}" RENAME "co""l ' \ %I" TO "$1"`, `TRUNCATE public."ta""b;le' \ %s {}"`)
	a.wantTold("odd names", `created it's {} %s \, deleted it's {} %s \`)
	if marks := a.query("SELECT string_agg(who, ', ') FROM public.marks"); marks != "" {
		t.Errorf("ran: %s", marks)
	}
	for _, statement := range []string{
		"SELECT * FROM tidings.tidings_outbox", "INSERT INTO tidings.tidings_outbox DEFAULT VALUES",
		"DELETE FROM tidings.tidings_outbox",
		"SELECT tidings.emit('doc', 'created', '1')", "SELECT tidings.attach('public.docs', '{}')",
		"SELECT tidings.detach()",
		"SELECT tidings.capture_truncate(1, 1)", "SELECT * FROM tidings.tidings_sources",
		"CREATE TABLE tidings.t (id int)",
		"CREATE TRIGGER mine AFTER INSERT ON public.marks FOR EACH ROW EXECUTE FUNCTION tidings.capture_1()",
	} {
		refused(statement)
	}
}

// The table that parts belong to is read with the rights of the relay's role. Its
// policies, or a view in its place, run nothing with these rights.
func TestHostileParent(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.role("owner_of_tables")
	a.role("reads_parents")
	a.exec("GRANT CREATE, USAGE ON SCHEMA public TO owner_of_tables",
		"GRANT CREATE ON DATABASE "+a.query("SELECT current_database()")+" TO reads_parents")
	owner, relay := a.as("owner_of_tables"), a.as("reads_parents")
	exec := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := owner.Exec(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	exec("CREATE TABLE public.marks (who text)", "GRANT ALL ON public.marks TO PUBLIC",
		`CREATE FUNCTION public.mark() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO public.marks VALUES (current_user); RETURN true; END $$`,
		"CREATE TABLE public.parents (id int PRIMARY KEY, owner text)", "INSERT INTO public.parents VALUES (1, 'ann')",
		"CREATE TABLE public.children (id int PRIMARY KEY, parent int)",
		"GRANT SELECT, TRIGGER ON public.parents, public.children TO reads_parents")
	table := capture.Table{
		Name: "parents", Type: "parent", User: "owner",
		Parts: []capture.Part{{Name: "children", Key: []string{"parent"}}},
	}
	if err := capture.Attach(t.Context(), relay, []capture.Table{table}, a.o); err != nil {
		t.Fatal(err)
	}
	exec("INSERT INTO public.children VALUES (1, 1)")
	a.wantTold("before", "updated 1@ann")
	exec("ALTER TABLE public.parents ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY p ON public.parents USING (public.mark())",
		"INSERT INTO public.children VALUES (2, 1)", "TRUNCATE public.parents")
	a.wantTold("with a policy", "updated 1")
	exec("ALTER TABLE public.parents RENAME TO former",
		"CREATE VIEW public.parents AS SELECT id, owner FROM public.former WHERE public.mark()",
		"GRANT SELECT ON public.parents TO PUBLIC", "INSERT INTO public.children VALUES (3, 1)")
	a.wantTold("with a view", "updated 1")
	if marks := a.query("SELECT string_agg(who, ', ') FROM public.marks"); marks != "" {
		t.Errorf("ran as %s", marks)
	}
}

// While attach waits for one open transaction, another writer is not blocked behind attach
// for more than a moment.
func TestAttachHoldsUpNobody(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	a := newApp(t)
	a.exec(makeOrders)
	slow, err := a.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Rollback()
	if _, err := slow.Exec("INSERT INTO public.orders (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- capture.Attach(t.Context(), openDB(t, a.url), []capture.Table{orders}, a.o) }()
	var longest time.Duration
	begun := time.Now()
	for i := 2; time.Since(begun) < 4*time.Second; i++ {
		at := time.Now()
		if _, err := a.db.Exec("INSERT INTO public.orders (id) VALUES ($1)", i); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(at))
		select {
		case err := <-done:
			t.Fatalf("attached behind an open transaction: %v", err)
		default:
		}
	}
	if longest > testtool.Allow(3*time.Second) {
		t.Errorf("a writer waited %v", longest)
	}
	if err := slow.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a.exec("INSERT INTO public.orders (id) VALUES (-1)")
	a.wantTold("afterwards", "created -1")
}

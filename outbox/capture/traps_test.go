package capture_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// What triggers of the application do to a row that was just written creates later events,
// whatever the triggers' names.
func TestTriggersOfTheApplication(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.jobs (id int PRIMARY KEY, state text)",
		`CREATE FUNCTION app.after_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF new.state = 'done' THEN
				DELETE FROM public.jobs WHERE id = new.id;
			ELSIF new.state = 'again' THEN
				DELETE FROM public.jobs WHERE id = new.id;
				INSERT INTO public.jobs VALUES (new.id, 'new');
			END IF;
			RETURN NULL;
		END $$`)
	a.attach(capture.Table{Name: "jobs", Type: "job"})
	a.exec("CREATE TRIGGER a_job AFTER INSERT OR UPDATE ON public.jobs FOR EACH ROW EXECUTE FUNCTION app.after_job()")
	for _, c := range []struct{ statement, want string }{
		{"INSERT INTO public.jobs VALUES (1, 'done')", "created 1, deleted 1"},
		{"INSERT INTO public.jobs VALUES (2, 'again')", "created 2, deleted 2, created 2"},
		{"UPDATE public.jobs SET state = 'done' WHERE id = 2", "deleted 2"},
	} {
		a.exec(c.statement)
		a.wantTold(c.statement, c.want)
	}
}

// A session that quotes all identifiers attaches the same tables.
func TestAttachWithQuotedIdentifiers(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec(makeOrders, "CREATE TABLE public.lines (id int PRIMARY KEY, order_id int REFERENCES public.orders)")
	table := orders
	table.Parts = []capture.Part{{Name: "lines"}}
	a.attach(table)
	quoting := openDB(t, a.url+"&quote_all_identifiers=on")
	if found, err := capture.Check(t.Context(), quoting, []capture.Table{table}, a.o); err != nil || len(found) > 0 {
		t.Errorf("Check: %v, %v", found, err)
	}
	if err := capture.Attach(t.Context(), quoting, []capture.Table{table}, a.o); err != nil {
		t.Fatal(err)
	}
	a.exec("INSERT INTO public.orders (id) VALUES (1)", "INSERT INTO public.lines VALUES (1, 1)")
	a.wantTold("attached twice", "created 1, updated 1")
	if gone := a.detach(); gone != "public.lines, public.orders" {
		t.Errorf("detached %s", gone)
	}
}

// A former partition, or a former table, that is emptied under another name makes no
// events.
func TestFormerTables(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.t (id int PRIMARY KEY) PARTITION BY RANGE (id)",
		"CREATE TABLE public.old PARTITION OF public.t FOR VALUES FROM (0) TO (10)")
	table := capture.Table{Name: "t", Type: "thing"}
	a.attach(table)
	a.exec("INSERT INTO public.t VALUES (1), (2)")
	a.wantTold("partition", "created 1, created 2")
	a.exec("ALTER TABLE public.t DETACH PARTITION public.old", "DELETE FROM public.old WHERE id = 1",
		"TRUNCATE public.old")
	a.wantTold("detached partition", "")

	a.exec("INSERT INTO public.old VALUES (3), (4)", "ALTER TABLE public.t RENAME TO former",
		"ALTER TABLE public.former ATTACH PARTITION public.old FOR VALUES FROM (0) TO (10)",
		"CREATE TABLE public.t (id int PRIMARY KEY)", "INSERT INTO public.t SELECT * FROM public.former")
	a.repair(table)
	a.wantTold("another table with its name", "created 3, created 4")
	a.exec("DELETE FROM public.former WHERE id = 3", "TRUNCATE public.former")
	a.wantTold("former table", "")
	a.exec("DELETE FROM public.t WHERE id = 3", "TRUNCATE public.t")
	a.wantTold("present table", "deleted 3, deleted 4")
}

// A table whose schema the role of the relay may no longer use does not keep the others
// from being repaired.
func TestSchemaWithoutUsage(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.role("relay_elsewhere")
	a.exec("CREATE SCHEMA hidden", "CREATE TABLE hidden.t (id int PRIMARY KEY)",
		"CREATE TABLE public.t (id int PRIMARY KEY)",
		"GRANT CREATE ON DATABASE "+a.query("SELECT current_database()")+" TO relay_elsewhere",
		"GRANT SELECT, TRIGGER ON hidden.t, public.t TO relay_elsewhere")
	relay := a.as("relay_elsewhere")
	tables := []capture.Table{{Name: "hidden.t", Type: "secret"}, {Name: "public.t", Type: "thing"}}
	const want = "GRANT USAGE ON SCHEMA hidden TO relay_elsewhere"
	if err := capture.Attach(t.Context(), relay, tables, a.o); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Attach: %v", err)
	}
	a.exec(want)
	if err := capture.Attach(t.Context(), relay, tables, a.o); err != nil {
		t.Fatal(err)
	}
	a.exec("REVOKE USAGE ON SCHEMA hidden FROM relay_elsewhere", "INSERT INTO hidden.t VALUES (1)",
		"INSERT INTO public.t VALUES (1)", "TRUNCATE hidden.t", "DROP TRIGGER _tidings_1 ON public.t")
	a.wantTold("without USAGE", "created 1, created 1")
	if gaps := a.gaps(); !strings.Contains(gaps, "TRUNCATE made no events: permission denied for schema hidden") {
		t.Errorf("gaps: %s", gaps)
	}
	found, err := capture.Repair(t.Context(), relay, tables, a.o)
	if text := lines(found); err != nil || !strings.Contains(text, want) ||
		!strings.Contains(text, "the trigger _tidings_1 on public.t is missing (mended)") {
		t.Errorf("Repair: %v, %s", err, text)
	}
}

// Long texts delay neither the application nor the relay noticeably.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.notes (id int PRIMARY KEY, body text)")
	a.attach(capture.Table{Name: "notes", Type: "note", Key: []string{"body"}, URL: "/{id}/{body}", User: "body"})
	for i, text := range []string{strings.Repeat("é", 3_000_000), strings.Repeat("x", 1000)} {
		ctx, cancel := context.WithTimeout(t.Context(), testtool.Allow(8*time.Second)) // it was half a minute
		if _, err := a.db.ExecContext(ctx, "INSERT INTO public.notes VALUES ($1, $2)", i, text); err != nil {
			t.Fatal(err)
		}
		cancel()
		id := string([]rune(text)[:100]) + "~" + md5sum(text)
		url := "/note/" + strings.Repeat("%C3%A9", 100) + "~" + md5sum(text)
		if i == 1 {
			url = "/1/" + text
		}
		events := a.events()
		if len(events) != 1 || events[0].ResourceID != id || events[0].UserID != id || events[0].ResourceURL != url {
			t.Errorf("events %.2000v", events)
		}
	}
}

package capture_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// ours are the triggers and functions of Tidings.
const ours = `SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM (
	SELECT tgname::text FROM pg_trigger WHERE tgname ~ '^_tidings' OR tgname = 'tidings_notify'
	UNION ALL SELECT proname::text FROM pg_proc WHERE proname ~ '^(capture_|emit$|attach$|detach$)') o (name)`

func (a *app) detach(names ...string) string {
	a.t.Helper()
	gone, err := capture.Detach(a.t.Context(), a.db, a.o, names...)
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.Join(gone, ", ")
}

func TestDetach(t *testing.T) {
	t.Parallel()
	a := openApp(t, testdb.Postgres(t), capture.Options{Schema: `it's "mine" %s`})
	a.exec(makeOrders, "CREATE TABLE public.lines (id int PRIMARY KEY, order_id int REFERENCES public.orders, "+
		"note text)",
		"CREATE TABLE public.others (id int PRIMARY KEY)")
	withParts, others := orders, capture.Table{Name: "others", Type: "other"}
	withParts.Parts = []capture.Part{{Name: "public.lines"}}
	a.attach(withParts, others)
	a.attach(withParts, others) // a second time changes nothing
	if found := a.findings(withParts, others); found != "" {
		t.Errorf("Check: %s", found)
	}
	a.exec("INSERT INTO public.orders (id) VALUES (1)", "INSERT INTO public.lines VALUES (1, 1, 'a')",
		"INSERT INTO public.others VALUES (1)")
	a.wantTold("attached", "created 1, updated 1, created 1")
	a.exec("UPDATE public.orders SET status = 'last words'")
	if gone := a.detach("public.orders"); gone != "public.orders, public.lines" {
		t.Errorf("detached %q", gone)
	}
	a.exec("UPDATE public.orders SET status = 'x'", "UPDATE public.lines SET note = 'x'",
		"INSERT INTO public.others VALUES (2)")
	a.wantTold("one is detached", "updated 1, created 2")
	if found := a.findings(withParts, others); !strings.Contains(found, `table public.orders: not_attached`) ||
		!strings.Contains(found, `table public.lines: not_attached`) || strings.Contains(found, "others") {
		t.Errorf("Check: %s", found)
	}
	if found := a.findings(); !strings.Contains(found, "table public.others: not_configured") {
		t.Errorf("Check: %s", found)
	}
	if gone := a.detach(); gone != "public.others" {
		t.Errorf("detached %q", gone)
	}
	if left := a.query(ours); left != "" {
		t.Errorf("left: %s", left)
	}
	a.detach()
	a.attach(others)
	a.exec("INSERT INTO public.others VALUES (3)")
	a.wantTold("attached again", "created 3")
}

// The SQL that is printed for an application's migrations does what Attach does, however
// often it is run, and also when another role owns the tables.
func TestSQL(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.role("relay_role")
	a.exec(makeOrders, "GRANT CREATE ON DATABASE "+a.query("SELECT current_database()")+" TO relay_role",
		"GRANT SELECT ON public.orders TO relay_role")
	relay := a.as("relay_role")
	if err := capture.Attach(t.Context(), relay, nil, a.o); err != nil {
		t.Fatal(err)
	}
	text, err := capture.SQL([]capture.Table{orders}, a.o)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "{schema}") || strings.Contains(text, "{name}") {
		t.Error("a placeholder is left")
	}
	for range 2 {
		a.exec(text)
	}
	if found, err := capture.Repair(t.Context(), relay, []capture.Table{orders}, a.o); err != nil || len(found) > 0 {
		t.Errorf("Repair: %v, %v", found, err)
	}
	if owner := a.query("SELECT proowner::regrole FROM pg_proc WHERE proname = 'capture_1'"); owner != "relay_role" {
		t.Errorf("the function belongs to %s", owner)
	}
	a.exec("INSERT INTO public.orders (id) VALUES (1)")
	a.wantTold("after the printed SQL", "created 1")
	a.exec("ALTER TABLE public.orders RENAME id TO number", "UPDATE public.orders SET status = 'a'")
	a.wantTold("slowly", "updated 1")
	// The relay does not own the table, but can detach.
	if _, err := capture.Detach(t.Context(), relay, a.o); err != nil {
		t.Fatal(err)
	}
}

// A dump that is restored elsewhere makes no events, has its triggers, and can be detached
// and attached.
func TestDumpAndRestore(t *testing.T) {
	t.Parallel()
	dump, err := exec.LookPath("pg_dump")
	if err != nil {
		testtool.Missing(t, testtool.PostgreSQL)
	}
	a := newApp(t)
	a.exec("CREATE TABLE public.orders (gone int, id int PRIMARY KEY, status text, created_by text, updated_at "+
		"timestamptz)",
		"ALTER TABLE public.orders DROP gone") // columns get other numbers elsewhere
	a.attach(orders)
	a.exec("INSERT INTO public.orders (id, status) VALUES (1, 'a'), (2, 'b')", "UPDATE public.orders SET status = 'c'")
	a.wantSorted("before", "created 1, created 2, updated 1, updated 2")
	version, err := exec.Command(dump, "--version").Output()
	if err != nil || !strings.Contains(string(version),
		a.query("SELECT split_part(current_setting('server_version'), '.', 1)")+".") {
		t.Skipf("%s cannot dump a database of this server", version)
	}
	text, err := exec.Command(dump, "--no-owner", a.url).Output()
	if err != nil {
		t.Fatal(err)
	}
	b := openApp(t, testdb.Postgres(t), capture.Options{})
	b.exec("DROP SCHEMA app")
	psql := exec.Command("psql", "-v", "ON_ERROR_STOP=1", "-q", b.url)
	psql.Stdin = strings.NewReader(string(text))
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := len(b.events()); n != 4 {
		t.Errorf("%d events after the restore, want the 4 of the dump", n)
	}
	b.exec("UPDATE public.orders SET status = 'd' WHERE id = 1")
	b.wantTold("after the restore", "updated 1")
	if found := b.repair(orders); !strings.Contains(found, "replaced: ") {
		t.Errorf("Repair: %s", found)
	}
	if found := b.repair(orders); found != "" {
		t.Errorf("Repair: %s", found)
	}
	b.events()
	b.exec("ALTER TABLE public.orders RENAME id TO number", "UPDATE public.orders SET status = 'e' WHERE number = 1")
	b.wantTold("a renamed key after the restore", "updated 1")
	b.detach()
	if left := b.query(ours); left != "" {
		t.Errorf("left: %s", left)
	}
	b.exec("ALTER TABLE public.orders RENAME number TO id", "UPDATE public.orders SET status = 'f'")
	b.wantTold("detached", "")
	b.attach(orders)
	b.exec("UPDATE public.orders SET status = 'g' WHERE id = 2")
	b.wantTold("attached again", "updated 2")
}

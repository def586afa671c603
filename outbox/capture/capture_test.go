package capture_test

import (
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/outbox/capture"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// app is an application's database.
type app struct {
	t    testing.TB
	url  string
	db   *sql.DB
	log  *postgres.Log
	o    capture.Options
	read int64 // position up to which events were read
}

func newApp(t testing.TB) *app { return openApp(t, testdb.Postgres(t), capture.Options{}) }

func openApp(t testing.TB, url string, o capture.Options) *app {
	t.Helper()
	return &app{
		t: t, url: url, db: openDB(t, url), o: o,
		log: postgres.New(openDB(t, url), postgres.Options{Schema: o.Schema}),
	}
}

func openDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// role creates a role that may log in. Roles belong to the whole server.
func (a *app) role(name string) {
	a.t.Helper()
	a.exec("DO $$ BEGIN IF to_regrole('" + name + "') IS NULL THEN CREATE ROLE " + name + " LOGIN; END IF; END $$")
}

// as returns the same database as another role, which needs no password.
func (a *app) as(role string) *sql.DB {
	a.t.Helper()
	return openDB(a.t, strings.Replace(a.url, "tidings@", role+"@", 1))
}

func (a *app) exec(statements ...string) {
	a.t.Helper()
	for _, s := range statements {
		if _, err := a.db.Exec(s); err != nil {
			a.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (a *app) attach(tables ...capture.Table) {
	a.t.Helper()
	if err := capture.Attach(a.t.Context(), a.db, tables, a.o); err != nil {
		a.t.Fatal(err)
	}
}

// inTx runs statements in one transaction and commits it.
func (a *app) inTx(statements ...string) {
	a.t.Helper()
	a.exec("BEGIN;" + strings.Join(statements, ";") + ";COMMIT")
}

// events returns the events since the last call.
func (a *app) events() []tidings.Event {
	a.t.Helper()
	head, err := a.log.Advance(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	var all []tidings.Event
	for a.read < head {
		events, err := a.log.Read(a.t.Context(), a.read, 1000)
		if err != nil {
			a.t.Fatal(err)
		}
		for _, e := range events {
			if err := e.Check(); err != nil {
				a.t.Errorf("event %d: %v", e.Sequence, err)
			}
		}
		all = append(all, events...)
		a.read = all[len(all)-1].Sequence
	}
	return all
}

// told returns the names and ids of the events since the last call, such as "created 1",
// with the user, if there is one, after an @.
func (a *app) told() string {
	a.t.Helper()
	var all []string
	for _, e := range a.events() {
		text := string(e.Action) + " " + e.ResourceID
		if e.UserID != "" {
			text += "@" + e.UserID
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func (a *app) wantTold(what, want string) {
	a.t.Helper()
	if diff := gocmp.Diff(want, a.told()); diff != "" {
		a.t.Errorf("%s: told (-want +got):\n%s", what, diff)
	}
}

// wantSorted is wantTold for events in any order.
func (a *app) wantSorted(what, want string) {
	a.t.Helper()
	all := strings.Split(a.told(), ", ")
	slices.Sort(all)
	if diff := gocmp.Diff(want, strings.Join(all, ", ")); diff != "" {
		a.t.Errorf("%s: told (-want +got):\n%s", what, diff)
	}
}

func (a *app) query(query string, args ...any) string {
	a.t.Helper()
	var text sql.NullString
	if err := a.db.QueryRow(query, args...).Scan(&text); err != nil {
		a.t.Fatalf("%s: %v", query, err)
	}
	return text.String
}

// findings returns the findings of Check about tables, one per line.
func (a *app) findings(tables ...capture.Table) string {
	a.t.Helper()
	found, err := capture.Check(a.t.Context(), a.db, tables, a.o)
	if err != nil {
		a.t.Fatal(err)
	}
	return lines(found)
}

func (a *app) repair(tables ...capture.Table) string {
	a.t.Helper()
	found, err := capture.Repair(a.t.Context(), a.db, tables, a.o)
	if err != nil {
		a.t.Fatal(err)
	}
	return lines(found)
}

func lines(found []capture.Finding) string {
	var all []string
	for _, f := range found {
		all = append(all, fmt.Sprint(f))
	}
	return strings.Join(all, "\n")
}

var orders = capture.Table{Name: "public.orders", Type: "order", Ignore: []string{"updated_at"}, User: "created_by"}

const makeOrders = `CREATE TABLE public.orders (id int PRIMARY KEY, status text, total numeric, created_by text,
	data json, updated_at timestamptz DEFAULT now())`

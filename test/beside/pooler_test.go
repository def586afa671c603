package beside

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// A relay that is behind PgBouncer itself, with sessions or, with poll_only, without,
// makes events of what applications do behind PgBouncer in each of its modes.
func TestPoolers(t *testing.T) {
	testtool.InAll(t)
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			w.exec("CREATE TABLE app.invoices (id int PRIMARY KEY, owner text); GRANT ALL ON app.invoices TO " + role)
			w.relay(map[string]any{
				"database_url": testdb.PgBouncer(t, w.url, mode), "poll_only": mode == "transaction",
				"sources": map[string]any{"tables": map[string]any{
					"app.invoices": map[string]any{"type": "invoice", "user": "owner"},
				}},
				"types": map[string]any{"invoice": []any{"paid"}, last: nil},
			})
			w.exec("GRANT USAGE ON SCHEMA tidings TO " + role + "; GRANT EXECUTE ON FUNCTION tidings.emit TO " + role)
			var want []string
			for i, pool := range []string{"session", "transaction", "statement"} {
				// One connection for all clients: what one left behind would show in another.
				url := testdb.PgBouncer(t, w.app, pool, "default_pool_size = 1")
				shop := w.pool(url + "&default_query_exec_mode=exec")
				want = append(want, useShop(t, shop, pool, 10*i)...)
				w.kill()
			}
			var got []string
			for _, e := range w.all(len(want)) {
				got = append(got, fmt.Sprintf("%s %s by %s", e.Name(), e.ResourceID, e.UserID))
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := gocmp.Diff(want, slices.Compact(got)); diff != "" { // a kill may repeat some
				t.Errorf("want (-), got (+):\n%s", diff)
			}
			if out := w.run(w.tidings("attach", "--check")); !strings.Contains(out, "all triggers are in place") {
				t.Errorf("attach --check: %s", out)
			}
			if out := w.run(w.tidings("detach")); !strings.Contains(out, "detached: app.invoices") {
				t.Errorf("detach: %s", out)
			}
		})
	}
}

// pool opens a database with at most two connections.
func (w *world) pool(url string) *sql.DB {
	w.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		w.Fatal(err)
	}
	db.SetMaxOpenConns(2)
	w.Cleanup(func() { db.Close() })
	return db
}

// useShop makes changes through a pooler, and returns the events that they make.
func useShop(t *testing.T, shop *sql.DB, pool string, first int) (want []string) {
	t.Helper()
	exec := func(db interface {
		Exec(query string, args ...any) (sql.Result, error)
	}, query string, args ...any,
	) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatalf("%s, %s: %v", pool, query, err)
		}
	}
	// Without transactions of several statements, a column or an argument has the user.
	exec(shop, "INSERT INTO app.invoices VALUES ($1, 'ann')", first)
	exec(shop, "SELECT tidings.emit('invoice', 'paid', $1::int::text, user_id => 'bob')", first)
	want = []string{fmt.Sprintf("invoice.created %d by ann", first), fmt.Sprintf("invoice.paid %d by bob", first)}
	tx, err := shop.Begin()
	if pool == "statement" {
		if err == nil {
			t.Errorf("a transaction may begin")
		}
		return want
	}
	if err != nil {
		t.Fatal(err)
	}
	exec(tx, "SET LOCAL tidings.user_id = 'eve'")
	exec(tx, "INSERT INTO app.invoices VALUES ($1, 'ann')", first+1)
	exec(tx, "SELECT tidings.emit('invoice', 'paid', $1::int::text)", first+1)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	exec(shop, "INSERT INTO app.invoices (id) VALUES ($1)", first+2)
	return append(want, fmt.Sprintf("invoice.created %d by eve", first+1), fmt.Sprintf("invoice.paid %d by eve", first+1),
		fmt.Sprintf("invoice.created %d by ", first+2))
}

package app_test

import (
	"database/sql"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
)

// ordinaryRole creates a role with only the privileges that Tidings needs, and returns the
// database's URL with this role.
func ordinaryRole(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	u.User = url.User("ordinary_" + name)
	sqlExec(t, database, "CREATE ROLE ordinary_"+name+" LOGIN")
	sqlExec(t, database, "GRANT CREATE ON DATABASE "+name+" TO ordinary_"+name)
	return u.String()
}

func sqlExec(t *testing.T, database, statements string) {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// While the role lacks privileges on the tables, or they have been moved, requests get 503,
// and /readyz and the metric agree. The server recovers by itself.
func TestUnavailableTables(t *testing.T) {
	t.Parallel()
	admin := testdb.Postgres(t)
	role := ordinaryRole(t, admin)
	u, _ := url.Parse(role)
	w := newWorldWith(t, map[string]any{"database_url": role},
		object{"name": "off", "url": "http://127.0.0.1:1", "enabled": false}, option(reloads))
	w.call("ann", "POST", "/contexts", object{})
	const disconnect = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ROLE_'"
	for _, test := range []struct{ name, away, back, reason string }{
		{
			"all rights", "REVOKE ALL ON ALL TABLES IN SCHEMA tidings FROM ROLE_",
			"GRANT ALL ON ALL TABLES IN SCHEMA tidings TO ROLE_", "GRANT",
		},
		{
			"a right", "REVOKE UPDATE ON ALL TABLES IN SCHEMA tidings FROM ROLE_",
			"GRANT ALL ON ALL TABLES IN SCHEMA tidings TO ROLE_", "GRANT",
		},
		{
			"the schema's rights", "REVOKE ALL ON SCHEMA tidings FROM ROLE_", "GRANT ALL ON SCHEMA tidings TO ROLE_",
			"GRANT USAGE ON SCHEMA",
		},
		{
			"the schema", "ALTER SCHEMA tidings RENAME TO elsewhere", "ALTER SCHEMA elsewhere RENAME TO tidings",
			"tables of Tidings are gone",
		},
		{
			"a table", "ALTER TABLE tidings.contexts RENAME TO elsewhere",
			"ALTER TABLE tidings.elsewhere RENAME TO contexts", "tables of Tidings are gone",
		},
		{
			"no writes", "ALTER ROLE ROLE_ SET default_transaction_read_only = on; " + disconnect,
			"ALTER ROLE ROLE_ RESET default_transaction_read_only; " + disconnect, "read-only",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			exec := func(statements string) {
				sqlExec(t, admin, strings.ReplaceAll(statements, "ROLE_", u.User.Username()))
			}
			exec(test.away)
			w.T = t
			w.becomes("not ready", func() bool {
				a := w.request("", http.MethodGet, "/readyz", nil, nil)
				return a.status == http.StatusServiceUnavailable && strings.Contains(a.text, test.reason)
			})
			if a := w.try("ann", "POST", "/contexts", object{}); a.status != http.StatusServiceUnavailable ||
				a.header.Get("Retry-After") == "" {
				t.Errorf("write: %d %s", a.status, a.text)
			}
			if a := w.try("admin", "POST", "/webhooks/reload", nil); a.status == http.StatusInternalServerError ||
				strings.Contains(w.log.String(), "panic") {
				t.Errorf("reload: %d %s", a.status, a.text)
			}
			w.becomes("the metric is 0", func() bool { return w.databaseUp() == "0" })
			exec(test.back)
			w.becomes("ready again", func() bool {
				return w.request("", http.MethodGet, "/readyz", nil, nil).status == http.StatusOK
			})
			w.becomes("the metric is 1", func() bool { return w.databaseUp() == "1" })
			w.becomes("writes succeed again",
				func() bool { return w.try("ann", "POST", "/contexts", object{}).status == http.StatusCreated })
		})
	}
	w.T = t
	w.mark()
}

// databaseUp returns the value of tidings_database_up.
func (w *world) databaseUp() string {
	w.Helper()
	text := w.request("", http.MethodGet, "/metrics", nil, nil).text
	_, value, _ := strings.Cut(text, "\ntidings_database_up ")
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// becomes waits until is returns true.
func (w *world) becomes(what string, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(testTimeout); !is(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("timed out after %v: %s", testTimeout, what)
		}
	}
}

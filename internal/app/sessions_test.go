package app_test

import (
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// The database's session defaults do not affect the server.
func TestSessionDefaults(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	for name, pollOnly := range map[string]bool{"sessions": false, "poll only": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := func() map[string]any {
				return map[string]any{"database_url": testdb.WithDefaults(t, testdb.Hostile), "poll_only": pollOnly}
			}
			t.Run("API", func(t *testing.T) { testAPI(t, settings()) })
			t.Run("events", func(t *testing.T) { testEveryWay(t, settings()) })
		})
	}
}

// If a database setting prevents startup, the error names the setting and its origin.
func TestDatabaseSettingPreventsStartup(t *testing.T) {
	t.Parallel()
	address := testdb.Postgres(t)
	s, err := store.OpenPostgres(address, store.PostgresOptions{})
	must(t, err)
	must(t, errors.Join(s.Migrate(t.Context()), s.Close()))
	db, err := sql.Open("pgx", address)
	must(t, err)
	defer db.Close()
	tx, err := db.Begin()
	must(t, err)
	defer tx.Rollback() //nolint:errcheck // it only locks
	_, err = tx.Exec("LOCK TABLE tidings.tidings_log_version")
	must(t, err)
	p := newProcess(t, map[string]any{"database_url": address + "&statement_timeout=100ms"})
	const want = "database_url sets statement_timeout to 100ms, which is too short"
	if out := p.refused(nil); !strings.Contains(out, want) {
		t.Errorf("output %q, want %q", out, want)
	}
}

// Users' values stay values, however the database treats backslashes.
func TestBackslashesInValues(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"off": "off", "on": "on"} {
		t.Run("standard_conforming_strings "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t,
				map[string]any{"database_url": testdb.WithDefaults(t,
					map[string]string{"standard_conforming_strings": value})})
			secret := w.upload("bob", "").id()
			for _, filter := range []string{`\') OR 1=1-- `, `\`, `'`, `$1`, `?`, `\x27`, `''; --`, `%_!`} {
				for _, parameter := range []string{"content_type", "filename_search"} {
					a := w.try("ann", "GET", "/files?"+url.Values{parameter: {filter}}.Encode(), nil)
					if a.status >= 500 || strings.Contains(a.text, secret) {
						t.Errorf("%s=%s: %d %s", parameter, filter, a.status, a.text)
					}
				}
				metadata := object{"metadata": object{"k": filter}}
				if got := w.call("ann", "POST", "/contexts", metadata); got.body["metadata"].(object)["k"] != filter {
					t.Errorf("metadata %q became %v", filter, got.body["metadata"])
				}
				id := w.call("ann", "POST", "/contexts", metadata).id()
				if got := w.call("ann", "GET", "/contexts/"+id, nil); got.body["metadata"].(object)["k"] != filter {
					t.Errorf("metadata %q was stored as %v", filter, got.body["metadata"])
				}
			}
		})
	}
}

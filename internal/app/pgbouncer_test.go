package app_test

import (
	"context"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// Everything works behind PgBouncer: in session mode, and in transaction mode with
// poll_only. The database's session defaults do not matter.
func TestPgBouncer(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	for _, test := range []struct {
		mode, parameters string
		pollOnly         bool
	}{
		{"session", "", false},
		{"session", "&default_query_exec_mode=exec&statement_timeout=20s", false},
		{"transaction", "", true},
		{"transaction", "&default_query_exec_mode=exec&statement_timeout=20s", true},
	} {
		t.Run(test.mode+test.parameters, func(t *testing.T) {
			t.Parallel()
			settings := func() map[string]any {
				url := testdb.PgBouncer(t, testdb.WithDefaults(t, testdb.Hostile), test.mode)
				return map[string]any{"database_url": url + test.parameters, "poll_only": test.pollOnly}
			}
			t.Run("API", func(t *testing.T) { testAPI(t, settings()) })
			t.Run("events", func(t *testing.T) { testEveryWay(t, settings()) })
		})
	}
}

// Startup reports settings that do not suit the database, and how to change them.
func TestUnsuitableDatabase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		url      func(t *testing.T) string
		want     string
		pollOnly bool
	}{
		{"a pooler without sessions", func(t *testing.T) string {
			return testdb.PgBouncer(t, testdb.Postgres(t), "transaction")
		}, "set poll_only to true", false},
		{"a pooler with neither sessions nor transactions", func(t *testing.T) string {
			return testdb.PgBouncer(t, testdb.Postgres(t), "statement")
		}, "set its pool_mode to session, or to transaction and poll_only here", true},
		{"a startup parameter that a pooler refuses", func(t *testing.T) string {
			return testdb.PgBouncer(t, testdb.Postgres(t), "session") + "&options=-c%20work_mem%3D1MB"
		}, "database_url", false},
		{"LATIN1", func(t *testing.T) string {
			return testdb.Postgres(t, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
		}, "LATIN1", false},
		{"SQL_ASCII", func(t *testing.T) string {
			return testdb.Postgres(t, "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
		}, "SQL_ASCII", false},
		{
			"an unknown parameter", func(t *testing.T) string { return testdb.Postgres(t) + "&conect_timeout=3" },
			"database_url sets conect_timeout", false,
		},
		{"a parameter that the role may not reset", func(t *testing.T) string {
			return ordinaryRole(t, testdb.WithDefaults(t, map[string]string{"session_replication_role": "replica"}))
		}, "ALTER DATABASE … RESET session_replication_role", false},
		{"a schema without privileges", func(t *testing.T) string {
			url := testdb.Postgres(t)
			sqlExec(t, url, "CREATE SCHEMA tidings")
			return ordinaryRole(t, url)
		}, "GRANT CREATE, USAGE ON SCHEMA \"tidings\" TO ordinary_", false},
		{"a role with few connections", func(t *testing.T) string {
			url := testdb.Postgres(t)
			role := ordinaryRole(t, url)
			sqlExec(t, url, "ALTER ROLE ordinary_"+path.Base(strings.Split(url, "?")[0])+" CONNECTION LIMIT 1")
			return role
		}, "ALTER ROLE … CONNECTION LIMIT", false},
		{"a database with few connections", func(t *testing.T) string {
			url := testdb.Postgres(t)
			sqlExec(t, url, "ALTER DATABASE "+path.Base(strings.Split(url, "?")[0])+" CONNECTION LIMIT 1")
			return ordinaryRole(t, url)
		}, "ALTER DATABASE … CONNECTION LIMIT", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := config.Load(config.Input{Flags: map[string]string{
				"database_url": test.url(t),
				"data_dir":     t.TempDir(), "listen": "127.0.0.1:0", "poll_only": strconv.FormatBool(test.pollOnly),
			}})
			if err != nil {
				t.Fatal(err)
			}
			server, err := app.New(context.Background(), cfg, app.Options{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				t.Fatal("the server started", server.Close())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v; want %q in it", err, test.want)
			}
		})
	}
}

// Startup logs that it is waiting, and finally fails with advice.
func TestPoolerWithoutFreeConnections(t *testing.T) {
	t.Parallel()
	url := testdb.PgBouncer(t, testdb.Postgres(t), "session", "default_pool_size = 1", "query_wait_timeout = 6")
	cfg, err := config.Load(config.Input{Flags: map[string]string{
		"database_url": url, "data_dir": t.TempDir(),
		"listen": "127.0.0.1:0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	log := new(syncBuffer)
	server, err := app.New(t.Context(), cfg, app.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err == nil {
		t.Fatal("the server started", server.Close())
	}
	if want := "raise its default_pool_size, or lower database.max_connections here"; !strings.Contains(err.Error(),
		want) {
		t.Errorf("error = %v; want %q in it", err, want)
	}
	if want := "still waiting for the database"; strings.Count(log.String(), want) != 1 {
		t.Errorf("log:\n%s\nwant %q once", log, want)
	}
}

package app_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// Behind PgBouncer everything works: with sessions as without a pooler, without
// them with poll_only. Nothing that the database sets for its sessions matters.
func TestPgBouncer(t *testing.T) {
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

// What does not fit a database is said at start, with the setting that helps.
func TestDatabaseThatDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		url  func(t *testing.T) string
		want string
	}{
		{"a pooler without sessions", func(t *testing.T) string {
			return testdb.PgBouncer(t, testdb.Postgres(t), "transaction")
		}, "set poll_only to true"},
		{"a startup parameter that a pooler refuses", func(t *testing.T) string {
			return testdb.PgBouncer(t, testdb.Postgres(t), "session") + "&options=-c%20work_mem%3D1MB"
		}, "database_url"},
		{"LATIN1", func(t *testing.T) string {
			return testdb.Postgres(t, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
		}, "LATIN1"},
		{"SQL_ASCII", func(t *testing.T) string {
			return testdb.Postgres(t, "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
		}, "SQL_ASCII"},
		{"an unknown parameter", func(t *testing.T) string { return testdb.Postgres(t) + "&conect_timeout=3" }, "conect_timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := config.Load(config.Input{Flags: map[string]string{"database_url": test.url(t), "data_dir": t.TempDir(), "listen": "127.0.0.1:0"}})
			if err != nil {
				t.Fatal(err)
			}
			server, err := app.New(context.Background(), cfg, app.Options{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				t.Fatal("it starts", server.Close())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v; want %q in it", err, test.want)
			}
		})
	}
}

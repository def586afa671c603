package pgurl_test

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/pgurl"
)

// Errors name what is invalid and quote no part of the URL.
func TestParse(t *testing.T) {
	const base = "postgres://hunter2:hunter2@hunter2.example.com/hunter2"
	for query, want := range map[string]string{
		"":                      "",
		"?sslmode=verify-full":  "",
		"?application_name=a":   "",
		"?pool_max_conns=6":     "",
		"?work_mem=1MB":         "", // a session setting
		"?sslmode=hunter2":      "the parameter sslmode is invalid: expected one of disable",
		"?connect_timeout=1h2":  "the parameter connect_timeout is invalid: expected a whole number of seconds",
		"?pool_max_conns=1h2":   "the parameter pool_max_conns is invalid",
		"?pool_max_conns=2":     "the parameter pool_max_conns must be from 6 to 262143",
		"?sslcert=/hunter2":     "the parameter sslcert is invalid",
		"?sslkey=/hunter2":      "the parameter sslkey is invalid: set sslcert as well",
		"?sslrootcert=/hunter2": "the parameter sslrootcert is invalid",
		"?sslrootcert=/hunter2&sslmode=verify-full": "the parameter sslrootcert is invalid",
		"?sslrootcert=/hunter2&sslmode=disable&connect_timeout=h2": "the parameter connect_timeout is " +
			"invalid: expected a whole number of seconds",
		"?sslcert=/hunter2&sslkey=/hunter2&sslmode=require": "the parameter sslcert is invalid",
		"?pool_max_conn_lifetime=hunter2&target_session_attrs=some": "the parameter pool_max_conn_lifetime is " +
			"invalid: expected a duration, such as \"30m\"; the parameter target_session_attrs",
		"?default_query_exec_mode=hunter2": "the parameter default_query_exec_mode is invalid",
	} {
		_, err := pgurl.Parse(base + query)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)):
			t.Errorf("%s: error = %v, want %s", query, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error quotes the URL: %v", query, err)
		}
	}
	for text, want := range map[string]string{
		"mysql://h/hunter2":              "must begin with postgres://",
		"postgres://h:hunter2/d":         "PostgreSQL URL",
		"postgres://h:99999/hunter2":     "invalid host, port, user or database",
		"host=localhost dbname=hunter2":  "must begin with postgres://",
		"postgres://u:p@ss/w#rd@h/hunt2": "percent-encoded",
	} {
		if _, err := pgurl.Parse(text); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error = %v, want %s", text, err, want)
		}
	}
}

// A Python application's URL can be used unchanged.
func TestSQLAlchemy(t *testing.T) {
	for text, want := range map[string]string{
		"postgresql+asyncpg://u:p%40@h:5433/d": "postgresql://u:p%40@h:5433/d",
		"postgresql+asyncpg://u@h/d?ssl=require&application_name=ssl=": "" +
			"postgresql://u@h/d?sslmode=require&application_name=ssl=",
		"postgresql+psycopg2://u@h/d?sslmode=disable": "postgresql://u@h/d?sslmode=disable",
		"postgres://u:a+b@h/d?ssl=1":                  "postgres://u:a+b@h/d?ssl=1",
		"mysql+asyncpg://u@h/d":                       "mysql+asyncpg://u@h/d",
	} {
		if got := pgurl.Plain(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	cfg, err := pgurl.Parse("postgresql+asyncpg://u:p@h:5433/d?ssl=disable")
	if err != nil {
		t.Fatal(err)
	}
	if c := cfg.ConnConfig; c.Host != "h" || c.Port != 5433 || c.User != "u" ||
		c.Password != "p" || c.TLSConfig != nil {
		t.Errorf("%+v", c.Config)
	}
}

// A value may also come from the environment.
func TestEnvironment(t *testing.T) {
	t.Setenv("PGSSLMODE", "hunter2")
	_, err := pgurl.Parse("postgres://localhost/d")
	if err == nil || !strings.Contains(err.Error(), "PostgreSQL environment variable") ||
		strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error = %v", err)
	}
	if _, err := pgurl.Parse("postgres://localhost/d?sslmode=disable"); err != nil {
		t.Error(err)
	}
}

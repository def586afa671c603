// Package pgurl parses the URL of a PostgreSQL database. Its errors name the
// invalid part of the URL but never quote the URL or its values, which may be
// secret.
package pgurl

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidings-dev/tidings/sender"
)

// MinConnections and MaxConnections bound the connection limit of a process. PostgreSQL
// itself takes no more than the latter.
const (
	MinConnections = 6
	MaxConnections = 262_143
)

const aURL = `expected a PostgreSQL URL, such as "postgres://user:password@host:5432/tidings"`

// Plain converts SQLAlchemy's form of a URL to libpq's. SQLAlchemy appends the name
// of a Python driver to the scheme, as in postgresql+asyncpg://, and asyncpg calls
// sslmode ssl.
func Plain(text string) string {
	scheme, rest, _ := strings.Cut(text, "://")
	scheme, driver, found := strings.Cut(scheme, "+")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return text
	}
	if address, query, found := strings.Cut(rest, "?"); found && driver == "asyncpg" {
		parameters := strings.Split(query, "&")
		for i, p := range parameters {
			if value, ok := strings.CutPrefix(p, "ssl="); ok {
				parameters[i] = "sslmode=" + value
			}
		}
		rest = address + "?" + strings.Join(parameters, "&")
	}
	return scheme + "://" + rest
}

// Parse parses a URL, which may have SQLAlchemy's form. Settings that the URL omits
// come from PostgreSQL's environment variables (PGSSLMODE, …).
func Parse(text string) (*pgxpool.Config, error) {
	text = Plain(text)
	u, err := sender.CheckURL(text, "postgres", "postgresql")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", aURL, err)
	}
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, blame(*u)
	}
	if u.Query().Has("pool_max_conns") && (cfg.MaxConns < MinConnections || cfg.MaxConns > MaxConnections) {
		return nil, fmt.Errorf("the parameter pool_max_conns must be from %d to %d", MinConnections, MaxConnections)
	}
	return cfg, nil
}

// blame finds the invalid part of a URL. The parser's own error may contain the
// URL with its password.
func blame(u url.URL) error {
	parameters := u.Query()
	parses := func(names ...string) bool {
		some := make(url.Values)
		for _, name := range names {
			some[name] = parameters[name]
		}
		u.RawQuery = some.Encode()
		_, err := pgxpool.ParseConfig(u.String())
		return err == nil
	}
	if !parses() {
		if _, err := pgxpool.ParseConfig("postgres://localhost/"); err != nil {
			return errors.New("a PostgreSQL environment variable, such as PGSSLMODE or PGCONNECT_TIMEOUT, " +
				"has an invalid value; correct or unset it")
		}
		return fmt.Errorf("%s: invalid host, port, user or database", aURL)
	}
	var good, wrong []string
	for _, group := range groups(parameters) {
		if parses(append(slices.Clone(good), group...)...) {
			good = append(good, group...)
		} else {
			wrong = append(wrong, describe(group))
		}
	}
	if wrong == nil {
		return errors.New("the parameters after the ? are malformed; percent-encode special characters in them")
	}
	return errors.New(strings.Join(wrong, "; "))
}

// certificate lists parameters that only work together.
var certificate = []string{"sslcert", "sslkey", "sslpassword"}

// groups returns the names of the parameters. Those that only work together form one
// group. sslmode is first, because it determines whether files are read.
func groups(parameters url.Values) (groups [][]string) {
	var pair []string
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		switch {
		case name == "sslmode":
			groups = slices.Insert(groups, 0, []string{name})
		case slices.Contains(certificate, name):
			pair = append(pair, name)
		default:
			groups = append(groups, []string{name})
		}
	}
	if pair != nil {
		groups = append(groups, pair)
	}
	return groups
}

const (
	aNumber   = "expected a whole number"
	aDuration = `expected a duration, such as "30m"`
)

// expected describes the valid values of parameters.
var expected = map[string]string{
	"sslmode":     "expected one of disable, allow, prefer, require, verify-ca, verify-full",
	"sslrootcert": "check that the file exists, is readable and contains certificates",
	"sslcert": "check that the files of sslcert and sslkey exist, are readable and match " +
		"each other",
	"sslkey":                        "set sslcert as well",
	"target_session_attrs":          "expected one of any, read-write, read-only, primary, standby, prefer-standby",
	"connect_timeout":               "expected a whole number of seconds",
	"pool_max_conns":                aNumber,
	"pool_min_conns":                aNumber,
	"pool_min_idle_conns":           aNumber,
	"pool_max_conn_lifetime":        aDuration,
	"pool_max_conn_lifetime_jitter": aDuration,
	"pool_max_conn_idle_time":       aDuration,
	"pool_ping_timeout":             aDuration,
	"pool_health_check_period":      aDuration,
}

func describe(group []string) string {
	text := "the parameter " + group[0] + " is invalid"
	if what := expected[group[0]]; what != "" {
		text += ": " + what
	}
	return text
}

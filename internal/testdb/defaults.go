package testdb

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Hostile is a set of session defaults that differ from PostgreSQL's own.
var Hostile = map[string]string{
	"standard_conforming_strings":   "off",
	"backslash_quote":               "on",
	"DateStyle":                     "SQL, DMY",
	"TimeZone":                      "'Asia/Kathmandu'",
	"client_encoding":               "LATIN1",
	"bytea_output":                  "escape",
	"IntervalStyle":                 "sql_standard",
	"extra_float_digits":            "-15",
	"default_transaction_isolation": "serializable",
	"transform_null_equals":         "on",
	"quote_all_identifiers":         "on",
}

// WithDefaults returns the URL of a new, empty database with the given session
// defaults. The values are SQL.
func WithDefaults(tb testing.TB, settings map[string]string) string {
	tb.Helper()
	database := Postgres(tb)
	u, err := url.Parse(database)
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		err := run(database, "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" SET "+name+" = "+settings[name])
		if err != nil {
			tb.Fatal(err)
		}
	}
	return database
}

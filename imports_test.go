package tidings_test

import (
	"maps"
	"os/exec"
	"strings"
	"testing"
)

const (
	module = "github.com/tidings-dev/tidings"
	// These are internal so that they add nothing to the public API.
	jsontext = module + "/internal/jsontext"
	unread   = module + "/internal/unread"
)

// The public packages stay light, and imports point one way.
func TestImports(t *testing.T) {
	heavy := map[string]string{
		module + "/internal":            "embedders can't have it",
		"github.com/danielgtaylor/huma": "the HTTP API is the server's",
		"github.com/uptrace/bun":        "queries for resources are the server's",
		"github.com/spf13/cobra":        "the command line is the server's",
		"github.com/prometheus":         "embedders bring their own metrics",
		"github.com/jackc/pgx":          "the driver is the program's choice",
		"modernc.org/sqlite":            "the driver is the program's choice",
		"github.com/google/go-cmp":      "it is for tests",
	}
	// The operator API validates and describes itself with huma, and has metrics for
	// Prometheus: those who don't import package operator have neither. What it shares
	// with the server's API shows in nothing that it exports for programs.
	operator := without(without(without(heavy, "github.com/danielgtaylor/huma"), "github.com/prometheus"),
		module+"/internal")
	for _, name := range []string{"app", "auth", "cli", "config", "httpapi", "job", "resource", "store"} {
		operator[module+"/internal/"+name] = "the operator API knows nothing of the server"
	}
	forbidden := map[string]map[string]string{
		".": {
			"github.com/": "the words import the standard library only",
			"golang.org/": "the words import the standard library only",
		},
		"./vocabulary": heavy, "./sender": heavy, "./receive": heavy, "./eventlog": heavy,
		"./eventlog/internal/sqllog": heavy, "./eventlog/sqldb": heavy,
		"./eventlog/sqlite": heavy, "./eventlog/postgres": heavy,
		"./eventlog/postgres/listen": without(heavy, "github.com/jackc/pgx"),
		"./outbox":                   without(heavy, "github.com/jackc/pgx"),
		"./outbox/capture":           heavy,
		"./outbox/outboxtest":        without(heavy, "github.com/jackc/pgx"),
		"./operator":                 without(operator, "github.com/jackc/pgx"),
		"./internal/jsontext":        {"github.com/": "the root imports it"},
		"./internal/unread":          {"github.com/": "the sender imports it"},
		"./relay": merge(heavy,
			map[string]string{module + "/sender": "the relay declares the interface it calls"}),
	}
	for pkg, banned := range forbidden {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}",
			pkg).Output()
		if err != nil {
			t.Fatalf("%s: %v", pkg, err) // a package that no longer exists
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for prefix, reason := range banned {
				if dep != module && dep != jsontext && dep != unread && strings.HasPrefix(dep, prefix) {
					t.Errorf("%s imports %s: %s", pkg, dep, reason)
				}
			}
		}
	}
}

// without returns the rules but for one.
func without(rules map[string]string, prefix string) map[string]string {
	rest := maps.Clone(rules)
	delete(rest, prefix)
	return rest
}

func merge(a, b map[string]string) map[string]string {
	all := make(map[string]string, len(a)+len(b))
	for _, m := range []map[string]string{a, b} {
		maps.Copy(all, m)
	}
	return all
}

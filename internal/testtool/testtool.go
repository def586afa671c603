// Package testtool finds non-Go programs that tests need. If a program is
// missing, the test is skipped, unless it runs under a make target that
// installs the program; then it fails.
package testtool

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// requireEnv is a comma-separated list of programs without which tests fail
// instead of being skipped; "all" stands for all of them. The Makefile sets it.
const requireEnv = "TIDINGS_TEST_REQUIRE"

// PostgreSQL is the only program that "make test" installs.
const PostgreSQL = "postgresql"

// Missing skips the test, or fails it if the program is required.
func Missing(tb testing.TB, name string) {
	tb.Helper()
	target := "make test-all"
	if name == PostgreSQL {
		target = "make test"
	}
	if requires(name) {
		tb.Fatalf("%s is not installed; run %q to install it", name, target)
	}
	tb.Skipf("%s is not installed; run %q to install it", name, target)
}

// All reports whether the test runs under "make test-all", where it may take long.
func All() bool { return requires("all") }

// InAll skips the test except under "make test-all", because it takes long.
func InAll(tb testing.TB) {
	tb.Helper()
	if !All() {
		tb.Skip(`slow test: run it with "make test-all"`)
	}
}

// Rounds returns how often a test repeats something: n times under "make test-all",
// and a quarter of it elsewhere.
func Rounds(n int) int {
	if All() {
		return n
	}
	return n / 4
}

func requires(name string) bool {
	required := strings.Split(os.Getenv(requireEnv), ",")
	return slices.Contains(required, name) || slices.Contains(required, "all")
}

// Allow returns the time limit for a wait in real time that takes at most d on
// an idle machine: four times d, for the race detector.
func Allow(d time.Duration) time.Duration {
	if Raced {
		return 4 * d
	}
	return d
}

// folders lists where the Makefile installs programs, relative to the
// repository root.
var folders = []string{"bin", "bin/prometheus/usr/bin", "bin/frontends/usr/sbin", "bin/frontends/usr/bin"}

// Path returns the path of a program built by the Makefile or found on PATH. If
// there is none, it calls [Missing].
func Path(tb testing.TB, name string) string {
	tb.Helper()
	_, here, _, _ := runtime.Caller(0)
	for _, folder := range folders {
		path := filepath.Join(filepath.Dir(here), "..", "..", folder, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, name)
	}
	return path
}

// Package testtool finds programs that tests need. If a program is missing, it
// skips the test, or fails it under a make target that installs the program.
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

// requireEnv is a comma-separated list of required programs, without which tests fail
// instead of being skipped; "all" means all of them. The Makefile sets it.
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

// All reports whether the test runs under "make test-all", where it may be slow.
func All() bool { return requires("all") }

// InAll skips a slow test except under "make test-all".
func InAll(tb testing.TB) {
	tb.Helper()
	if !All() {
		tb.Skip(`slow test: run it with "make test-all"`)
	}
}

// Rounds returns how often to repeat something: n times under "make test-all",
// otherwise a quarter of that.
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

// Allow returns the time limit for something that takes at most d on an idle
// machine: four times d under the race detector.
func Allow(d time.Duration) time.Duration {
	if Raced {
		return 4 * d
	}
	return d
}

// folders lists the directories in which the Makefile installs programs, relative to
// the repository root.
var folders = []string{"bin", "bin/prometheus/usr/bin", "bin/frontends/usr/sbin", "bin/frontends/usr/bin"}

// Path returns the path of a program installed by the Makefile or found in PATH. If
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

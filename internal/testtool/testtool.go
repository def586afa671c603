// Package testtool finds the programs, other than Go, that tests run. A test whose
// program is missing is skipped, unless the make target that runs it promises to
// install the program: then it fails.
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

// requireEnv lists the programs, separated by commas, without which tests fail
// instead of being skipped. "all" is all of them. The Makefile sets it.
const requireEnv = "TIDINGS_TEST_REQUIRE"

// PostgreSQL is the one program that "make test" installs.
const PostgreSQL = "postgresql"

// Missing skips the test, or fails it if the program is required.
func Missing(tb testing.TB, name string) {
	tb.Helper()
	target := "make test-all"
	if name == PostgreSQL {
		target = "make test"
	}
	if requires(name) {
		tb.Fatalf("%s is missing; %q installs it", name, target)
	}
	tb.Skipf("left out: %s is missing; %q installs it", name, target)
}

// All reports whether "make test-all" runs the test, which may take long then.
func All() bool { return requires("all") }

// InAll skips the test unless "make test-all" runs it: it takes long.
func InAll(tb testing.TB) {
	tb.Helper()
	if !All() {
		tb.Skip(`left out: it takes long; "make test-all" runs it`)
	}
}

func requires(name string) bool {
	required := strings.Split(os.Getenv(requireEnv), ",")
	return slices.Contains(required, name) || slices.Contains(required, "all")
}

// Allow returns the limit for a wait in real time that takes at most d on a machine
// with nothing else to do: four times d with the race detector.
func Allow(d time.Duration) time.Duration {
	if Raced {
		return 4 * d
	}
	return d
}

// folders are where the Makefile puts programs, below the root of the repository.
var folders = []string{"bin", "bin/prometheus/usr/bin", "bin/frontends/usr/sbin", "bin/frontends/usr/bin"}

// Path returns the path of a program that the Makefile built or that is on PATH.
// Without one it calls [Missing].
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

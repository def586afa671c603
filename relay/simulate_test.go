package relay_test

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

var (
	simulateSeeds = flag.Uint64("simulate.seeds", uint64(testtool.Rounds(4)),
		"how many simulated runs of six hours; 1460 are a year")
	simulateFirst   = flag.Uint64("simulate.first", 1, "the seed of the first run")
	simulateWithout = flag.String("simulate.without", "", "kinds of trouble that are left out, with commas")
)

// simulatedTime is how long trouble lasts in one run.
const simulatedTime = 6 * time.Hour

// TestSimulatedYear runs the real relay in virtual time, three replicas on a log like
// PostgreSQL's or one process on a log like SQLite's, against endpoints with
// personalities, which are removed, come back and get other names. Meanwhile processes
// crash, stand still, lose their leases and are configured anew, the database goes silent
// or loses what it had, events expire, clocks jump, and operators replay and pause. A
// checker of the whole history then states what is promised. A seed decides everything but
// the interleaving of goroutines. For one that failed, kinds of trouble that it does not
// need are left out, and the command is printed that does the rest.
func TestSimulatedYear(t *testing.T) {
	without := strings.FieldsFunc(*simulateWithout, func(r rune) bool { return r == ',' })
	run := func(t *testing.T, seed uint64, without []string) (problems []string) {
		synctest.Test(t, func(t *testing.T) { problems = newSimulation(t, seed, without).run() })
		return problems
	}
	for seed := *simulateFirst; seed < *simulateFirst+*simulateSeeds; seed++ {
		problems := run(t, seed, without)
		if len(problems) == 0 {
			continue
		}
		t.Logf("seed %d has %d problems, the first: %s; now to what it needs for one", seed, len(problems), problems[0])
		needless := slices.Clone(without)
		for _, k := range kinds {
			if slices.Contains(needless, k.name) || k.name == "write" {
				continue
			}
			if fewer := run(t, seed, append(slices.Clone(needless), k.name)); len(fewer) > 0 {
				needless, problems = append(needless, k.name), fewer
			}
		}
		t.Fatalf("seed %d:\n\t%s\nmake simulate SEEDS=1 FIRST=%d WITHOUT=%s", seed,
			strings.Join(problems[:min(len(problems), 10)], "\n\t"), seed, strings.Join(needless, ","))
	}
}

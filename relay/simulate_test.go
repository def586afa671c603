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
		"number of simulated runs of six hours; 1460 are a year")
	simulateFirst   = flag.Uint64("simulate.first", 1, "seed of the first run")
	simulateWithout = flag.String("simulate.without", "", "kinds of trouble to leave out, separated by commas")
)

// simulatedTime is how long trouble lasts in one run.
const simulatedTime = 6 * time.Hour

// TestSimulatedYear runs the real relay in virtual time, three replicas on a log like
// PostgreSQL's or one process on a log like SQLite's, against endpoints with
// personalities, which are removed, come back and are renamed. Meanwhile processes
// crash, hang, lose their leases and are reconfigured, the database goes silent
// or loses data, events expire, clocks jump, and operators replay and pause. A
// checker then compares the whole history with the promises. A seed decides everything except
// the interleaving of goroutines. For a seed that fails, kinds of trouble that are not needed
// are left out, and the command that runs the rest is printed.
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
		t.Logf("seed %d has %d problems, the first: %s; looking for the trouble needed", seed, len(problems), problems[0])
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

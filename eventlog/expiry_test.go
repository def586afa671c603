package eventlog_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

func TestExpiryClock(t *testing.T) {
	const keep = 3 * time.Hour
	type run struct {
		after   time.Duration // by the log's clock, since the previous run
		refused bool
	}
	for name, runs := range map[string][]run{
		"it runs normally":       {{time.Hour, false}, {2 * time.Hour, false}},
		"set forward":            {{6 * time.Hour, true}, {2 * time.Hour, true}, {2 * time.Hour, false}},
		"set forward and back":   {{6 * time.Hour, true}, {-6 * time.Hour, false}, {time.Minute, false}},
		"set back after a while": {{6 * time.Hour, true}, {time.Hour, true}, {-5 * time.Hour, false}},
		"a small correction":     {{6 * time.Hour, true}, {-30 * time.Second, true}, {time.Hour, true}},
		"many corrections": {
			{6 * time.Hour, true}, {-time.Second, true}, {-time.Second, true}, {time.Hour, true}, {-6 * time.Hour, false},
		},
		"a little less": {{6 * time.Hour, true}, {-time.Hour, true}, {time.Hour, true}, {3 * time.Hour, false}},
		"a second time": {
			{6 * time.Hour, true},
			{5 * time.Hour, true},
			{-5 * time.Hour, true},
			{2 * time.Hour, true},
			{2 * time.Hour, false},
		},
		"set right, then forward and back": {
			{5 * time.Hour, true},
			{6 * time.Hour, true},
			{-6 * time.Hour, true}, // what was logged before the first is still in danger
			{2 * time.Hour, true},
			{2 * time.Hour, false},
		},
		"years, and back": {{1e5 * time.Hour, true}, {-time.Hour, true}, {-1e5 * time.Hour, false}, {time.Hour, false}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			clock, err := eventlog.ExpiryClock{}.At(now, keep)
			for i, r := range runs {
				if err != nil && i == 0 {
					t.Fatal(err)
				}
				now = now.Add(r.after)
				if clock, err = clock.At(now, keep); (err != nil) != r.refused {
					t.Errorf("run %d: %v, want refused: %t", i+1, err, r.refused)
				}
			}
		})
	}
}

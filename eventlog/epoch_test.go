package eventlog_test

import (
	"math"
	"slices"
	"testing"

	"github.com/tidings-dev/tidings/eventlog"
)

// However often databases were restarted and lost data, a reader learns how much of the log
// it knew is unchanged.
func TestEpochs(t *testing.T) {
	epochs := func(bases map[string]int64, ids ...string) (all eventlog.Epochs) {
		for _, id := range ids {
			all = append(all, eventlog.Epoch{ID: id, Base: bases[id]})
		}
		return all
	}
	bases := map[string]int64{"a": 0, "b": 100, "c": 160, "c'": 120, "d": 110, "x": 7}
	for _, test := range []struct {
		name         string
		earlier, now eventlog.Epochs
		want         int64
	}{
		{"nothing happened", epochs(bases, "a", "b"), epochs(bases, "a", "b"), math.MaxInt64},
		{"a start", epochs(bases, "a", "b"), epochs(bases, "a", "b", "c"), 160},
		{"two, the second of which lost more", epochs(bases, "a", "b"), epochs(bases, "a", "b", "c'", "d"), 110},
		{
			"another server than the one that began the last epoch", epochs(bases, "a", "b", "c"),
			epochs(bases, "a", "b", "c'"), 120,
		},
		{"a backup that was never started", epochs(bases, "a", "b", "c"), epochs(bases, "a", "b"), 160},
		{"older epochs are forgotten", epochs(bases, "a", "b"), epochs(bases, "b", "c"), 160},
		{"another database", epochs(bases, "a", "b"), epochs(bases, "x"), 0},
		{"the first epoch of a log", nil, epochs(bases, "b"), 100},
	} {
		if got := test.now.Kept(test.earlier); got != test.want {
			t.Errorf("%s: kept up to %d, want %d", test.name, got, test.want)
		}
	}
	now := epochs(bases, "a", "b", "c'", "d")
	for id, want := range map[string]int64{"a": 100, "b": 110, "c'": 110, "d": math.MaxInt64} {
		if kept, known := now.KeptOf(id); kept != want || !known {
			t.Errorf("kept of epoch %s: %d, %t; want %d", id, kept, known, want)
		}
	}
	if _, known := now.KeptOf("c"); known {
		t.Error("a lost epoch is known")
	}
}

// A reader whose epoch was lost, because it began after the restored backup was made,
// learns from the epoch's id how much of the log is unchanged, however many
// epochs were lost.
func TestLostEpochs(t *testing.T) {
	begin := func(log eventlog.Epochs, base int64) eventlog.Epochs {
		return append(slices.Clone(log), eventlog.Epoch{ID: log.NewID(base), Base: base})
	}
	backup := begin(begin(begin(nil, 0), 100), 200) // made at position 250
	for lost := 1; lost <= 300; lost++ {
		before := backup
		for i := range lost {
			before = begin(before, 300+int64(i))
		}
		id := before.Current().ID
		if now := begin(begin(backup, 250), 270); now.Current().ID != id {
			kept, known := now.KeptOf(id)
			if !known || kept > 250 || lost == 1 && kept != 250 {
				t.Fatalf("%d epochs were lost: kept up to %d, %t; want at most 250 (id %s)", lost, kept, known, id)
			}
		}
	}
	lower := begin(begin(backup, 220), 240) // it also lost some events that were in the backup
	if kept, known := begin(backup, 250).KeptOf(lower.Current().ID); !known || kept > 220 {
		t.Errorf("kept up to %d, %t; want at most 220", kept, known)
	}
	for _, id := range []string{"", "x", "x.", "x.short", "x.ABCDEFGHx", "x.ABCDEFGH-1", "x..."} {
		if kept, known := backup.KeptOf(id); known {
			t.Errorf("kept of epoch %q: %d", id, kept)
		}
	}
}

package eventlog_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

func TestMarks(t *testing.T) {
	marks := eventlog.Marks{{Index: 0, Of: 1, Low: 3, High: 8, Open: []int64{5, 7}, Ahead: []int64{12}}}
	var settled []int64
	for sequence := int64(1); sequence < 15; sequence++ {
		if marks.Settled(tidings.Event{Sequence: sequence}) {
			settled = append(settled, sequence)
		}
	}
	if want := []int64{1, 2, 3, 4, 6, 8, 12}; !slices.Equal(settled, want) {
		t.Errorf("settled: %v, want %v", settled, want)
	}
	for after, want := range map[int64]int{3: 1, 11: 1, 12: 0, 20: 0} {
		if got := len(marks.After(after)); got != want {
			t.Errorf("%d marks cover positions after %d, want %d", got, after, want)
		}
	}
	parsed, err := eventlog.ParseMarks(marks.String())
	if diff := cmp.Diff(marks, parsed); diff != "" || err != nil {
		t.Errorf("read back: %v (-want +got):\n%s", err, diff)
	}
	if text := eventlog.Marks(nil).String(); text != "" {
		t.Errorf("no marks encode to %q", text)
	}
	if _, err := eventlog.ParseMarks("[{"); err == nil {
		t.Error("half of an encoded mark was accepted")
	}
}

// A partition's mark has no effect on the events of another.
func TestMarksOfPartitions(t *testing.T) {
	old := []eventlog.Cursor{
		{Lease: eventlog.Lease{Partition: eventlog.Partition{Endpoint: "a", Index: 0, Of: 2}}, Sequence: 10},
		{Lease: eventlog.Lease{Partition: eventlog.Partition{Endpoint: "a", Index: 1, Of: 2}}, Sequence: 4},
	}
	marks := eventlog.Divide(old)
	for n := range 20 {
		e := tidings.Event{Type: "order", ResourceID: string(rune('a' + n)), Sequence: 7}
		if got, want := marks.Settled(e), old[0].Has(e); got != want {
			t.Errorf("event of %s settled: %v, want %v", e.Resource(), got, want)
		}
	}
}

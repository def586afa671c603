package eventlog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/tidings-dev/tidings"
)

// Mark lists events of a partition that are settled although the cursor has not
// passed them: those that overtook one that takes long, and those that were settled
// before the endpoint was repartitioned.
type Mark struct {
	Index int `json:"index"`
	Of    int `json:"of"`
	// Everything up to Low is settled, and everything up to High except the
	// positions in Open.
	Low  int64   `json:"low"`
	High int64   `json:"high,omitempty"`
	Open []int64 `json:"open,omitempty"` // sorted
	// Ahead are the settled positions above High.
	Ahead []int64 `json:"ahead,omitempty"` // sorted
}

// end returns the position above which the mark has no information.
func (m *Mark) end() int64 {
	end := max(m.Low, m.High)
	if n := len(m.Ahead); n > 0 {
		end = max(end, m.Ahead[n-1])
	}
	return end
}

func (m *Mark) settled(e tidings.Event) bool {
	if !(Partition{Index: m.Index, Of: m.Of}).Has(e) {
		return false
	}
	contains := func(list []int64) bool {
		_, found := slices.BinarySearch(list, e.Sequence)
		return found
	}
	switch {
	case e.Sequence <= m.Low:
		return true
	case e.Sequence <= m.High:
		return !contains(m.Open)
	}
	return contains(m.Ahead)
}

// Marks are the marks saved with a cursor.
type Marks []Mark

// Settled reports whether an event above the cursor is already settled.
func (m Marks) Settled(e tidings.Event) bool {
	return slices.ContainsFunc(m, func(mark Mark) bool { return mark.settled(e) })
}

// After returns the marks that have information about events after a position.
func (m Marks) After(sequence int64) Marks {
	return slices.DeleteFunc(slices.Clone(m), func(mark Mark) bool { return mark.end() <= sequence })
}

// Until returns the marks without any information about events after a position.
func (m Marks) Until(sequence int64) Marks {
	upTo := func(list []int64) []int64 {
		end, _ := slices.BinarySearch(list, sequence+1)
		return slices.Clone(list[:end])
	}
	cut := slices.Clone(m)
	for i := range cut {
		c := &cut[i]
		c.Low, c.High = min(c.Low, sequence), min(c.High, sequence)
		c.Open, c.Ahead = upTo(c.Open), upTo(c.Ahead)
	}
	return cut
}

func (m Marks) equal(other Marks) bool {
	return slices.EqualFunc(m, other, func(a, b Mark) bool {
		return a.Index == b.Index && a.Of == b.Of && a.Low == b.Low && a.High == b.High &&
			slices.Equal(a.Open, b.Open) && slices.Equal(a.Ahead, b.Ahead)
	})
}

// String encodes the marks for storage; empty for none.
func (m Marks) String() string {
	if len(m) == 0 {
		return ""
	}
	text, _ := json.Marshal(m) // only numbers: it can't fail
	return string(text)
}

// ParseMarks parses the output of [Marks.String].
func ParseMarks(text string) (Marks, error) {
	var m Marks
	if text == "" {
		return m, nil
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("marks of a cursor: %w", err)
	}
	return m, nil
}

// Divide returns the marks for the new partitions of an endpoint that is
// repartitioned: what each of the old ones had settled.
func Divide(old []Cursor) Marks {
	var all Marks
	low := int64(math.MaxInt64)
	old = slices.SortedFunc(slices.Values(old), func(a, b Cursor) int { return cmp.Compare(a.Index, b.Index) })
	for _, c := range old {
		low = min(low, c.Sequence)
		own := false
		for _, m := range c.Marks {
			if m.Index == c.Index && m.Of == c.Of {
				m.Low, own = max(m.Low, c.Sequence), true
			}
			all = append(all, m)
		}
		if !own {
			all = append(all, Mark{Index: c.Index, Of: c.Of, Low: c.Sequence})
		}
	}
	return all.After(low)
}

package relay

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings"
)

func TestMergeEveryPair(t *testing.T) {
	type key struct {
		mode           tidings.Coalesce
		earlier, later tidings.Action
	}
	const earlier, later = "earlier", "later"
	want := map[key]string{
		{tidings.CoalesceUpdates, tidings.Updated, tidings.Updated}: later,
		{tidings.CoalesceLatest, tidings.Updated, tidings.Updated}:  later,
		{tidings.CoalesceLatest, tidings.Created, tidings.Updated}:  earlier,
		{tidings.CoalesceLatest, tidings.Updated, tidings.Deleted}:  later,
		{tidings.CoalesceLatest, tidings.Created, tidings.Deleted}:  later,
	}
	actions := append(tidings.Actions(), "paid") // each payment may mean something else
	for _, mode := range []tidings.Coalesce{"", tidings.CoalesceOff, tidings.CoalesceUpdates, tidings.CoalesceLatest} {
		for _, a := range actions {
			for _, b := range actions {
				got := ""
				if keepLater, merged := merge(mode, a, b); merged && keepLater {
					got = later
				} else if merged {
					got = earlier
				}
				if got != want[key{mode, a, b}] {
					t.Errorf("%q: %s then %s leaves %q, want %q", mode, a, b, got, want[key{mode, a, b}])
				}
			}
		}
	}
}

// life is what happens to one resource: created, updated, deleted, and again.
func life(rt *rapid.T) []tidings.Action {
	there := rapid.Bool().Draw(rt, "there")
	n := rapid.IntRange(1, 20).Draw(rt, "events")
	actions := make([]tidings.Action, n)
	for i := range actions {
		switch {
		case !there:
			actions[i], there = tidings.Created, true
		case rapid.IntRange(0, 3).Draw(rt, "action") == 0:
			actions[i], there = tidings.Deleted, false
		default:
			actions[i] = tidings.Updated
		}
	}
	return actions
}

// Merging is associative: what is left of the events of a resource does not depend
// on which neighbors are merged first, and says the same about the resource.
func TestMergingDoesNotDependOnWhen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mode := rapid.SampledFrom([]tidings.Coalesce{tidings.CoalesceUpdates, tidings.CoalesceLatest}).Draw(rt, "mode")
		actions := life(rt)
		left := make([]int, len(actions)) // positions
		for i := range left {
			left[i] = i
		}
		inOrder := slices.Clone(left[:1])
		for _, next := range left[1:] {
			last := inOrder[len(inOrder)-1]
			switch keepLater, merged := merge(mode, actions[last], actions[next]); {
			case merged && keepLater:
				inOrder[len(inOrder)-1] = next
			case !merged:
				inOrder = append(inOrder, next)
			}
		}
		for {
			var able []int
			for i := range len(left) - 1 {
				if _, merged := merge(mode, actions[left[i]], actions[left[i+1]]); merged {
					able = append(able, i)
				}
			}
			if len(able) == 0 {
				break
			}
			i := rapid.SampledFrom(able).Draw(rt, "merge")
			gone := i + 1
			if keepLater, _ := merge(mode, actions[left[i]], actions[left[i+1]]); keepLater {
				gone = i
			}
			left = slices.Delete(left, gone, gone+1)
		}
		if !slices.Equal(left, inOrder) {
			rt.Fatalf("%v: merged in this order: %v; merged as they come: %v", actions, left, inOrder)
		}
		count := func(positions []int, a tidings.Action) (n int) {
			for _, p := range positions {
				if actions[p] == a {
					n++
				}
			}
			return n
		}
		all := make([]int, len(actions))
		for i := range all {
			all[i] = i
		}
		if got, want := count(left, tidings.Deleted), count(all, tidings.Deleted); got != want {
			rt.Fatalf("%v: %d of %d deletions are left", actions, got, want)
		}
		last := actions[len(actions)-1]
		if gone := actions[left[len(left)-1]]; (gone == tidings.Deleted) != (last == tidings.Deleted) {
			rt.Fatalf("%v ends with %s, what is left with %s", actions, last, gone)
		}
	})
}

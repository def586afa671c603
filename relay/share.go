package relay

import (
	"cmp"
	"slices"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// quota is how many of the partitions a replica should hold, so that all hold
// about as many. Those that hold the most keep the ones that are left over, so
// that nothing moves without need. held is by replica; each replica that counts
// the same comes to the same answer.
func quota(partitions int, replicas []string, held map[string]int, me string) int {
	if len(replicas) == 0 {
		return partitions
	}
	ordered := slices.Clone(replicas)
	slices.SortFunc(ordered, func(a, b string) int {
		return cmp.Or(cmp.Compare(held[b], held[a]), cmp.Compare(a, b))
	})
	n := partitions / len(ordered)
	if slices.Index(ordered, me) < partitions%len(ordered) {
		n++
	}
	return n
}

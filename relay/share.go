package relay

import (
	"cmp"
	"slices"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// quota returns how many of the partitions a replica should hold for an even
// distribution. The remainder goes to the replicas that hold the most, so that
// nothing moves needlessly. held is by replica. Every replica that sees the same
// input comes to the same answer.
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

package relay

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// All replicas that see the same input come to shares that add up, differ by no more
// than one, and leave an even distribution alone.
func TestQuotasAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		partitions := rapid.IntRange(0, 50).Draw(rt, "partitions")
		var replicas []string
		held := make(map[string]int)
		for i := range rapid.IntRange(1, 7).Draw(rt, "replicas") {
			id := fmt.Sprint("replica", i)
			replicas = append(replicas, id)
			held[id] = rapid.IntRange(0, 10).Draw(rt, "held")
		}
		sum, least, most := 0, partitions, 0
		for _, id := range replicas {
			n := quota(partitions, replicas, held, id)
			sum, least, most = sum+n, min(least, n), max(most, n)
		}
		if sum != partitions || most-least > 1 {
			rt.Fatalf("shares from %d to %d add up to %d of %d", least, most, sum, partitions)
		}
		even := make(map[string]int)
		for _, id := range replicas {
			even[id] = quota(partitions, replicas, held, id)
		}
		for _, id := range replicas {
			if n := quota(partitions, replicas, even, id); n != even[id] {
				rt.Fatalf("an even distribution changed: %s should go from %d to %d", id, even[id], n)
			}
		}
	})
}

package relay

import (
	"context"

	"github.com/tidings-dev/tidings/eventlog"
)

// settled is the set of positions in a range that the history says were delivered,
// merged or discarded. It is loaded in steps, in order of position.
type settled struct {
	from, to int64 // the range that is loaded
	bits     []uint64
}

// settledRange is how many positions are loaded at once: 512 KiB.
const settledRange = 1 << 22

// load makes sure that the positions from first to last are loaded, and possibly some
// more up to end.
func (s *settled) load(ctx context.Context, log eventlog.Replays, endpoint string, first, last, end int64) error {
	if s.bits != nil && first >= s.from && last <= s.to {
		return nil
	}
	next := settled{from: first, to: max(last, min(end, first+settledRange-1))}
	next.bits = make([]uint64, (next.to-next.from)/64+1)
	err := log.Settled(ctx, endpoint, next.from, next.to, func(sequence int64) {
		next.bits[(sequence-next.from)/64] |= 1 << ((sequence - next.from) % 64)
	})
	if err == nil {
		*s = next
	}
	return err
}

func (s *settled) has(sequence int64) bool {
	at := sequence - s.from
	return at >= 0 && sequence <= s.to && s.bits[at/64]&(1<<(at%64)) != 0
}

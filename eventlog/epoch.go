package eventlog

import (
	"math"
	"slices"
	"time"
)

// Epoch is a part of the log's life in which it only grew.
//
// A database that was started anew may be another one: a standby that lagged behind
// when it was promoted, or a backup. So an epoch begins with each start (of the
// server on PostgreSQL, of the process that owns the file on SQLite), where the log
// ends at that moment. Positions go on from there. Whoever read further in an earlier
// epoch read events that the database has lost since; their positions are used again.
// A start that lost nothing begins an epoch, too, which changes nothing for anybody.
//
// Positions do not jump over the lost ones, although the process that read them
// could: it need not be the first one to number events after a failover, so readers
// would have to cope with reused positions anyway, and with holes in the log as well.
type Epoch struct {
	// ID is random: after a failover, two servers may each begin an epoch.
	ID string
	// Base is the position at which the log ended when the epoch began.
	Base int64
	// Began is when that was.
	Began time.Time
	// Beyond is the highest position of a cursor that was above Base then; 0 if none
	// was.
	Beyond int64
}

// Epochs are the latest epochs of a log, the current one last.
type Epochs []Epoch

// Current returns the current epoch; its zero value if none has begun.
func (e Epochs) Current() Epoch {
	if len(e) == 0 {
		return Epoch{}
	}
	return e[len(e)-1]
}

// KeptOf returns up to which position the log still holds what a reader found there
// in an epoch; false if it doesn't know the epoch: it began in a part of the log's
// life that was lost, or too long ago.
func (e Epochs) KeptOf(id string) (position int64, known bool) {
	at := slices.IndexFunc(e, func(epoch Epoch) bool { return epoch.ID == id })
	if at < 0 {
		return 0, false
	}
	return e[at+1:].lowest(), true
}

// Kept returns up to which position the log still holds what a reader found there
// that knew earlier epochs.
func (e Epochs) Kept(earlier Epochs) int64 {
	for i, epoch := range slices.Backward(earlier) {
		if kept, known := e.KeptOf(epoch.ID); known {
			return min(kept, earlier[i+1:].lowest()) // those that followed may be lost
		}
	}
	if len(earlier) == 0 {
		return e.lowest()
	}
	return 0
}

func (e Epochs) lowest() int64 {
	lowest := int64(math.MaxInt64)
	for _, epoch := range e {
		lowest = min(lowest, epoch.Base)
	}
	return lowest
}

// MaxEpochs is how many epochs a log keeps.
const MaxEpochs = 1000

package eventlog

import (
	"crypto/rand"
	"math"
	"slices"
	"strconv"
	"strings"
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
	// ID is made by [Epochs.NewID]. It is random, since after a failover two servers may
	// each begin an epoch, and tells of some epochs before it.
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

// An id is a random text and, for some earlier epochs, the beginning of their ids and up to
// which position the log was still theirs: "K7…Q.ABCDEFGH120.JKLMNPQR90". So where one stood
// in a part of the log's life that was lost can be told from an epoch that it followed.
const (
	idSeparator = "."
	idShort     = 8
	// kinFactor says which epochs an id tells of: the last one, those 4, 16, … back, and the
	// oldest, so that few are enough for hundreds of starts.
	kinFactor = 4
)

// NewID returns an id for an epoch that follows these and begins at a base.
func (e Epochs) NewID(base int64) string {
	parts := []string{rand.Text()}
	for back := 1; back < kinFactor*len(e); back *= kinFactor {
		at := max(len(e)-back, 0)
		kept := min(base, e[at+1:].lowest())
		parts = append(parts, e[at].ID[:min(idShort, len(e[at].ID))]+strconv.FormatInt(kept, 10))
	}
	return strings.Join(parts, idSeparator)
}

// KeptOf returns up to which position the log still holds what a reader found there
// in an epoch; false if it doesn't know the epoch, nor one that this followed: it began in
// a part of the log's life that was lost, or too long ago.
func (e Epochs) KeptOf(id string) (position int64, known bool) {
	at := slices.IndexFunc(e, func(epoch Epoch) bool { return epoch.ID == id })
	if at >= 0 {
		return e[at+1:].lowest(), true
	}
	_, kin, _ := strings.Cut(id, idSeparator)
	for text := range strings.SplitSeq(kin, idSeparator) { // the nearest one comes first
		if len(text) <= idShort {
			continue
		}
		kept, err := strconv.ParseInt(text[idShort:], 10, 64)
		at := slices.IndexFunc(e, func(epoch Epoch) bool { return strings.HasPrefix(epoch.ID, text[:idShort]) })
		if err == nil && kept >= 0 && at >= 0 {
			return min(kept, e[at+1:].lowest()), true
		}
	}
	return 0, false
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

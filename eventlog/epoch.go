package eventlog

import (
	"crypto/rand"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Epoch is a period between two database starts, within which the log only grows.
//
// A restarted database may hold older data: a standby that lagged behind when it
// was promoted, or a backup. So each start (of the server on PostgreSQL, of the
// process that owns the file on SQLite) begins an epoch at the current end of the
// log, and positions continue from there. A reader that had read further in an
// earlier epoch has read events that the database has since lost; their positions
// are used again. If nothing was lost, the new epoch has no effect.
//
// Positions do not skip the lost ones, although the process that read them could
// arrange that: another process may be the first to number events after a failover,
// so readers would have to handle reused positions anyway, and holes in the log as
// well.
type Epoch struct {
	// ID is created by [Epochs.NewID]. It is random, since two servers may each
	// begin an epoch after a failover, and refers to some earlier epochs.
	ID string
	// Base is the position at which the log ended when the epoch began.
	Base int64
	// Began is when the epoch began.
	Began time.Time
	// Beyond is the highest position of a cursor that was above Base at that time;
	// 0 if none was.
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

// An id is a random string followed by references to some earlier epochs: the start
// of each one's id and the position up to which its events were kept, as in
// "K7…Q.ABCDEFGH120.JKLMNPQR90". So for an epoch that was itself lost, it is still
// known which part of the log it shares with an epoch before it.
const (
	idSeparator = "."
	idShort     = 8
	// kinFactor determines which epochs an id refers to: those 1, 4, 16, … back,
	// and the oldest, so that a few references cover hundreds of starts.
	kinFactor = 4
)

// NewID returns an id for a new epoch that follows these and starts at a base.
func (e Epochs) NewID(base int64) string {
	parts := []string{rand.Text()}
	for back := 1; back < kinFactor*len(e); back *= kinFactor {
		at := max(len(e)-back, 0)
		kept := min(base, e[at+1:].lowest())
		parts = append(parts, e[at].ID[:min(idShort, len(e[at].ID))]+strconv.FormatInt(kept, 10))
	}
	return strings.Join(parts, idSeparator)
}

// KeptOf returns the position up to which the log still holds what a reader saw in
// an epoch. It returns false if neither the epoch nor one that it refers to is
// known: it began in a lost part of the log, or too long ago.
func (e Epochs) KeptOf(id string) (position int64, known bool) {
	at := slices.IndexFunc(e, func(epoch Epoch) bool { return epoch.ID == id })
	if at >= 0 {
		return e[at+1:].lowest(), true
	}
	_, kin, _ := strings.Cut(id, idSeparator)
	for text := range strings.SplitSeq(kin, idSeparator) { // nearest first
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

// Kept returns the position up to which the log still holds what was seen by a
// reader that knew earlier epochs.
func (e Epochs) Kept(earlier Epochs) int64 {
	for i, epoch := range slices.Backward(earlier) {
		if kept, known := e.KeptOf(epoch.ID); known {
			return min(kept, earlier[i+1:].lowest()) // later epochs may be lost
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

package eventlog

import (
	"context"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
)

// Record is one entry of the history: an attempt, a merge of one event into another,
// or a discarded event.
type Record struct {
	Endpoint string    `json:"-"`
	At       time.Time `json:"at"`
	Sequence int64     `json:"sequence"`
	EventID  string    `json:"event_id"`
	Event    string    `json:"event"`
	Resource string    `json:"resource"`
	// Outcome is a verdict's name, "merged" or "discarded".
	Outcome string `json:"outcome"`
	Attempt int    `json:"attempt,omitempty"`
	Replay  bool   `json:"replay,omitempty"`
	// Probe is set for a request that probed an endpoint that was down.
	Probe  bool   `json:"probe,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Detail explains the reason.
	Detail  string `json:"detail,omitempty"`
	Status  int    `json:"status,omitempty"`
	Address string `json:"address,omitempty"`
	// Resent means that the request was sent twice within the attempt because the
	// first connection broke before a response.
	Resent bool `json:"resent,omitempty"`
	// Response is the beginning of the receiver's response to an attempt that failed.
	Response string `json:"response,omitempty"`
	// By is who discarded the event, and Comment the reason given.
	By      string `json:"by,omitempty"`
	Comment string `json:"comment,omitempty"`
	// MergedInto is the position of the event that this one was merged into.
	MergedInto int64 `json:"merged_into,omitempty"`

	// Durations in microseconds; 0 for steps that were skipped.
	DNS       int64 `json:"dns_us,omitempty"`
	Connect   int64 `json:"connect_us,omitempty"`
	TLS       int64 `json:"tls_us,omitempty"`
	FirstByte int64 `json:"first_byte_us,omitempty"`
	Total     int64 `json:"total_us,omitempty"`
}

// Outcomes besides verdicts.
const (
	// Merged is the outcome of an event that was merged into another.
	Merged = "merged"
	// Discarded is the outcome of a parked event that an operator discarded.
	Discarded = "discarded"
)

// Failed reports whether the record is of an attempt that failed.
func (r *Record) Failed() bool {
	return r.Outcome != Merged && r.Outcome != Discarded && r.Outcome != tidings.Delivered.String()
}

// HistoryBlock stores many records of one endpoint in one row: an index, and a text
// with all records. A row for each delivery would cost as much as the delivery.
type HistoryBlock struct {
	ID       int64
	Endpoint string
	// First and Last bound the times of the records, which are not quite in order.
	First, Last time.Time
	// Lowest and Highest bound the positions of its events; a ping has none.
	Lowest, Highest int64
	Records         int
	// Failures counts the records of attempts that failed.
	Failures int

	text historyWriter
}

// A block is full at either limit.
const (
	blockSize = 128 << 10
	// BlockRecords is the maximum number of records in a block.
	BlockRecords = 1 << 13
)

// Full reports whether the block should not be added to.
func (h *HistoryBlock) Full() bool { return h.Size() >= blockSize || h.Records >= BlockRecords }

// Add puts a record at the end of the block.
func (h *HistoryBlock) Add(r Record) {
	if h.Records == 0 {
		h.First, h.Last = r.At, r.At
	}
	if r.At.Before(h.First) {
		h.First = r.At
	}
	if r.At.After(h.Last) {
		h.Last = r.At
	}
	if r.Sequence > 0 && (h.Lowest == 0 || r.Sequence < h.Lowest) {
		h.Lowest = r.Sequence
	}
	h.Highest = max(h.Highest, r.Sequence)
	h.Records++
	if r.Failed() {
		h.Failures++
	}
	h.text.add(&r)
}

// Text returns the records in the form that [ParseHistory] reads.
func (h *HistoryBlock) Text() string { return string(h.text.text) }

// Size returns the length of the text.
func (h *HistoryBlock) Size() int { return len(h.text.text) }

// HistoryFilter selects history records.
type HistoryFilter struct {
	Endpoint string
	// Sequence and EventID select blocks that may have records of an event; 0 and empty
	// for all.
	Sequence int64
	EventID  string
	// Resource selects blocks that may have records of a resource, "provider/<id>" or
	// an id alone; empty for all.
	Resource string
	// Since and Until limit the times of attempts; zero for no limit.
	Since, Until time.Time
	// Failures selects only blocks with failures.
	Failures bool
	// Before selects blocks older than the one with this id; 0 for the newest.
	Before int64
	// After selects blocks newer than the one with this id; 0 for all.
	After int64
	Limit int
}

// Mentions returns pairs of strings: every block selected by EventID and Resource
// contains at least one of each pair. A database that looks for them need not return
// all blocks.
func (f *HistoryFilter) Mentions() (pairs [][2]string) {
	if f.EventID != "" {
		pairs = append(pairs, mentions(" ", f.EventID, "/", `"event_id":"`))
	}
	if f.Resource != "" {
		_, id, found := strings.Cut(f.Resource, "/")
		if !found {
			id = f.Resource
		}
		pairs = append(pairs, mentions("/", id, "\n", "/"))
	}
	return pairs
}

// Recorder stores the history of attempts.
type Recorder interface {
	// AppendHistory writes blocks.
	AppendHistory(ctx context.Context, blocks []*HistoryBlock) error
}

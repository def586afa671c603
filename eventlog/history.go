package eventlog

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/jsontext"
)

// Record is one entry of the history: an attempt, or a merge of one event into
// another.
type Record struct {
	Endpoint string    `json:"-"`
	At       time.Time `json:"at"`
	Sequence int64     `json:"sequence"`
	EventID  string    `json:"event_id"`
	Event    string    `json:"event"`
	Resource string    `json:"resource"`
	// Outcome is a verdict as a word, or "merged".
	Outcome string `json:"outcome"`
	Attempt int    `json:"attempt,omitempty"`
	Replay  bool   `json:"replay,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Status  int    `json:"status,omitempty"`
	Address string `json:"address,omitempty"`
	// Resent says that the request was sent twice within the attempt, since its first
	// connection died before any answer.
	Resent   bool   `json:"resent,omitempty"`
	Response string `json:"response,omitempty"`
	// MergedInto is the position of the event that tells of this one, too.
	MergedInto int64 `json:"merged_into,omitempty"`

	// Durations, in microseconds; those of steps that were not needed are 0.
	DNS       int64 `json:"dns_us,omitempty"`
	Connect   int64 `json:"connect_us,omitempty"`
	TLS       int64 `json:"tls_us,omitempty"`
	FirstByte int64 `json:"first_byte_us,omitempty"`
	Total     int64 `json:"total_us,omitempty"`
}

// Merged is the outcome of an event that another one tells of, too.
const Merged = "merged"

// appendJSON appends the record; encoding/json takes ten times as long, which a
// delivery would notice.
func (r *Record) appendJSON(b []byte) []byte {
	text := func(name, value string) {
		if value != "" {
			b = append(append(append(b, ',', '"'), name...), '"', ':')
			b = jsontext.AppendString(b, value)
		}
	}
	number := func(name string, value int64) {
		if value != 0 {
			b = append(append(append(b, ',', '"'), name...), '"', ':')
			b = strconv.AppendInt(b, value, 10)
		}
	}
	b = append(b, `{"at":"`...)
	b = r.At.UTC().AppendFormat(b, tidings.TimeLayout)
	b = append(b, '"')
	number("sequence", r.Sequence)
	text("event_id", r.EventID)
	text("event", r.Event)
	text("resource", r.Resource)
	text("outcome", r.Outcome)
	number("attempt", int64(r.Attempt))
	if r.Replay {
		b = append(b, `,"replay":true`...)
	}
	text("reason", r.Reason)
	number("status", int64(r.Status))
	text("address", r.Address)
	if r.Resent {
		b = append(b, `,"resent":true`...)
	}
	text("response", r.Response)
	number("merged_into", r.MergedInto)
	number("dns_us", r.DNS)
	number("connect_us", r.Connect)
	number("tls_us", r.TLS)
	number("first_byte_us", r.FirstByte)
	number("total_us", r.Total)
	return append(b, '}')
}

// HistoryBlock is many records of one endpoint in one row: an index, and a text
// with a record a line. A row for each delivery would cost as much as the
// delivery.
type HistoryBlock struct {
	ID       int64
	Endpoint string
	// First and Last are the times of the first and last record.
	First, Last time.Time
	// Lowest and Highest are the positions between which its events are.
	Lowest, Highest int64
	Records         int
	// Failures counts the records that are neither delivered nor merged.
	Failures int

	text []byte
}

// Add puts a record at the end of the block.
func (h *HistoryBlock) Add(r Record) {
	if h.Records == 0 {
		h.First, h.Lowest = r.At, r.Sequence
	}
	h.Last = r.At
	h.Lowest, h.Highest = min(h.Lowest, r.Sequence), max(h.Highest, r.Sequence)
	h.Records++
	if r.Outcome != Merged && r.Outcome != tidings.Delivered.String() {
		h.Failures++
	}
	h.text = append(r.appendJSON(h.text), '\n')
}

// Text is the records, a line each.
func (h *HistoryBlock) Text() string { return string(h.text) }

// Size is the length of the text.
func (h *HistoryBlock) Size() int { return len(h.text) }

// ParseHistory reads the records of a block's text.
func ParseHistory(endpoint, text string) ([]Record, error) {
	var records []Record
	for line := range strings.Lines(text) {
		r := Record{Endpoint: endpoint}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("history of endpoint %s: %w", endpoint, err)
		}
		records = append(records, r)
	}
	return records, nil
}

// HistoryFilter narrows the history.
type HistoryFilter struct {
	Endpoint string
	// Sequence is of one event; 0 for any.
	Sequence int64
	// Since and Until are times of attempts; zero for any.
	Since, Until time.Time
	// Failures is blocks with failures only.
	Failures bool
	// Before is the id of a block; only older ones come. 0 for the newest.
	Before int64
	Limit  int
}

// Recorder keeps the attempts.
type Recorder interface {
	// AppendHistory writes blocks.
	AppendHistory(ctx context.Context, blocks []*HistoryBlock) error
}

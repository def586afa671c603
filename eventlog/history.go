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

// appendJSON appends the record as JSON. encoding/json takes ten times as long,
// which would slow down deliveries.
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
	if r.Probe {
		b = append(b, `,"probe":true`...)
	}
	text("reason", r.Reason)
	text("detail", r.Detail)
	number("status", int64(r.Status))
	text("address", r.Address)
	if r.Resent {
		b = append(b, `,"resent":true`...)
	}
	text("response", r.Response)
	text("by", r.By)
	text("comment", r.Comment)
	number("merged_into", r.MergedInto)
	number("dns_us", r.DNS)
	number("connect_us", r.Connect)
	number("tls_us", r.TLS)
	number("first_byte_us", r.FirstByte)
	number("total_us", r.Total)
	return append(b, '}')
}

// HistoryBlock stores many records of one endpoint in one row: an index, and a text
// with one record per line. A row for each delivery would cost as much as the
// delivery.
type HistoryBlock struct {
	ID       int64
	Endpoint string
	// First and Last are the times of the first and last record.
	First, Last time.Time
	// Lowest and Highest bound the positions of its events.
	Lowest, Highest int64
	Records         int
	// Failures counts the records of attempts that failed.
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
	if r.Failed() {
		h.Failures++
	}
	h.text = append(r.appendJSON(h.text), '\n')
}

// Text returns the records, one per line.
func (h *HistoryBlock) Text() string { return string(h.text) }

// Size returns the length of the text.
func (h *HistoryBlock) Size() int { return len(h.text) }

// ParseHistory parses the text of a block.
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

// SettledIn calls found with the positions of the records of a block's text whose event is
// settled. It reads these two members only, in a tenth of the time of [ParseHistory]: they
// are written in this order, and no text within a record has quotes that are not escaped.
func SettledIn(text string, found func(sequence int64)) error {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(line, `"sequence":`)
		number, rest, _ := strings.Cut(rest, ",")
		_, rest, _ = strings.Cut(rest, `,"outcome":"`)
		outcome, _, _ := strings.Cut(rest, `"`)
		r := Record{Outcome: outcome}
		var err error
		if r.Sequence, err = strconv.ParseInt(number, 10, 64); err != nil || outcome == "" {
			return fmt.Errorf("history: a record of another form: %.100s", line)
		}
		if !r.Failed() {
			found(r.Sequence)
		}
	}
	return nil
}

// HistoryFilter selects history records.
type HistoryFilter struct {
	Endpoint string
	// Sequence selects blocks with records of an event, by its position; 0 for all.
	Sequence int64
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

// Mentions returns strings that every block selected by Sequence and Resource
// contains. A database that looks for them need not return all blocks.
func (f *HistoryFilter) Mentions() (texts []string) {
	if f.Sequence != 0 {
		texts = append(texts, fmt.Sprintf(`"sequence":%d,`, f.Sequence))
	}
	if f.Resource != "" {
		_, id, found := strings.Cut(f.Resource, "/")
		if !found {
			id = f.Resource
		}
		text := jsontext.AppendString(nil, "/"+id)
		texts = append(texts, string(text[1:]))
	}
	return texts
}

// Recorder stores the history of attempts.
type Recorder interface {
	// AppendHistory writes blocks.
	AppendHistory(ctx context.Context, blocks []*HistoryBlock) error
}

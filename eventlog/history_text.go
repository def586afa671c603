package eventlog

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/jsontext"
)

// The text of a block has a line for each record. Most records differ from others only in
// their times and ids, so the rest, the shape of the record, is written once:
//
//	={"event":"provider.updated","resource":"provider/","outcome":"delivered","attempt":1,"status":204}
//	0 1774526400000000 4711 410 350 ~AZCwoBwtfj-KSwAAAcjN8w/~VQ6EAOKbQdSnFgAAAd7K2Q
//	0 213 1 398 341 ~AZCwoBwtfj-KSwAAAcjtIg/~VQ6EAOKbQdSnFgAAAeBj8g
//
// The numbers of a record are that of its shape in the block, time in microseconds and
// position, both relative to the previous record, and those of [Record.rest] up to the
// last that is not 0. Then come the ids of the event and the resource; a UUID is "~" and
// its bytes in base64. A record whose ids can't be written so is a line of JSON, as all
// records of earlier versions are.

// shapeMark is the first character of a shape.
const shapeMark = '='

// recentShapes is how many shapes a record is compared with.
const recentShapes = 16

// rest returns the numbers that a line has after time and position, the rarest last.
func (r *Record) rest() [6]*int64 {
	return [...]*int64{&r.Total, &r.FirstByte, &r.MergedInto, &r.Connect, &r.DNS, &r.TLS}
}

// historyWriter writes the text of a block.
type historyWriter struct {
	text []byte
	// shapes are the latest ones, after others.
	shapes []Record
	others int
	// at and sequence are those of the previous record.
	at, sequence int64
}

func (w *historyWriter) add(r *Record) {
	at := r.At.UnixMicro()
	if !w.addShort(r, at) {
		w.text = append(r.appendJSON(w.text), '\n')
	}
	w.at, w.sequence = at, r.Sequence
}

// addShort adds a record in short form. It returns false if its ids have no such form.
func (w *historyWriter) addShort(r *Record, at int64) bool {
	slash := strings.IndexByte(r.Resource, '/') + 1
	shape := *r
	shape.Endpoint, shape.At, shape.Sequence, shape.EventID = "", time.Time{}, 0, ""
	shape.Resource = r.Resource[:slash]
	last := 0
	for i, n := range shape.rest() {
		if *n != 0 {
			*n, last = 0, i+1
		}
	}
	b, number := w.text, slices.Index(w.shapes, shape)
	if known := number >= 0; !known {
		b = append(shape.appendJSON(append(b, shapeMark)), '\n')
		number = len(w.shapes)
	}
	b = strconv.AppendInt(b, int64(w.others+number), 10)
	b = strconv.AppendInt(append(b, ' '), at-w.at, 10)
	b = strconv.AppendInt(append(b, ' '), r.Sequence-w.sequence, 10)
	for i, n := range r.rest() {
		if i == last {
			break
		}
		b = strconv.AppendInt(append(b, ' '), *n, 10)
	}
	b, short := appendID(append(b, ' '), r.EventID)
	if !short {
		return false
	}
	if b, short = appendID(append(b, '/'), r.Resource[slash:]); !short {
		return false
	}
	w.text = append(b, '\n')
	if number == len(w.shapes) {
		w.shapes = append(w.shapes, shape)
	}
	if len(w.shapes) > recentShapes {
		w.shapes, w.others = slices.Delete(w.shapes, 0, 1), w.others+1
	}
	return true
}

// appendJSON appends the record as JSON. encoding/json takes ten times as long,
// which would slow down deliveries.
func (r *Record) appendJSON(b []byte) []byte {
	begin := len(b)
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
	if !r.At.IsZero() {
		b = append(b, `,"at":"`...)
		b = r.At.UTC().AppendFormat(b, tidings.TimeLayout)
		b = append(b, '"')
	}
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
	b = append(b, '}')
	b[begin] = '{' // instead of the first comma
	return b
}

// ParseHistory parses the text of a block.
func ParseHistory(endpoint, text string) (records []Record, err error) {
	err = readHistory(text, func(line string) (r Record, err error) {
		err = json.Unmarshal([]byte(line), &r)
		return r, err
	}, func(r *Record, ids string) (err error) {
		if ids != "" {
			event, resource, _ := strings.Cut(ids, "/")
			if r.EventID, err = parseID(event); err != nil {
				return err
			}
			if resource, err = parseID(resource); err != nil {
				return err
			}
			r.Resource += resource
		}
		r.Endpoint = endpoint
		records = append(records, *r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("history of endpoint %s: %w", endpoint, err)
	}
	return records, nil
}

// SettledIn calls found with the positions of the records of a block's text whose event is
// settled, in a small part of the time of [ParseHistory].
func SettledIn(text string, found func(sequence int64)) error {
	err := readHistory(text, parseOutcome, func(r *Record, _ string) error {
		if !r.Failed() {
			found(r.Sequence)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// parseOutcome reads two members of a record in JSON: they are written in this order, a
// sequence of 0, as of a ping, is not, and no text within a record has quotes that are not
// escaped.
func parseOutcome(line string) (r Record, err error) {
	rest := line
	if _, after, positive := strings.Cut(line, `"sequence":`); positive {
		var number string
		number, rest, _ = strings.Cut(after, ",")
		if r.Sequence, err = strconv.ParseInt(number, 10, 64); err != nil {
			return r, unknownForm(line)
		}
	}
	_, rest, _ = strings.Cut(rest, `,"outcome":"`)
	if r.Outcome, _, _ = strings.Cut(rest, `"`); r.Outcome == "" {
		return r, unknownForm(line)
	}
	return r, nil
}

func unknownForm(line string) error { return fmt.Errorf("a record of unknown form: %.100q", line) }

// readHistory calls found with each record of a block's text, and with the ids that it
// still lacks. Records in JSON are read by parse.
func readHistory(text string, parse func(string) (Record, error), found func(r *Record, ids string) error) error {
	var shapes []Record
	var at, sequence int64 // of the previous record
	for line := range strings.Lines(text) {
		var r Record
		var ids string
		var err error
		switch line[0] {
		case shapeMark:
			if err := json.Unmarshal([]byte(line[1:]), &r); err != nil {
				return err
			}
			shapes = append(shapes, r)
			continue
		case '{':
			if r, err = parse(line); err != nil {
				return err
			}
			at = r.At.UnixMicro()
		default:
			numbers, rest, count := [9]int64{}, strings.TrimSuffix(line, "\n"), 0
			for ; ; count++ {
				number, after, more := strings.Cut(rest, " ")
				if !more {
					break
				}
				if count == len(numbers) {
					return unknownForm(line)
				}
				if numbers[count], err = strconv.ParseInt(number, 10, 64); err != nil {
					return unknownForm(line)
				}
				rest = after
			}
			if n := numbers[0]; count < 3 || n < 0 || n >= int64(len(shapes)) || !strings.Contains(rest, "/") {
				return unknownForm(line)
			}
			r, ids = shapes[numbers[0]], rest
			at += numbers[1]
			r.At, r.Sequence = time.UnixMicro(at).UTC(), sequence+numbers[2]
			for i, n := range r.rest() {
				*n = numbers[3+i]
			}
		}
		sequence = r.Sequence
		if err := found(&r, ids); err != nil {
			return err
		}
	}
	return nil
}

// uuidMark precedes the bytes of a UUID.
const uuidMark = '~'

// appendID appends the short form of an id. It returns false if there is none: the text
// around the id would be ambiguous, or JSON escapes a part of it.
func appendID(b []byte, id string) ([]byte, bool) {
	if id == "" || id[0] == uuidMark {
		return b, false
	}
	if uuid, ok := uuidBytes(id); ok {
		return base64.RawURLEncoding.AppendEncode(append(b, uuidMark), uuid[:]), true
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '/' || c == '"' || c == '\\' {
			return b, false
		}
	}
	return append(b, id...), true
}

// hexDigits has one more than the value of each lower-case digit.
var hexDigits = func() (digits [256]byte) {
	for i, c := range []byte("0123456789abcdef") {
		digits[c] = byte(i + 1)
	}
	return digits
}()

// uuidBytes returns the bytes of a UUID in its usual form, and false for any other text.
func uuidBytes(id string) (uuid [16]byte, ok bool) {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' {
		return uuid, false
	}
	at := 0
	for i := range uuid {
		if id[at] == '-' {
			at++
		}
		high, low := hexDigits[id[at]], hexDigits[id[at+1]]
		if high == 0 || low == 0 {
			return uuid, false
		}
		uuid[i] = (high-1)<<4 | (low - 1)
		at += 2
	}
	return uuid, true
}

// parseID is the inverse of appendID.
func parseID(short string) (string, error) {
	if short == "" || short[0] != uuidMark {
		return short, nil
	}
	uuid, err := base64.RawURLEncoding.DecodeString(short[1:])
	if err != nil || len(uuid) != 16 {
		return "", unknownForm(short)
	}
	id := hex.EncodeToString(uuid)
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:], nil
}

// mentions returns the text that contains an id between two others in short form, and the
// text that contains it in JSON.
func mentions(before, id, after, member string) [2]string {
	quoted := string(jsontext.AppendString(nil, id)[1:])
	if short, ok := appendID([]byte(before), id); ok {
		return [2]string{string(short) + after, member + quoted}
	}
	return [2]string{member + quoted, member + quoted}
}

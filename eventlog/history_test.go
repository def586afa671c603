package eventlog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/eventlog"
)

// Whatever the records of a block, they are read back, their events and resources are
// mentioned in it, and SettledIn agrees.
func TestHistoryIsReadBack(t *testing.T) {
	ids := rapid.OneOf(
		rapid.SampledFrom([]string{
			"0190b0a0-1c2d-7e3f-8a4b-0123456789ab", "0190B0A0-1C2D-7E3F-8A4B-0123456789AB",
			"0190b0a0-1c2d-7e3f-8a4b-0123456789a-", "0190b0a01c2d7e3f8a4b0123456789ab", "4711",
			"~AZCwoBwtfj-KSwAAAcjN8w", "~", "", "a/b", "/", "a b", `"`, `\`, "ä", "\n", "=", "{",
		}),
		rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}`),
		rapid.String(),
	)
	texts := rapid.SampledFrom([]string{"", "http_500", "a \"b\"\n=\\ 1", "\x00{", "ä"})
	numbers := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(-1<<50, 1<<50))
	records := rapid.Custom(func(t *rapid.T) eventlog.Record {
		return eventlog.Record{
			Endpoint: "crm", At: time.UnixMicro(numbers.Draw(t, "at")).UTC(),
			Sequence: rapid.Int64Range(0, 1<<50).Draw(t, "sequence"), // 0 of a ping
			EventID:  ids.Draw(t, "event"), Event: rapid.SampledFrom([]string{"order.paid", "a.b"}).Draw(t, "name"),
			Resource: rapid.SampledFrom([]string{"order/", "", "a/"}).Draw(t, "type") + ids.Draw(t, "id"),
			Outcome:  rapid.SampledFrom([]string{"delivered", "failed", "merged", "discarded"}).Draw(t, "outcome"),
			Attempt:  rapid.IntRange(0, 30).Draw(t, "attempt"), Replay: rapid.Bool().Draw(t, "replay"),
			Probe: rapid.Bool().Draw(t, "probe"), Resent: rapid.Bool().Draw(t, "resent"), Reason: texts.Draw(t, "reason"),
			Detail: texts.Draw(t, "detail"), Status: rapid.IntRange(0, 599).Draw(t, "status"),
			Address: texts.Draw(t, "address"), Response: texts.Draw(t, "response"), By: texts.Draw(t, "by"),
			Comment: texts.Draw(t, "comment"), MergedInto: numbers.Draw(t, "merged into"), DNS: numbers.Draw(t, "DNS"),
			Connect: numbers.Draw(t, "connect"), TLS: numbers.Draw(t, "TLS"), FirstByte: numbers.Draw(t, "first byte"),
			Total: numbers.Draw(t, "total"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(records, 1, 40).Draw(t, "records")
		block := &eventlog.HistoryBlock{Endpoint: "crm"}
		var settled, positions []int64
		for _, r := range want {
			block.Add(r)
			if r.Sequence > 0 {
				positions = append(positions, r.Sequence)
			}
			if !r.Failed() {
				settled = append(settled, r.Sequence)
			}
		}
		slices.Sort(positions)
		if n := len(positions); n > 0 && (block.Lowest != positions[0] || block.Highest != positions[n-1]) {
			t.Fatalf("positions %d to %d; want %d to %d", block.Lowest, block.Highest, positions[0], positions[n-1])
		}
		got, err := eventlog.ParseHistory("crm", block.Text())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Fatalf("%v (-want +got):\n%s\n%s", err, diff, block.Text())
		}
		if diff := cmp.Diff(settled, settledIn(t, block.Text())); diff != "" {
			t.Fatalf("settled (-want +got):\n%s", diff)
		}
		for _, r := range want {
			f := eventlog.HistoryFilter{EventID: r.EventID}
			if strings.Contains(r.Resource, "/") {
				f.Resource = r.Resource
			}
			if !mentions(f, block.Text()) {
				t.Fatalf("no mention of %q or %q:\n%s", r.EventID, r.Resource, block.Text())
			}
		}
	})
}

func settledIn(t interface{ Fatal(...any) }, text string) (settled []int64) {
	if err := eventlog.SettledIn(text, func(s int64) { settled = append(settled, s) }); err != nil {
		t.Fatal(err)
	}
	return settled
}

func mentions(f eventlog.HistoryFilter, text string) bool {
	return !slices.ContainsFunc(f.Mentions(), func(pair [2]string) bool {
		return !strings.Contains(text, pair[0]) && !strings.Contains(text, pair[1])
	})
}

// former is the text of a block that an earlier version wrote.
const former = `{"at":"2026-03-26T12:00:00.123456Z","sequence":4711,` +
	`"event_id":"0190b0a0-1c2d-7e3f-8a4b-000001c8cdf3","event":"provider.updated",` +
	`"resource":"provider/550e8400-e29b-41d4-a716-000001deca09","outcome":"delivered","attempt":1,"status":204,` +
	`"address":"10.0.12.34:8443","first_byte_us":350,"total_us":410}
{"at":"2026-03-26T12:00:00.2Z","sequence":4713,"event_id":"order-5","event":"order.paid","resource":"order/5",` +
	`"outcome":"failed","attempt":2,"reason":"http_500","status":500,"response":"\u000a \"outcome\":\"delivered\""}
{"at":"2026-03-26T12:00:01Z","sequence":4712,"event_id":"x","event":"order.updated","resource":"order/5",` +
	`"outcome":"merged","merged_into":4714}
`

// Blocks of earlier versions are still read.
func TestFormerHistory(t *testing.T) {
	at := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	want := []eventlog.Record{{
		Endpoint: "crm", At: at.Add(123456 * time.Microsecond), Sequence: 4711,
		EventID: "0190b0a0-1c2d-7e3f-8a4b-000001c8cdf3",
		Event:   "provider.updated", Resource: "provider/550e8400-e29b-41d4-a716-000001deca09", Outcome: "delivered",
		Attempt: 1, Status: 204, Address: "10.0.12.34:8443", FirstByte: 350, Total: 410,
	}, {
		Endpoint: "crm", At: at.Add(200 * time.Millisecond), Sequence: 4713, EventID: "order-5", Event: "order.paid",
		Resource: "order/5", Outcome: "failed", Attempt: 2, Reason: "http_500", Status: 500,
		Response: "\n \"outcome\":\"delivered\"",
	}, {
		Endpoint: "crm", At: at.Add(time.Second), Sequence: 4712, EventID: "x", Event: "order.updated", Resource: "order/5",
		Outcome: eventlog.Merged, MergedInto: 4714,
	}}
	got, err := eventlog.ParseHistory("crm", former)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([]int64{4711, 4712}, settledIn(t, former)); diff != "" {
		t.Errorf("settled (-want +got):\n%s", diff)
	}
	for _, r := range want {
		if f := (eventlog.HistoryFilter{EventID: r.EventID, Resource: r.Resource}); !mentions(f, former) {
			t.Errorf("no mention of %s or %s", r.EventID, r.Resource)
		}
	}
	for _, f := range []eventlog.HistoryFilter{{EventID: "order-"}, {EventID: "4711"}, {Resource: "order/"}} {
		if mentions(f, former) {
			t.Errorf("a mention for %+v", f)
		}
	}
}

// A damaged text is an error that shows where.
func TestDamagedHistory(t *testing.T) {
	const shape = `={"event":"a.b","resource":"a/","outcome":"delivered"}` + "\n"
	for _, line := range []string{
		"1 1 1 x/y", "-1 1 1 x/y", "0 1 x/y", "0 1 1 x", "0 1 1 z 1 x/y", "0 1 1 1 1 1 1 1 1 1 x/y", "\n", "=", "{", "0",
	} {
		if _, err := eventlog.ParseHistory("crm", shape+line); err == nil || !strings.Contains(err.Error(), "endpoint crm") {
			t.Errorf("%q: %v", line, err)
		}
		if err := eventlog.SettledIn(shape+line, func(int64) {}); err == nil {
			t.Errorf("%q was accepted by SettledIn", line)
		}
	}
	for _, ids := range []string{"~/y", "x/~AZCw", "~!ZCwoBwtfj-KSwAAAcjN8w/y"} {
		if _, err := eventlog.ParseHistory("crm", shape+"0 1 1 "+ids); err == nil {
			t.Errorf("the ids %q were accepted", ids)
		}
	}
}

// A success takes a fifth of what it takes as JSON, and a block is bounded in bytes and
// records.
func TestHistoryIsCompact(t *testing.T) {
	full := func(record func(i int) eventlog.Record) *eventlog.HistoryBlock {
		block := &eventlog.HistoryBlock{}
		for i := 0; !block.Full(); i++ {
			block.Add(record(i))
		}
		return block
	}
	at := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	block := full(func(i int) eventlog.Record {
		return success(at.Add(time.Duration(i*213)*time.Microsecond), int64(1_000_000+i))
	})
	if each := block.Size() / block.Records; each > 65 || block.Size() > 129<<10 {
		t.Errorf("%d bytes for each of %d records", each, block.Records)
	}
	block = full(func(int) eventlog.Record { return eventlog.Record{EventID: "a", Resource: "a/b"} })
	if block.Records != eventlog.BlockRecords {
		t.Errorf("%d short records fill a block, want %d", block.Records, eventlog.BlockRecords)
	}
}

// BenchmarkHistory adds successes of a busy endpoint to blocks.
func BenchmarkHistory(b *testing.B) {
	at := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	var records []eventlog.Record
	for i := range 1000 {
		records = append(records, success(at.Add(time.Duration(i*213)*time.Microsecond), int64(1_000_000+i)))
	}
	block, size := &eventlog.HistoryBlock{}, 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		before := block.Size()
		block.Add(records[i%len(records)])
		size += block.Size() - before
		if block.Full() {
			block = &eventlog.HistoryBlock{}
		}
	}
	b.ReportMetric(float64(size)/float64(b.N), "bytes/record")
}

// success returns the record of an attempt that succeeded, as the relay makes it.
func success(at time.Time, sequence int64) eventlog.Record {
	return eventlog.Record{
		Endpoint: "crm", At: at, Sequence: sequence, EventID: fmt.Sprintf("0190b0a0-1c2d-7e3f-8a4b-%012x", sequence*7919),
		Event: "provider.updated", Resource: fmt.Sprintf("provider/550e8400-e29b-41d4-a716-%012x", sequence*104729),
		Outcome: "delivered", Attempt: 1, Status: 204, Address: "10.0.12.34:8443", FirstByte: 350 + sequence%100,
		Total: 410 + sequence%100,
	}
}

// A search by time skips blocks by their bounds, but records are not quite in order: workers
// look at the clock before they add one, and it may be set back.
func TestBlockBoundsItsTimes(t *testing.T) {
	at := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	block := &eventlog.HistoryBlock{Endpoint: "crm"}
	for _, offset := range []time.Duration{1, 3, 0, 2} {
		block.Add(eventlog.Record{At: at.Add(offset * time.Second), Outcome: "delivered"})
	}
	if !block.First.Equal(at) || !block.Last.Equal(at.Add(3*time.Second)) {
		t.Errorf("the block is from %v to %v", block.First, block.Last)
	}
}

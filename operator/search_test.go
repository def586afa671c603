package operator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

// A search examines a part of the log for each page, says how far it looked, and
// finds everything once all pages are read.
func TestSearch(t *testing.T) {
	both(t, func(w *world) {
		const told, every = 2000, 700
		var events []outbox.Event
		var want []int64
		for i := range int64(told) {
			e := order(fmt.Sprint(i), "")
			if i%every == 0 {
				e.ID = "rare"
				want = append([]int64{i + 1}, want...)
			}
			events = append(events, e)
		}
		w.tell(events...)
		begin := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
		w.spread(begin)

		pages, got := w.search("/webhooks/events?limit=2&resource=order/rare")
		if diff := cmp.Diff(want, got); diff != "" || pages < told/500 {
			w.Errorf("found in %d pages (-want +got):\n%s", pages, diff)
		}
		if pages, got = w.search("/webhooks/events?resource=never"); len(got) > 0 || pages < told/500 {
			w.Errorf("%v in %d pages; there is no such resource", got, pages)
		}
		stamp := func(minutes int) string { return begin.Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339) }
		// What is old is found at once.
		query := "/webhooks/events?since=" + stamp(2) + "&until=" + stamp(5)
		if pages, got = w.search(query); !slices.Equal(got, []int64{4, 3, 2}) || pages > 1 {
			w.Errorf("%v in %d pages between two times", got, pages)
		}
		if pages, got = w.search(query + "&resource=order/3"); !slices.Equal(got, []int64{4}) || pages > 1 {
			w.Errorf("%v in %d pages, of a resource between two times", got, pages)
		}
		if a := w.get("/webhooks/events/0190b0a0-0000-7000-8000-000000000001"); a.status != 404 {
			w.Errorf("an id that is not in the log: %d %s", a.status, a.text)
		}
	})
}

// spread gives each event of the log the time that is as many minutes after begin as
// its position says.
func (w *world) spread(begin time.Time) {
	w.Helper()
	if _, err := w.hooks.Log().Advance(w.Context()); err != nil {
		w.Fatal(err)
	}
	statement := "UPDATE %stidings_events SET at = %d + seq * 60000000"
	_, err := w.db.ExecContext(w.Context(), fmt.Sprintf(statement, "tidings.", begin.UnixMicro()))
	if err != nil { // not PostgreSQL
		_, err = w.db.ExecContext(w.Context(), fmt.Sprintf(statement, "", begin.UnixMicro()))
	}
	if err != nil {
		w.Fatal(err)
	}
}

// search reads all pages of a list. Each page that is not full says how far it
// looked, unless it is the last one.
func (w *world) search(target string) (pages int, found []int64) {
	w.Helper()
	for before, last := "", ""; ; pages++ {
		p := decode[operator.Page[struct{ Sequence int64 }]](w, w.get(target+before))
		for _, item := range p.Items {
			found = append(found, item.Sequence)
		}
		if p.Next == 0 {
			if p.SearchedTo != "" {
				w.Errorf("%s: the last page looked back to %s", target+before, p.SearchedTo)
			}
			return pages + 1, found
		}
		if p.SearchedTo != "" {
			if last != "" && p.SearchedTo >= last {
				w.Errorf("%s: looked back to %s after %s", target+before, p.SearchedTo, last)
			}
			last = p.SearchedTo
		}
		before = fmt.Sprintf("&before=%d", p.Next)
	}
}

// The attempts of a resource, of an event and of a time are found in a long history.
func TestSearchAttempts(t *testing.T) {
	both(t, func(w *world) {
		const told = 60
		var events []outbox.Event
		for i := range told {
			events = append(events, order(fmt.Sprint(i), ""))
		}
		w.tell(events...)
		begin := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
		w.spread(begin)
		var blocks []*eventlog.HistoryBlock
		for i := range int64(told) {
			block := &eventlog.HistoryBlock{Endpoint: "books"}
			for _, sequence := range []int64{i + 1, told} { // the last event is retried again and again
				block.Add(eventlog.Record{
					At: begin.Add(time.Duration(i) * time.Minute), Sequence: sequence,
					EventID: fmt.Sprintf("order-%d", sequence-1), Event: "order.created",
					Resource: fmt.Sprintf("order/%d", sequence-1), Outcome: "failed", Attempt: 1,
				})
			}
			blocks = append(blocks, block)
		}
		if err := w.hooks.Log().AppendHistory(w.Context(), blocks); err != nil {
			w.Fatal(err)
		}
		stamp := func(minutes int) string { return begin.Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339) }
		for query, most := range map[string]struct {
			pages int
			found []int64
		}{
			"resource=order/5":                                    {10, []int64{6}},
			"resource=5":                                          {10, []int64{6}},
			"resource=order/never":                                {10, nil},
			"event=order-5":                                       {1, []int64{6}},
			"event=6&endpoint=books":                              {1, []int64{6}},
			"until=" + stamp(3) + "&resource=order/2":             {1, []int64{3}},
			"since=" + stamp(2) + "&until=" + stamp(3):            {1, []int64{told, 3}},
			"outcome=failures&resource=order/2&since=" + stamp(3): {10, nil},
		} {
			pages, found := w.search("/webhooks/attempts?limit=10&" + query)
			if diff := cmp.Diff(most.found, found); diff != "" || pages > most.pages {
				w.Errorf("%s: %d pages, at most %d expected (-want +got):\n%s", query, pages, most.pages, diff)
			}
		}
		if pages, found := w.search("/webhooks/attempts?limit=10&event=60"); len(found) != told+1 || pages > 8 {
			w.Errorf("%d attempts in %d pages of the event that was retried", len(found), pages)
		}
	})
}

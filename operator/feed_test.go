package operator_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

// expiring returns an Authorize whose credentials are valid until a time, without a
// notification when they expire.
func expiring(until time.Time) operator.Authorize {
	return func(*http.Request) (operator.Caller, error) {
		if !time.Now().Before(until) {
			return operator.Caller{}, errors.New("expired")
		}
		return operator.Caller{ID: "ann", Role: operator.Reader}, nil
	}
}

// feed is a source with an event at each interval; 0 for none.
type feed struct{ every time.Duration }

func (f *feed) Read(_ context.Context, after int64, _ int) ([]tidings.Event, error) {
	if f.every == 0 {
		return nil, nil
	}
	time.Sleep(f.every)
	return []tidings.Event{{Sequence: after + 1, Type: "provider", Action: tidings.Created}}, nil
}

func (f *feed) Head() int64                                     { return 0 }
func (f *feed) More(int64) <-chan struct{}                      { return nil }
func (f *feed) Epoch() string                                   { return "" }
func (f *feed) Refresh(context.Context) error                   { return nil }
func (f *feed) Oldest(context.Context) (int64, error)           { return 1, nil }
func (f *feed) Epochs(context.Context) (eventlog.Epochs, error) { return nil, nil }

// Requests that wait for events end at the next keep-alive after the credentials
// have expired, even without a notification, and even if events keep them busy.
func TestWaitingForEventsEndsWithTheCredentials(t *testing.T) {
	tests := []struct {
		name, accept, query string
		every               time.Duration
	}{
		{"a quiet stream", "text/event-stream", "", 0},
		{"a busy stream", "text/event-stream", "", 100 * time.Millisecond},
		{"a long poll", "application/json", "?wait=60s", 0},
		{"a long poll among events for others", "application/json", "?wait=60s&types=file.*", 100 * time.Millisecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &feed{test.every}
				begun := time.Now()
				types := outbox.Types{"provider": nil, "file": nil}
				handler := operator.FeedHandler(f, types, expiring(begun.Add(20*time.Second)))
				w := httptest.NewRecorder()
				r := httptest.NewRequestWithContext(t.Context(), "GET", "/events"+test.query, nil)
				r.Header.Set("Accept", test.accept)
				handler.ServeHTTP(w, r)
				if took := time.Since(begun); took < 20*time.Second || took > 35*time.Second {
					t.Errorf("it lasted %v", took)
				}
				if !strings.Contains(w.Body.String(), `"status":401`) {
					t.Errorf("it ended with:\n%s", w.Body)
				}
			})
		})
	}
}

// long is a log of events of which only the last is about a file. Like the one on disk, it
// reads few at once.
type long struct {
	feed
	took time.Duration // for each read
}

const longEnd = 100_000

func (l *long) Head() int64 { return longEnd }

func (l *long) Read(_ context.Context, after int64, _ int) (events []tidings.Event, _ error) {
	time.Sleep(l.took)
	for s := after + 1; s <= min(after+128, longEnd); s++ {
		e := tidings.Event{Sequence: s, Type: "provider", Action: tidings.Created}
		if s == longEnd {
			e.Type = "file"
		}
		events = append(events, e)
	}
	return events, nil
}

// A page is empty at the end of the log, or if it takes too long to get there, which it says.
func TestPagesWithoutWantedEvents(t *testing.T) {
	types := outbox.Types{"provider": nil, "file": nil}
	type feedPage struct {
		Items []struct{ Sequence int64 }
		Next  string
		More  bool
	}
	page := func(l *long, query string) (p feedPage) {
		w := httptest.NewRecorder()
		operator.FeedHandler(l, types, expiring(time.Now().Add(time.Hour))).
			ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/events"+query, nil))
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return p
	}
	for _, query := range []string{"?types=file.*", "?types=file.*&wait=1s"} {
		if p := page(&long{}, query); len(p.Items) != 1 || p.Items[0].Sequence != longEnd || p.More {
			t.Errorf("%s: %+v", query, p)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		pages, after := 0, ""
		for more := true; more; pages++ {
			p := page(&long{took: 100 * time.Millisecond}, "?types=file.*"+after)
			if more, after = p.More, "&after="+p.Next; more == (len(p.Items) == 1) {
				t.Fatalf("page %d: %+v", pages, p)
			}
		}
		if pages < 3 || pages > 6 {
			t.Errorf("%d pages for a scan of 78 s", pages)
		}
	})
}

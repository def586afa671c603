package receive_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

const thinBody = `{"event":"a.created","resource_type":"a","resource_id":"1","resource_url":"/1","user_id":null,` +
	`"timestamp":"2026-03-26T12:00:00Z"}`

// deliver posts a webhook in the background and returns a channel for its
// status.
func deliver(ctx context.Context, h http.Handler) <-chan int {
	status := make(chan int, 1)
	go func() {
		w := httptest.NewRecorder()
		defer func() {
			if recover() != nil {
				w.Code = 0
			}
			status <- w.Code
		}()
		h.ServeHTTP(w, newPost(thinBody).WithContext(ctx))
	}()
	synctest.Wait() // it is handling the event or waiting
	return status
}

func TestSimultaneousDeliveriesAreHandledOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		results []error // of the calls of handle, in order; then nil
		want    []int   // statuses of the deliveries, in order
	}{
		"the first succeeds": {want: []int{204, 204, 204}},
		"the first fails":    {results: []error{errors.New("no")}, want: []int{500, 204, 204}},
		"the first panics":   {results: []error{errPanic}, want: []int{0, 204, 204}},
		"all of them fail": {
			results: []error{errors.New("1"), errors.New("2"), errors.New("3")},
			want:    []int{500, 500, 500},
		},
		"the last one counts": {results: []error{errors.New("1"), errors.New("2")}, want: []int{500, 500, 204}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, release := 0, make(chan struct{})
				handler := receive.NewHandler(nil, func(context.Context, tidings.Event) error {
					calls++
					var result error
					if calls <= len(tt.results) {
						result = tt.results[calls-1]
					}
					<-release
					if errors.Is(result, errPanic) {
						panic(result)
					}
					return result
				})
				var statuses []<-chan int
				for range tt.want {
					statuses = append(statuses, deliver(t.Context(), handler))
				}
				if calls != 1 {
					t.Errorf("%d calls at once", calls)
				}
				close(release)
				got := make(map[int]int)
				want := make(map[int]int)
				for i, status := range statuses {
					got[<-status]++
					want[tt.want[i]]++
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("statuses = %v, want %v", got, want)
				}
				if most := len(tt.results) + 1; calls > most {
					t.Errorf("%d calls, want at most %d", calls, most)
				}
			})
		})
	}
}

var errPanic = errors.New("panic")

func TestWaitingDeliveryEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, release := 0, make(chan struct{})
		handler := receive.NewHandler(nil, func(context.Context, tidings.Event) error {
			calls++
			<-release
			return nil
		})
		first := deliver(t.Context(), handler)
		ctx, leave := context.WithCancel(t.Context())
		second := deliver(ctx, handler)
		leave()
		if status := <-second; status != http.StatusInternalServerError {
			t.Errorf("status = %d, want one that makes Tidings retry", status)
		}
		close(release)
		if status := <-first; status != http.StatusNoContent || calls != 1 {
			t.Errorf("status = %d after %d calls", status, calls)
		}
	})
}

func TestRecentForgetsTheOldest(t *testing.T) {
	recent := receive.NewRecent(2)
	for _, id := range []string{"a", "b", "b", "c"} {
		recent.Add(id)
	}
	for id, want := range map[string]bool{"a": false, "b": true, "c": true, "": false} {
		if got := recent.Has(id); got != want {
			t.Errorf("has %q = %v", id, got)
		}
	}
}

func TestLatestDropsStaleNews(t *testing.T) {
	latest := receive.NewLatest(2)
	start := time.Date(2026, 3, 26, 12, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		about    string
		resource string
		id       string
		sequence int64
		age      time.Duration // before start
		want     bool
	}{
		{"first", "a", "5", 5, 0, true},
		{"a repetition", "a", "5", 5, 0, false},
		{"older", "a", "3", 3, time.Hour, false},
		{"older, without a sequence", "a", "3", 0, time.Hour, false},
		{"another resource", "b", "2", 2, time.Hour, true},
		{"older by less than clocks may differ", "a", "4", 4, time.Minute, true},
		{"an earlier timestamp, but a higher sequence", "a", "6", 6, time.Hour, true},
		{"newer", "a", "7", 7, -time.Minute, true},
		{"a sequence that was altered", "a", "8", math.MaxInt64, -2 * time.Minute, true},
		{"the next one", "a", "9", 9, -3 * time.Minute, true},
		{"altered every time", "a", "10", math.MaxInt64, -4 * time.Minute, true},
		{"altered, and a timestamp out of order", "a", "11", math.MaxInt64, -3 * time.Minute, true},
		{"still older", "a", "3", 3, time.Hour, false},
		{"lowered to zero", "a", "12", 0, -5 * time.Minute, true},
	} {
		e := tidings.Event{
			Type: "x", ResourceID: step.resource, ID: step.id, Sequence: step.sequence,
			Time: start.Add(-step.age),
		}
		if got := latest.Newer(e); got != step.want {
			t.Errorf("%s: newer = %v", step.about, got)
		}
	}
}

func TestDecode(t *testing.T) {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		h.Set("webhook-id", "evt-1")
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	for name, tt := range map[string]struct {
		header   http.Header
		body     string
		sequence int64
		want     string // a part of the error; empty for none
		name     string // of the event; empty for a.created
	}{
		"as it is sent": {header: header("tidings-sequence", "7"), body: thinBody, sequence: 7},
		"a member of a later version": {
			header: header(),
			body:   strings.Replace(thinBody, "{", `{"data":{"event":1},"Event":2,`, 1),
		},
		"a member is missing": {
			header: header(), body: strings.Replace(thinBody, `"resource_id":"1",`, "", 1),
			want: "resource_id",
		},
		"different capitalization": {
			header: header(), body: strings.Replace(thinBody, `"event"`, `"Event"`, 1),
			want: `"event" is missing`,
		},
		"the wrong type":             {header: header(), body: strings.Replace(thinBody, `"1"`, "1", 1), want: "resource_id"},
		"more than one":              {header: header(), body: thinBody + thinBody, want: "event body"},
		"not an object":              {header: header(), body: "[]", want: "event body"},
		"nothing":                    {header: header(), body: "null", want: "missing"},
		"a number that is too large": {header: header("tidings-sequence", "9223372036854775808"), body: thinBody},
		"a malformed header":         {header: header("tidings-resource-version", "a proxy's"), body: thinBody},
		"a long id": {
			header: header("webhook-id", strings.Repeat("x", 257)),
			body:   thinBody, want: "webhook-id",
		},
		"any type and action": {
			header: header(), body: strings.NewReplacer("a.created", "parcel.lost", `"a"`, `"parcel"`).Replace(thinBody),
			name: "parcel.lost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := receive.Decode(tt.header, []byte(tt.body))
			switch {
			case (err == nil) != (tt.want == ""), err != nil && !strings.Contains(err.Error(), tt.want):
				t.Errorf("error = %v, want %q", err, tt.want)
			case err == nil && (e.ID != "evt-1" || e.Name() != cmp.Or(tt.name, "a.created") || e.Sequence != tt.sequence):
				t.Errorf("event = %+v", e)
			}
		})
	}
}

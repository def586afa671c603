package operator_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

// A selection of parked events that is wrong in any way selects none of them.
func TestWrongSelectionsSelectNothing(t *testing.T) {
	both(t, func(w *world) {
		w.sick() // an invoice of books is a dead letter
		ctx := w.Context()
		refused := func(what string, err error) {
			w.Helper()
			if err == nil {
				w.Errorf("%s: not refused", what)
			}
		}
		for _, event := range []string{"0", "00", "-1"} {
			_, err := w.service.Parked(ctx, operator.ParkedFilter{Event: event}, "", 10)
			refused("list "+event, err)
			_, err = w.service.ParkedGroups(ctx, operator.ParkedFilter{Event: event}, 10)
			refused("groups "+event, err)
			selection := operator.ParkedSelection{Endpoint: "books", Event: event}
			_, err = w.service.RetryParked(ctx, operator.RetryParked{ParkedSelection: selection})
			refused("retry "+event, err)
			_, err = w.service.DiscardParked(ctx, operator.DiscardParked{ParkedSelection: selection, Comment: "why"})
			refused("discard "+event, err)
			_, err = w.service.Explain(ctx, event)
			refused("explain "+event, err)
			_, err = w.service.Replay(ctx, operator.NewReplay{Endpoint: "warehouse", Event: event}, "op")
			refused("replay "+event, err)
		}
		for _, query := range []string{
			"endpoint=books&count=", "endpoint=books", "endpoint=books&count=0", "endpoint=books&count=abc",
			"endpoint=books&count=1&reson=http_500", "endpoint=books&count=1&dead=maybe", "event=0-books",
			"endpoint=books&count=1&reason=%00", "endpoint=books&count=1&resource=%ff", "count=1",
		} {
			form, err := url.ParseQuery(query)
			if err != nil {
				w.Fatal(err)
			}
			form.Set("comment", "why")
			for _, verb := range []string{"retry", "discard"} {
				w.post("op manager", "parked/"+verb, form) // it leads back, and says why
				page, err := w.service.Parked(ctx, operator.ParkedFilter{}, "", 10)
				if err != nil || len(page.Items) != 1 || page.Items[0].Dead == "" {
					w.Fatalf("POST %s, %s: parked: %+v, %v", verb, query, page, err)
				}
			}
		}
		for _, query := range []string{"endpoint=books&reson=http_500", "endpoint=books&dead=maybe"} {
			if got := w.see("op manager", "parked/discard?"+query); got.status != 422 {
				w.Errorf("GET discard?%s: %d, want 422", query, got.status)
			}
		}
		if got := w.see("op manager", "parked/retry?endpoint=books&reason=http_500"); got.status != 303 {
			w.Errorf("the question about no events: %d, want 303", got.status)
		}
	})
}

// The console refuses text that a database can't hold.
func TestConsoleRefusesInvalidText(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		for _, text := range []string{"%00", "%ff%fe", "a%00b"} {
			for _, page := range []string{
				"events?resource=", "events?types=", "parked?reason=", "attempts?endpoint=", "events/", "endpoints/",
				"find?q=", "parked/retry?endpoint=books&reason=", "replays?plan=1&endpoint=", "?sort=",
			} {
				if got := w.see("op manager", page+text); got.status != 422 {
					w.Errorf("%s%s: %d, want 422", page, text, got.status)
				}
			}
			comment, err := url.QueryUnescape(text)
			if err != nil {
				w.Fatal(err)
			}
			w.post("op manager", "endpoints/warehouse/pause", url.Values{"comment": {comment}})
			if e, err := w.service.Endpoint(w.Context(), "warehouse"); err != nil || e.Control != nil {
				w.Fatalf("the comment %q pauses: %+v, %v", comment, e, err)
			}
		}
		got := w.see("op manager", "endpoints/warehouse")
		if strings.Contains(got.text, "\x00") || !utf8.ValidString(got.text) {
			w.Error("the endpoint's page holds what was refused")
		}
	})
}

// Only a resume ends a pause, and pausing again without a reason keeps the first one's
// reason.
func TestPauseIsKept(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		ctx := w.Context()
		if _, err := w.service.Pause(ctx, "warehouse", operator.NewPause{Comment: "moving house"}); err != nil {
			w.Fatal(err)
		}
		if _, err := w.service.Enable(ctx, "warehouse"); err == nil || !strings.Contains(err.Error(), "resume it") {
			w.Errorf("enable a paused endpoint: %v", err)
		}
		e, err := w.service.Pause(ctx, "warehouse", operator.NewPause{})
		if err != nil || e.Control == nil || e.Control.Comment != "moving house" {
			w.Errorf("paused again: %+v, %v", e, err)
		}
		e, err = w.service.Pause(ctx, "warehouse", operator.NewPause{Comment: "still moving"})
		if err != nil || e.Control == nil || e.Control.Comment != "still moving" {
			w.Errorf("paused again with a reason: %+v, %v", e, err)
		}
		if e, err = w.service.Resume(ctx, "warehouse"); err != nil || e.Reason == "paused" {
			w.Errorf("resumed: %+v, %v", e, err)
		}
	})
}

// Each page and form refuses parameters and fields that it does not know, and says which.
func TestConsoleRefusesUnknownParameters(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.sick()
	names := strings.NewReplacer("{$}", "", "{name}", "books", "{event}", "1", "{id}", heldChange)
	for _, r := range operator.ConsoleRoutes() {
		for _, verb := range []string{"retry", "pause"} {
			if !strings.Contains(r[1], "{verb}") && verb == "pause" || (verb == "retry") == strings.HasPrefix(r[1], "endpoints") &&
				strings.Contains(r[1], "{verb}") {
				continue
			}
			page := strings.ReplaceAll(names.Replace(r[1]), "{verb}", verb)
			if r[0] == "GET" {
				got := w.see("op manager", page+"?nonsense=1")
				if got.status != 422 || !strings.Contains(got.text, "&#34;nonsense&#34; is unknown; this page takes ") {
					t.Errorf("GET %s: %d, want 422 and why: %.300s", page, got.status, got.text)
				}
				continue
			}
			for _, got := range []answer{
				w.post("op manager", page, url.Values{"nonsense": {"1"}}), w.post("op manager", page+"?nonsense=1", nil),
			} {
				if got.status != 303 || !strings.Contains(got.note(t), "Not done:") {
					t.Errorf("POST %s: %d %s", page, got.status, got.text)
				}
			}
		}
	}
	if page, err := w.service.Actions(w.Context(), "", 0, 10); err != nil || len(page.Items) > 0 {
		t.Errorf("something was done: %+v, %v", page, err)
	}
}

package receive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

const feedEvents = `{"items":[
	{"id":"e1","sequence":1,"resource_version":1,"event":"a.created","resource_type":"a","resource_id":"1",
	 "resource_url":"/1","user_id":null,"timestamp":"2026-03-26T12:00:00Z","later":{}},
	{"id":"e2","sequence":2,"resource_version":2,"event":"a.updated","resource_type":"a","resource_id":"1",
	 "resource_url":"/1","user_id":"ann","timestamp":"2026-03-26T12:00:01Z"}],"next":"2-x","head":2}`

func TestFeedCatchesUp(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("after")+" "+r.URL.Query().Get("types")+" "+r.Header.Get("Authorization"))
		switch r.URL.Query().Get("after") {
		case "":
			fmt.Fprint(w, feedEvents)
		case "gone":
			w.WriteHeader(http.StatusGone)
			fmt.Fprint(w, `{"status":410,"after":"9-y"}`)
		case "other":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"detail":"requires the role reader"}`)
		case "2-x": // none of many events are for this caller
			fmt.Fprint(w, `{"items":[],"next":"3-x","more":true}`)
		default:
			fmt.Fprint(w, `{"items":[],"next":"3-x","more":false}`)
		}
	}))
	defer server.Close()
	var observed []receive.Result
	var logs bytes.Buffer
	var got []string
	broken := errors.New("broken")
	result := broken
	storage := receive.NewMemory(10)
	handler := receive.New(nil, func(_ context.Context, e tidings.Event) error {
		if result == nil {
			got = append(got, fmt.Sprint(e.ID, " ", e.Name(), " ", e.UserID, e.ResourceVersion))
		}
		return result
	}, receive.Options{
		Storage: storage, Logger: slog.New(slog.NewTextHandler(&logs, nil)),
		Observe: func(o receive.Observation) { observed = append(observed, o.Result) },
	})
	feed := receive.Feed{URL: server.URL + "/", Token: "t", Types: []string{"a.*", "b.*"}}
	if n, err := feed.CatchUp(t.Context(), handler); !errors.Is(err, broken) || n != 0 {
		t.Errorf("with a handler that fails: %d, %v", n, err)
	}
	result = nil
	if n, err := feed.CatchUp(t.Context(), handler); n != 2 || err != nil {
		t.Errorf("%d events, %v", n, err)
	}
	if want := []string{"e1 a.created 1", "e2 a.updated ann2"}; !slices.Equal(got, want) {
		t.Errorf("handled %q, want %q", got, want)
	}
	if want := []string{" a.*,b.* Bearer t", " a.*,b.* Bearer t", "2-x a.*,b.* Bearer t", "3-x a.*,b.* Bearer t"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
	if want := []receive.Result{receive.Failed, receive.Handled, receive.Handled}; !slices.Equal(observed, want) {
		t.Errorf("observed %q", observed)
	}
	if text := logs.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "error=broken") {
		t.Errorf("logged %s", text)
	}
	_ = storage.SetCursor(t.Context(), "gone")
	_, err := feed.CatchUp(t.Context(), handler)
	if expired, ok := errors.AsType[*receive.ExpiredError](err); !ok || expired.After != "9-y" {
		t.Errorf("error = %v", err)
	}
	_ = storage.SetCursor(t.Context(), "other")
	if _, err := feed.CatchUp(t.Context(), handler); err == nil || !strings.Contains(err.Error(), "the role reader") {
		t.Errorf("error = %v", err)
	}
}

func TestHandlerReportsWhatItRefuses(t *testing.T) {
	verifier, err := receive.NewVerifier(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	var observed receive.Observation
	handler := receive.New(verifier, nil, receive.Options{Observe: func(o receive.Observation) { observed = o }})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, newPost(thinBody))
	if observed.Result != receive.Refused || observed.Status != w.Code || w.Code != http.StatusUnauthorized ||
		!errors.Is(observed.Err, receive.ErrMissingHeader) {
		t.Errorf("observed %+v, status %d", observed, w.Code)
	}
}

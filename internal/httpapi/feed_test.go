package httpapi_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/resource"
)

// expiring is credentials that count until a time, of which nobody tells.
type expiring struct{ until time.Time }

var errExpired = &resource.Error{Code: resource.Unauthenticated, Message: "expired"}

func (e *expiring) Identify(string) (resource.Identity, error) { return resource.Identity{}, nil }

func (e *expiring) Caller(context.Context, resource.Identity) (resource.Caller, error) {
	if !time.Now().Before(e.until) {
		return resource.Caller{}, errExpired
	}
	return resource.Caller{UserID: "ann", Role: resource.RoleAdmin}, nil
}

func (e *expiring) Recheck(ctx context.Context, _ string, _ resource.Caller) (resource.Caller, error) {
	return e.Caller(ctx, resource.Identity{})
}

func (e *expiring) Changed() <-chan struct{} { return nil }

// feed has an event every so often; 0 for none.
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

// Credentials that count no longer end what waits for events at the next
// keep-alive, also where nobody tells of it, and also where events keep it busy.
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
				api := httpapi.New(httpapi.Options{
					Resources: resource.New(nil, resource.Outside{}, resource.Options{}),
					Logger:    slog.New(slog.DiscardHandler),
					Metrics:   http.NotFoundHandler(), Authenticator: &expiring{begun.Add(20 * time.Second)}, Feed: f,
					Log: f,
				})
				w := httptest.NewRecorder()
				r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/v1/events"+test.query, nil)
				r.Header.Set("Accept", test.accept)
				api.ServeHTTP(w, r)
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

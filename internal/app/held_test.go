package app_test

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// wantsBusy expects that a request was refused after a short wait, because no place was
// free, and that the answer has Retry-After.
func (w *world) wantsBusy(a answer, took time.Duration, texts ...string) {
	w.Helper()
	w.wants(a, http.StatusServiceUnavailable, texts...)
	if after, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || after < 1 {
		w.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
	}
	if took < time.Second || took > testtool.Allow(15*time.Second) {
		w.Errorf("the request was refused after %v", took)
	}
}

// begin sends the beginning of a request on a new connection, which is closed at the end
// of the test.
func (w *world) begin(as, method, path string, rest ...string) net.Conn {
	w.Helper()
	address := strings.TrimPrefix(w.url, "http://")
	c, err := new(net.Dialer).DialContext(w.Context(), "tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "%s /api/v1%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%s",
		method, path, address, as,
		cmp.Or(strings.Join(rest, ""), "\r\n"))
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// One user's streams and long polls leave places for other users, and do not block the
// user's other requests.
func TestEventStreamsOfOneUser(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["limits"] = object{
			"event_streams": 3, "user_event_streams": 2, "concurrent_requests": 2,
			"user_concurrent_requests": 1,
		}
		w := newWorld(t, settings)
		head := w.call("ann", "GET", "/events", nil).body["head"]
		poll := fmt.Sprintf("/events?after=%.0f&types=file.*&wait=60s", head)
		first := w.stream("ann", "")
		w.begin("bob", "GET", poll)
		w.begin("ann", "GET", poll)
		w.untilTaken("event_streams", 3)
		for accept, path := range map[string]string{"text/event-stream": "/events", "application/json": poll} {
			begun := time.Now()
			a := w.try("ann", "GET", path, nil, "Accept", accept)
			w.wantsBusy(a, time.Since(begun), "each user is limited to 2 event streams")
		}
		begun := time.Now()
		w.wantsBusy(w.try("developer", "GET", poll, nil), time.Since(begun), "the server is limited to 3 event streams")
		w.call("ann", "GET", "/events?limit=1", nil)
		w.call("ann", "GET", "/users/me", nil)
		if err := first.close(); err != nil {
			t.Error(err)
		}
		w.stream("developer", "")
	})
}

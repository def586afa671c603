package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// If events expire before an endpoint that is down or paused gets them, this is reported
// at once: in the log, by a metric, and with the endpoint. A warning precedes it. A
// replay of expired events reports them, too.
func TestExpiryIsReported(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		var well atomic.Bool
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			if !well.Load() {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		defer receiver.Close()
		settings["webhook"] = object{"retention": "5s", "history_retention": "1h", "endpoints": []any{
			object{"name": "down", "url": receiver.URL, "max_in_flight": 2},
			object{"name": "paused", "url": receiver.URL, "partitions": 2},
		}}
		w := newWorld(t, settings)
		w.call("admin", "POST", "/webhooks/endpoints/paused/pause", nil)
		for range 5 {
			w.call("ann", "POST", "/contexts", object{})
		}
		replay := w.call("admin", "POST", "/webhooks/replays", object{"endpoint": "paused", "all": true}).id()
		missed := func(name string) int64 {
			w.Helper()
			n, _ := w.call("admin", "GET", "/webhooks/endpoints/"+name, nil).body["missed"].(float64)
			return int64(n)
		}
		warned := false
		deadline := time.Now().Add(testTimeout)
		for missed("down") < 5 || missed("paused") < 5 {
			warned = warned || has(`"expires_at"`)(w.call("admin", "GET", "/webhooks/endpoints/down", nil))
			w.call("ann", "POST", "/contexts", object{})
			if time.Now().After(deadline) {
				t.Fatalf("missed %d and %d; expired events were not reported", missed("down"), missed("paused"))
			}
			<-time.After(50 * time.Millisecond)
		}
		t.Logf("missed %d and %d", missed("down"), missed("paused"))
		if !warned {
			t.Error("the endpoint did not show that events expire soon")
		}
		w.logged("expire soon", `msg="events expired before the endpoint could get them" endpoint=down from=1`,
			`msg="events expired before the endpoint could get them" endpoint=paused from=1`)
		counted := func(name string) { // more events may expire at any time
			w.waitFor("the metric of "+name, func() bool {
				return len(w.series(fmt.Sprintf(`tidings_webhook_missed_total{endpoint=%q,reason="expired"} %d`,
					name, missed(name)))) == 1
			})
		}
		counted("down")
		counted("paused")
		if w.series(`tidings_endpoint_retention_used_ratio{endpoint="down"}`) == nil {
			t.Error("there is no metric of the retention")
		}

		well.Store(true)
		w.call("admin", "POST", "/webhooks/endpoints/paused/resume", nil)
		w.until("admin", "GET", "/webhooks/replays/"+replay, nil, func(a answer) bool {
			expired, _ := a.body["expired"].(float64)
			return a.body["state"] != "running" && expired >= 5
		})
		for _, name := range []string{"down", "paused"} {
			w.until("admin", "GET", "/webhooks/endpoints/"+name, nil, has(`"state":"healthy"`))
			counted(name)
		}
		if strings.Contains(w.log.String(), "it continues with the oldest event in the log") {
			t.Error("a gap was reported twice")
		}
	})
}

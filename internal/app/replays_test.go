package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// The number of waiting replays of an endpoint is limited, even with concurrent requests,
// and does not affect other endpoints. They all run once the endpoint is resumed, and
// then expire.
func TestReplaysThatWait(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer receiver.Close()
		settings["webhook"] = object{"retention": "2m", "history_retention": "2s", "endpoints": []any{
			object{"name": "paused", "url": receiver.URL}, object{"name": "well", "url": receiver.URL},
		}}
		w := newWorld(t, settings)
		w.call("ann", "POST", "/contexts", object{})
		w.until("admin", "GET", "/webhooks/events", nil, has(`"sequence":1,`))
		w.call("admin", "POST", "/webhooks/endpoints/paused/pause", nil)
		again := func(endpoint string) answer {
			return w.try("admin", "POST", "/webhooks/replays", object{"endpoint": endpoint, "event": "1"})
		}
		var asking sync.WaitGroup
		answers := make(chan answer, 120)
		for range 8 {
			asking.Go(func() {
				for range 15 {
					answers <- again("paused")
				}
			})
		}
		asking.Wait()
		close(answers)
		refused := 0
		for a := range answers {
			if a.status != http.StatusCreated {
				refused++
				w.wants(a, 409, "100 replays of endpoint paused already run or wait",
					"wait until some have ended, or cancel some")
			}
		}
		if refused != 20 {
			t.Errorf("%d of 120 replays were refused, want 20", refused)
		}
		other := again("well")
		w.wants(other, 201)
		w.until("admin", "GET", "/webhooks/replays/"+other.id(), nil, has(`"state":"done"`))
		first := w.call("admin", "GET", "/webhooks/replays?limit=1000", nil)
		waiting := strings.Count(first.text, `"state":"running"`)
		for _, r := range items(first) {
			if r["state"] == "running" {
				w.call("admin", "POST", "/webhooks/replays/"+r["id"].(string)+"/cancel", nil)
				break
			}
		}
		w.wants(again("paused"), 201)
		w.wants(again("paused"), 409)
		if waiting != 100 {
			t.Errorf("%d replays wait, want 100", waiting)
		}
		w.call("admin", "POST", "/webhooks/endpoints/paused/resume", nil)
		begun := time.Now()
		w.until("admin", "GET", "/webhooks/replays", nil, has(`"items":[]`))
		t.Logf("all replays have run and expired after %v", time.Since(begun))
	})
}

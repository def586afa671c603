package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// One developer's hanging agents do not delay the checks of another's.
func TestChecksAreFairAmongOwners(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["providers"] = object{"check_interval": "1s"}
		w := newWorld(t, settings)
		var hanging atomic.Int64
		asked := make(chan struct{}, 100)
		agents := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/other/.well-known/agent-card.json" {
				asked <- struct{}{}
				return
			}
			hanging.Add(1)
			<-r.Context().Done()
		}))
		t.Cleanup(agents.Close)
		add := func(as, path string) {
			w.call(as, "POST", "/providers", object{"location": agents.URL + path, "agent_card": card("Given")})
		}
		for n := range 64 {
			add("developer", fmt.Sprint("/", n))
		}
		for hanging.Load() < 4 {
			<-time.After(time.Millisecond)
		}
		add("leaver", "/other")
		begun := time.Now()
		for range 4 {
			<-asked
		}
		// If the agent had to wait for the others, it would be checked every 20 s.
		if took := time.Since(begun); took > testtool.Allow(15*time.Second) {
			t.Errorf("an agent was checked 4 times in %v, want once per second", took)
		}
		if err := w.stop(); err != nil { // running checks end with the server
			t.Error(err)
		}
	})
}

package app_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// refuser returns a receiver that refuses events of one name and accepts all others.
func refuser(t *testing.T, event string) string {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte(`"event":"`+event+`"`)) {
			rw.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// update creates contexts and updates them.
func (w *world) update(contexts int) {
	w.Helper()
	for i := range contexts {
		id := w.call("ann", "POST", "/contexts", object{}).id()
		w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": fmt.Sprint(i)}})
		w.call("ann", "POST", "/contexts", object{}) // others get through
	}
}

// A removed endpoint's state (cursor, parked events, pause) is deleted once its removal
// is older than the retention of events. An endpoint that is added later under its name is
// a new one. Its replays end at once.
func TestRemovedEndpoint(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		url := refuser(t, "context.updated")
		stays := object{"name": "stays", "url": url, "events": []any{"provider.*"}}
		leaver := object{"name": "leaver", "url": url, "retry": object{"schedule": []any{"1h"}, "max_attempts": 20}}
		settings["webhook"] = object{"retention": "4s", "endpoints": []any{stays, leaver}}
		w := newWorldWith(t, settings, option(reloads))
		const path = "/webhooks/endpoints/leaver"
		w.update(3)
		w.shows(path, `"parked":3,`)
		w.call("admin", "POST", path+"/pause", nil)
		w.update(1)
		replay := w.call("admin", "POST", "/webhooks/replays", object{"endpoint": "leaver", "all": true}).id()

		// If added again in time, it continues, still paused.
		w.reconfigure(stays)
		w.wants(w.call("admin", "GET", path, nil), 200, `"state":"removed"`, `"parked":3`)
		w.wants(w.call("admin", "GET", "/webhooks/replays/"+replay, nil), 200, `"state":"canceled"`,
			`"reason":"the endpoint was removed"`)
		w.reconfigure(stays, leaver)
		w.until("admin", "GET", path, nil, has(`"reason":"paused"`, `"parked":3`))

		w.reconfigure(stays)
		w.until("admin", "GET", path, nil, func(a answer) bool { return a.status == http.StatusNotFound })
		w.waitFor("the log reports it", func() bool {
			return strings.Contains(w.log.String(),
				`msg="the data of an endpoint that is no longer configured was removed" endpoint=leaver`)
		})
		if !strings.Contains(w.log.String(), "parked=3") {
			t.Error("the log does not say how many parked events were removed")
		}
		if got := strings.Join(w.series(`tidings_parked_removed_total{reason="endpoint_removed"}`),
			""); !strings.HasSuffix(got, " 3") {
			t.Errorf("metric: %q", got)
		}
		w.wants(w.call("admin", "GET", "/webhooks/parked", nil), 200, `"items":[]`)
		w.reconfigure(stays, leaver)
		w.until("admin", "GET", path, nil,
			has(`"state":"healthy"`, `"parked":0`, `"dead":0`, `"missed":0`, `"lag_events":0`))
	})
}

// Dead letters are removed after their retention, or when an operator discards them.
func TestDeadLettersAreRemoved(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		url := refuser(t, "context.updated")
		crm := object{"name": "crm", "url": url, "retry": object{"schedule": []any{"10ms"}, "max_attempts": 1}}
		settings["webhook"] = object{"dead_letter_retention": "1h", "retention": "20s", "endpoints": []any{crm}}
		w := newWorldWith(t, settings, option(reloads))
		const path = "/webhooks/endpoints/crm"
		w.update(4)
		w.shows(path, `"parked":0,"dead":4,`)
		letters := items(w.call("admin", "GET", "/webhooks/parked?endpoint=crm&dead=true", nil))
		discard := func(as string, more object) answer {
			body := object{"endpoint": "crm", "comment": "obsolete"}
			maps.Copy(body, more)
			return w.try(as, "POST", "/webhooks/parked/discard", body)
		}
		w.wants(discard("admin", object{"event": letters[0]["id"]}), 200, `"count":1`)
		w.wants(discard("admin", object{"event": fmt.Sprint(letters[1]["sequence"])}), 200, `"count":1`)
		w.wants(w.call("admin", "GET", path, nil), 200, `"dead":2`)
		w.wants(discard("admin", object{"event": letters[0]["id"]}), 404, "no parked event")
		w.wants(discard("admin", object{"event": letters[0]["id"], "dead": true}), 404, "no dead letter")
		w.wants(discard("admin", object{}), 422, "or set all")
		w.wants(discard("admin", object{"event": "1", "all": true}), 422, "or set all")
		w.wants(discard("admin", object{"all": true, "comment": " "}), 422, "say why")
		w.wants(discard("admin", object{"all": true, "endpoint": "cmr"}), 422, `did you mean \"crm\"?`)
		w.wants(discard("developer", object{"all": true}), 403)
		w.wants(discard("admin", object{"all": true, "dry_run": true}), 200, `"count":2`)
		w.wants(discard("admin", object{"all": true}), 200, `"count":2`)
		w.wants(w.call("admin", "GET", path, nil), 200, `"dead":0`)
		w.wants(w.call("admin", "GET", "/webhooks/parked", nil), 200, `"items":[]`)

		w.update(2)
		w.shows(path, `"parked":0,"dead":2,`)
		w.settings["webhook"].(object)["dead_letter_retention"] = "1s"
		w.reconfigure(crm)
		w.until("admin", "GET", path, nil, has(`"dead":0`))
		w.wants(w.call("admin", "GET", "/webhooks/parked", nil), 200, `"items":[]`)
		w.waitFor("the log reports it", func() bool {
			return strings.Contains(w.log.String(),
				`msg="dead letters past their retention were removed" endpoint=crm count=`)
		})
		for reason, want := range map[string]string{"discarded": "4", "expired": "2"} {
			if got := strings.Join(w.series(`tidings_parked_removed_total{reason="`+reason+`"}`),
				""); !strings.HasSuffix(got, " "+want) {
				t.Errorf("metric: %q, want %s", got, want)
			}
		}
	})
}

// The numbers of parked events are right, whenever the server is killed.
func TestParkedCountsSurviveKills(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["webhook"] = object{"endpoints": []any{object{
			"name": "crm", "url": refuser(t, "context.updated"),
			"retry": object{"schedule": []any{"50ms", "300ms"}, "max_attempts": 3},
		}}}
		p := newProcess(t, settings)
		var ids []string
		p.start()
		for range 10 {
			status, context, err := p.call("POST", "/contexts", object{})
			if err != nil || status != http.StatusCreated {
				t.Fatal(status, err)
			}
			ids = append(ids, fmt.Sprint(context["id"]))
		}
		for range 4 {
			stop := time.After(time.Second)
			for n, over := 0, false; !over; n++ {
				select {
				case <-stop:
					over = true
				default:
					if _, _,
						err := p.call("PUT", "/contexts/"+ids[n%len(ids)],
						object{"metadata": object{"n": fmt.Sprint(n)}}); err != nil {
						t.Fatal(err)
					}
					if _, _, err := p.call("POST", "/contexts", object{}); err != nil { // others get through
						t.Fatal(err)
					}
				}
			}
			p.end(syscall.SIGKILL)
			p.start()
			if _, _, err := p.call("POST", "/webhooks/endpoints/crm/pause", nil); err != nil {
				t.Fatal(err)
			}
			for same := false; !same; {
				shown, listed := p.parked("crm")
				again, _ := p.parked("crm")
				if same = shown == again; same && shown != listed {
					t.Fatalf("the endpoint shows %d parked and %d dead, but there are %d and %d", shown[0],
						shown[1], listed[0], listed[1])
				}
				if same && shown[0]+shown[1] == 0 {
					t.Fatal("nothing was parked")
				}
			}
			if _, _, err := p.call("POST", "/webhooks/endpoints/crm/resume", nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// parked returns the numbers of parked events and of dead letters: as shown by an endpoint,
// and as listed.
func (p *process) parked(endpoint string) (shown, listed [2]int) {
	p.Helper()
	_, e, err := p.call("GET", "/webhooks/endpoints/"+endpoint, nil)
	if err != nil {
		p.Fatal(err)
	}
	shown = [2]int{int(e["parked"].(float64)), int(e["dead"].(float64))}
	for after := "0"; ; {
		_, page, err := p.call("GET", fmt.Sprintf("/webhooks/parked?limit=1000&endpoint=%s&after=%s", endpoint,
			url.QueryEscape(after)), nil)
		if err != nil {
			p.Fatal(err)
		}
		for _, item := range page["items"].([]any) {
			if item.(object)["dead"] == nil {
				listed[0]++
			} else {
				listed[1]++
			}
		}
		next, more := page["next"].(string)
		if !more {
			return shown, listed
		}
		after = next
	}
}

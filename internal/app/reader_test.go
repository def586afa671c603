package app_test

import (
	"strings"
	"testing"
)

// A receiver with a token of its own finds in the feed what it missed, and looks at every
// resource again, but not at contents of files.
func TestReaderLooksAgain(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		context := w.call("ann", "POST", "/contexts", object{}).id()
		file := w.upload("ann", "?context_id="+context).id()
		w.call("admin", "POST", "/events", object{"event": "published.told", "resource_id": "4711"})
		feed := w.until("reader", "GET", "/events?limit=1000", nil, func(a answer) bool {
			return strings.Contains(a.text, `"4711"`)
		})
		seen := map[string]bool{}
		for _, item := range feed.body["items"].([]any) {
			e := item.(object)
			seen[e["resource_id"].(string)] = true
			url, own := strings.CutPrefix(e["resource_url"].(string), "/api/v1")
			if !own {
				continue // of a program that publishes
			}
			if a := w.try("reader", "GET", url, nil); a.status != 200 {
				t.Errorf("GET %s: %d %s", url, a.status, a.text)
			}
		}
		if !seen[context] || !seen[file] || !seen["4711"] {
			t.Errorf("the feed lacks some of its events: %s", feed.text)
		}
		w.wants(w.try("reader", "GET", "/files/"+file+"/content", nil), 403, "requires the role user; yours is reader")
		if list := w.call("reader", "GET", "/contexts", nil); !strings.Contains(list.text, context) {
			t.Errorf("the list lacks the context of another user: %s", list.text)
		}
	})
}

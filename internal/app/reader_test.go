package app_test

import (
	"strings"
	"testing"
)

// A receiver's own token can read missed events from the feed and all resources, but no
// file contents.
func TestReaderToken(t *testing.T) {
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
				continue // published by a program
			}
			if a := w.try("reader", "GET", url, nil); a.status != 200 {
				t.Errorf("GET %s: %d %s", url, a.status, a.text)
			}
		}
		if !seen[context] || !seen[file] || !seen["4711"] {
			t.Errorf("the feed lacks some events: %s", feed.text)
		}
		w.wants(w.try("reader", "GET", "/files/"+file+"/content", nil), 403, "requires the role user; yours is reader")
		if list := w.call("reader", "GET", "/contexts", nil); !strings.Contains(list.text, context) {
			t.Errorf("the list lacks another user's context: %s", list.text)
		}
	})
}

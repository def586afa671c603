package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// A page of an operator's list has at most limit items, and the next page starts right
// after it, even within a block of the history and between endpoints that parked the same
// event.
func TestPagesOfOperatorLists(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if body, _ := io.ReadAll(r.Body); bytes.Contains(body, []byte(`"event":"context.updated"`)) {
				rw.WriteHeader(http.StatusBadRequest)
			}
		}))
		defer receiver.Close()
		var more []any
		for _, name := range []string{"crm/eu", "crm-us"} {
			more = append(more, object{
				"name": name, "url": receiver.URL, "events": []any{"context.*"},
				"retry": object{"schedule": []any{"1h"}, "max_attempts": 3},
			})
		}
		w := newWorldWith(t, settings, more...)
		var ids []string
		for range 4 {
			ids = append(ids, w.call("ann", "POST", "/contexts", object{}).id())
		}
		for _, id := range ids[:3] {
			w.call("ann", "PUT", "/contexts/"+id, object{"metadata": object{"n": "1"}})
		}
		w.whileOthersPass("6 parked events", func() bool {
			return len(items(w.call("admin", "GET", "/webhooks/parked?limit=100", nil))) == 6
		})
		w.mark()
		for list, parameter := range map[string]string{
			"events?":                             "before",
			"events?types=context.*&":             "before",
			"attempts?":                           "before",
			"attempts?endpoint=crm-us&":           "before",
			"attempts?outcome=failures&":          "before",
			"attempts?resource=" + ids[0] + "&":   "before",
			"parked?":                             "after",
			"parked?endpoint=" + "crm%2Feu" + "&": "after",
		} {
			list = "/webhooks/" + list
			for limit := 1; limit <= 5; limit++ {
				want := items(w.call("admin", "GET", list+"limit=1000", nil))
				var got []object
				for at := ""; len(got) <= len(want); {
					page := w.call("admin", "GET", fmt.Sprintf("%slimit=%d%s", list, limit, at), nil)
					if n := len(items(page)); n > limit {
						t.Fatalf("%slimit=%d%s: %d items", list, limit, at, n)
					}
					got = append(got, items(page)...)
					next, more := page.body["next"]
					if !more {
						break
					}
					text, _ := json.Marshal(next)
					at = "&" + parameter + "=" + url.QueryEscape(strings.Trim(string(text), `"`))
				}
				if now := items(w.call("admin", "GET", list+"limit=1000", nil)); !reflect.DeepEqual(now, want) {
					limit-- // the list changed meanwhile: retry
				} else if !reflect.DeepEqual(got, want) {
					t.Errorf("%slimit=%d: %d items\n%v\nwant %d\n%v", list, limit, len(got), got, len(want), want)
				}
			}
		}
	})
}

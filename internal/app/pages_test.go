package app_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// pageLimit is the maximum size of a page, including what surrounds its items.
const pageLimit = 1<<20 + 4096

// Pages of large items are bounded in bytes, and paging returns each item once, in order.
func TestPagesAreBoundedInBytes(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		context := w.call("ann", "POST", "/contexts", object{}).id()
		provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url}).id()
		large := strings.Repeat("x", 300<<10)
		for _, test := range []struct {
			list string
			add  func(n int) string // returns the id
		}{
			{"/contexts/" + context + "/history", func(n int) string {
				text := large
				if n == 3 { // fills almost a whole page
					text = strings.Repeat("y", 1<<20-300)
				}
				return w.call("ann", "POST", "/contexts/"+context+"/history", message(text)).id()
			}},
			{"/providers?user_owned=false", func(n int) string {
				agent := card("a")
				agent["description"] = large
				return w.call("developer", "POST", "/providers",
					object{"location": fmt.Sprintf("https://agent-%d.example.com", n), "agent_card": agent}).id()
			}},
			{"/user_feedback", func(int) string {
				text := strings.Repeat("\u0001", 50_000) // six bytes each in JSON
				return w.call("ann", "POST", "/user_feedback", object{
					"provider_id": provider, "task_id": provider, "context_id": context, "rating": 1, "message": text,
					"comment": large[:90_000],
				}).id()
			}},
		} {
			const items = 20
			var want []string
			for n := range items {
				want = append(want, test.add(n))
			}
			for _, order := range []string{"asc", "desc"} {
				var got []string
				pages, token := 0, ""
				for more := true; more; pages++ {
					path, query, _ := strings.Cut(test.list, "?")
					q, err := url.ParseQuery(query)
					if err != nil {
						t.Fatal(err)
					}
					q.Set("limit", "100")
					q.Set("order", order)
					if token != "" {
						q.Set("page_token", token)
					}
					page := w.call("ann", "GET", path+"?"+q.Encode(), nil)
					found := page.body["items"].([]any)
					if len(page.text) > pageLimit || len(found) == 0 {
						t.Fatalf("%s: a page of %d items and %d bytes", test.list, len(found), len(page.text))
					}
					for _, item := range found {
						got = append(got, fmt.Sprint(item.(map[string]any)["id"]))
					}
					more = page.body["has_more"].(bool)
					token, _ = page.body["next_page_token"].(string)
				}
				if order == "desc" {
					slices.Reverse(got)
				}
				got = slices.DeleteFunc(got, func(id string) bool { return id == provider })
				if !slices.Equal(got, want) {
					t.Errorf("%s in %d pages, %s: %d items, want %d:\n%v\n%v", test.list, pages, order,
						len(got), len(want), got, want)
				}
				if pages < items/4 {
					t.Errorf("%s: %d pages", test.list, pages)
				}
			}
		}
	})
}

// The documents of a vector store are paged, and the results of a search are limited to
// one page of the nearest.
func TestPagesOfVectorStores(t *testing.T) {
	testtool.InAll(t)
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		id := w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
		item := func(document, text string) object {
			return object{
				"document_id": document, "document_type": "external", "model_id": "m",
				"text": text, "embedding": []int{1},
			}
		}
		var items []any
		var want []string
		for n := range 4000 {
			document := fmt.Sprintf("%0256d", n)
			items, want = append(items, item(document, "x"), item(document, "yz")), append(want, document)
			if len(items) == 500 {
				w.call("ann", "PUT", "/vector_stores/"+id, items)
				items = nil
			}
		}
		var got []string
		pages := 0
		for query, more := "", true; more; pages++ {
			page := w.call("ann", "GET", "/vector_stores/"+id+"/documents"+query, nil)
			if len(page.text) > pageLimit || page.body["total_count"] != 4000.0 {
				t.Fatalf("a page of %d bytes, total %v", len(page.text), page.body["total_count"])
			}
			for _, d := range page.body["items"].([]any) {
				got = append(got, d.(object)["id"].(string))
				if size := d.(object)["usage_bytes"]; size != 11.0 {
					t.Fatalf("a document of %v bytes, want 11", size)
				}
			}
			more = page.body["has_more"].(bool)
			query = fmt.Sprintf("?page_token=%v", page.body["next_page_token"])
		}
		if !slices.Equal(got, want) || pages < 2 {
			t.Errorf("%d documents in %d pages", len(got), pages)
		}
		w.wants(w.try("ann", "GET", "/vector_stores/"+id+"/documents?page_token=gone", nil), 422,
			"the document no longer exists")

		id = w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
		large := strings.Repeat("x", 250_000)
		w.call("ann", "PUT", "/vector_stores/"+id,
			[]any{item("a", large), item("b", large), item("c", large), item("d", large), item("e", large)})
		found := w.call("ann", "POST", "/vector_stores/"+id+"/search", object{"query_vector": []int{1}, "limit": 10})
		if n := len(found.body["items"].([]any)); len(found.text) > pageLimit || n != 4 ||
			found.body["has_more"] != true {
			t.Errorf("a search found %d items in %d bytes, more: %v", n, len(found.text), found.body["has_more"])
		}
	})
}

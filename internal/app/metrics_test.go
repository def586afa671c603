package app_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/testdb"
)

// The metrics of a relay whose table had no trigger for a time are those of the
// documentation.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	sqlExec(t, url, "CREATE TABLE public.orders (id int PRIMARY KEY)")
	w, receiver := newRelay(t, map[string]any{
		"database_url": url,
		"sources":      object{"tables": object{"public.orders": object{"type": "order"}}},
	})
	if got := w.request("", "GET", "/metrics", nil, nil).text; strings.Contains(got, "tidings_table_last_gap") {
		t.Error("a table without a gap has one")
	}
	sqlExec(t, url, "INSERT INTO public.orders VALUES (1)")
	receiver.Wait(1)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	sqlExec(t, url, "DROP TRIGGER _tidings_1 ON public.orders")
	w.start()
	w.wants(w.request("reader", "GET", "/api/v1/webhooks/endpoints/receiver", nil, nil), 200,
		`"sources":[{"table":"public.orders","type":"order","state":"attached","last_gap":{"since":"`, `"reason":"trigger"`)
	w.until("reader", "GET", "/webhooks/attempts", nil, func(a answer) bool { // what was made up for is delivered
		return strings.Contains(a.text, "order.updated")
	})
	metrics := w.request("", "GET", "/metrics", nil, nil).text
	if !strings.Contains(metrics, `tidings_table_last_gap_timestamp_seconds{table="public.orders"} 1.`) {
		t.Error("the gap is missing")
	}
	served := map[string]bool{ // until there is one
		"tidings_webhook_merged_total": true, "tidings_webhook_missed_total": true,
		"tidings_webhook_filtered_total": true, "tidings_endpoint_retention_left_seconds": true,
	}
	for _, found := range regexp.MustCompile(`(?m)^# TYPE (tidings_\w+) `).FindAllStringSubmatch(metrics, -1) {
		served[found[1]] = true
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Monitoring")
	section, _, _ = strings.Cut(section, "## Alerts")
	documented := make(map[string]bool)
	for row := range strings.Lines(section) {
		if !strings.HasPrefix(row, "| `") {
			continue
		}
		for _, found := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			name := found[1]
			if name[0] == '_' {
				name = "tidings_endpoint" + name
			}
			documented[name] = true
		}
	}
	if diff := gocmp.Diff(slices.Sorted(maps.Keys(served)), slices.Sorted(maps.Keys(documented))); diff != "" {
		t.Errorf("metrics (-), documentation (+):\n%s", diff)
	}
}

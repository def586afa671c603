package operator_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
)

func series(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// The metrics are the server's, and an endpoint's series are removed with it.
func TestCollector(t *testing.T) {
	both(t, func(w *world) {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(operator.Collector(w.hooks))
		w.run()
		w.tell(order("1", "bob"), invoice("1"))
		w.settled(2, "warehouse", "books", "tenant")
		discard := operator.DiscardParked{All: true, Comment: "obsolete"}
		discard.Endpoint = "books"
		if _, err := w.service.DiscardParked(w.Context(), discard); err != nil {
			w.Fatal(err)
		}
		got := series(w.T, registry)
		for _, want := range []string{
			`tidings_webhook_attempts_total{endpoint="warehouse",event="order.created",reason="",verdict="delivered"} 1`,
			`tidings_webhook_attempts_total{endpoint="books",event="invoice.paid",reason="http_400",verdict="refused"} 1`,
			`tidings_webhook_delay_seconds_count{endpoint="tenant"} 1`,
			`tidings_webhook_attempt_seconds_count{endpoint="warehouse"} 2`,
			`tidings_parked_removed_total{reason="discarded"} 1`,
			`tidings_history_dropped_total 0`, `tidings_in_flight 0`, `tidings_in_flight_limit 512`,
			`tidings_in_flight_waiting 0`,
			`tidings_log_head 2`, `tidings_log_oldest 1`, `tidings_outbox_depth 0`, `tidings_replicas 1`,
			`tidings_leases_held 4`, `tidings_leases_free 0`, `tidings_replays_running 0`,
			`tidings_endpoint_cursor{endpoint="warehouse"} 2`, `tidings_endpoint_lag_events{endpoint="warehouse"} 0`,
			`tidings_endpoint_dead_letters{endpoint="books"} 0`, `tidings_endpoint_state{endpoint="tenant",state="healthy"} 1`,
		} {
			if !strings.Contains(got, want+"\n") {
				w.Errorf("no %s", want)
			}
		}
		if w.Failed() {
			w.Log(got)
		}
		if err := w.hooks.SetEndpoints(w.Context(), tidings.Endpoint{Name: "tenant", URL: "http://127.0.0.1:1"}); err != nil {
			w.Fatal(err)
		}
		if got := series(w.T, registry); strings.Contains(got, `"warehouse"`) || !strings.Contains(got, `"tenant"`) {
			w.Errorf("after its endpoint was removed:\n%s", got)
		}
	})
}

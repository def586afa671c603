package operator_test

import (
	"testing"
	"time"

	"github.com/tidings-dev/tidings/operator"
)

// The plan of a replay counts what it would send, whether the database counts it or, for
// an endpoint with a filter, the events are looked at.
func TestPlanCounts(t *testing.T) {
	both(t, func(w *world) {
		type replay = operator.NewReplay
		type counted struct{ toSend, leftOut, first, last int64 }
		w.sick() // two orders and an invoice
		for name, tt := range map[string]struct {
			in   replay
			want counted
		}{
			"all":        {replay{Endpoint: "warehouse", All: true}, counted{3, 0, 1, 3}},
			"wanted":     {replay{Endpoint: "down", All: true}, counted{1, 2, 3, 3}},
			"filter":     {replay{Endpoint: "tenant", All: true}, counted{1, 2, 1, 1}},
			"delivered":  {replay{Endpoint: "warehouse", Missed: true}, counted{0, 3, 0, 0}},
			"dead":       {replay{Endpoint: "books", Missed: true}, counted{1, 2, 3, 3}},
			"types":      {replay{Endpoint: "warehouse", Events: []string{"order.*"}}, counted{2, 1, 1, 2}},
			"a resource": {replay{Endpoint: "warehouse", Resource: "order/2"}, counted{1, 2, 2, 2}},
		} {
			plan, err := w.service.PlanReplay(w.Context(), tt.in)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got := counted{plan.ToSend, plan.LeftOut, plan.First, plan.Last}
			if got != tt.want || !plan.Exact {
				t.Errorf("%s: %+v, want %+v", name, *plan, tt.want)
			}
		}
		// Dead letters are counted by the database, and looked at if a time is given.
		w.tell(invoice("8"), order("3", "bob"))
		w.waitFor("a second dead letter", func() bool {
			e, err := w.service.Endpoint(w.Context(), "books")
			return err == nil && e.Dead == 2
		})
		long := time.Now().Add(-24 * time.Hour)
		for name, tt := range map[string]struct {
			in   replay
			want counted
		}{
			"all dead":     {replay{Dead: true}, counted{2, 0, 3, 4}},
			"since":        {replay{Dead: true, Since: &long}, counted{2, 0, 3, 4}},
			"one":          {replay{Event: "invoice-8"}, counted{1, 0, 4, 4}},
			"dead orders":  {replay{Dead: true, Events: []string{"order.*"}}, counted{0, 2, 0, 0}},
			"its resource": {replay{Dead: true, Resource: "invoice/7"}, counted{1, 1, 3, 3}},
		} {
			tt.in.Endpoint = "books"
			plan, err := w.service.PlanReplay(w.Context(), tt.in)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if got := (counted{plan.ToSend, plan.LeftOut, plan.First, plan.Last}); got != tt.want || !plan.Exact {
				t.Errorf("%s: %+v, want %+v", name, *plan, tt.want)
			}
		}
	})
}

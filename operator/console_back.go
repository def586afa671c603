package operator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/relay"
)

const (
	// backShown is how long an overview says that an endpoint is back, and backsShown of
	// how many it does.
	backShown  = time.Minute
	backsShown = 5
)

// back is an endpoint that was a problem until a moment ago.
type back struct{ Name, Text string }

// backs returns the endpoints that are back.
func (u *ui) backs(ctx context.Context, endpoints []*Endpoint) (list []back, err error) {
	for _, e := range endpoints {
		since, err := time.Parse(time.RFC3339, e.Since)
		well := e.State == string(relay.Healthy) || e.State == string(relay.Ramping)
		if err != nil || !well || e.Parked+e.Dead > 0 || // it refuses some events, and is listed as a problem
			time.Since(since) > backShown || len(list) == backsShown {
			continue
		}
		states, err := u.States(ctx, e.Name, Hour)
		if err != nil {
			return nil, err
		}
		if took := trouble(states.Items); took > 0 {
			text := "after " + console.Duration(took) + "."
			if took < time.Second {
				text = "after a moment."
			}
			if e.LagEvents > 0 {
				text += fmt.Sprintf(" %s %s on the way.", console.Number(e.LagEvents),
					plural(e.LagEvents, "event is", "events are"))
			}
			list = append(list, back{e.Name, text})
		}
	}
	return list, nil
}

// trouble returns how long an endpoint was in bad states until it got well a moment ago;
// 0 if it was not.
func trouble(states []State) (took time.Duration) {
	var end time.Time
	for _, s := range slices.Backward(states) {
		well := s.State == string(relay.Healthy) || s.State == string(relay.Ramping)
		from, err := time.Parse(time.RFC3339, s.From)
		switch {
		case err != nil, well && !end.IsZero():
			return took
		case well && time.Since(from) > backShown: // for longer
			return 0
		case well:
			continue
		}
		if end.IsZero() {
			if end, err = time.Parse(time.RFC3339, s.To); err != nil {
				return 0
			}
		}
		took = end.Sub(from)
	}
	return took
}

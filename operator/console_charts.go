package operator

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/relay"
)

var allRanges = []string{string(Hour), string(Day), string(Week)}

func rangeOf(text string) Range {
	if slices.Contains(allRanges, text) {
		return Range(text)
	}
	return Day
}

func (r Range) text() string {
	return map[Range]string{Hour: "hour", Day: "24 hours", Week: "7 days"}[r]
}

// marks are the labels below a chart.
func (r Range) marks() []string {
	switch r {
	case Hour:
		return []string{"1 h ago", "45 min", "30 min", "15 min", "now"}
	case Week:
		return []string{"7 d ago", "5 d", "3 d", "now"}
	}
	return []string{"24 h ago", "18 h", "12 h", "6 h", "now"}
}

// values returns one value of each point of a series.
func (s *Series) values(of func(Point) float64) []float64 {
	values := make([]float64, len(s.Items))
	for i, p := range s.Items {
		values[i] = of(p)
	}
	return values
}

// throughput is the chart of what was delivered and what failed.
func throughput(s *Series, over Range) console.Chart {
	var delivered, failed int64
	for _, p := range s.Items {
		delivered, failed = delivered+p.Delivered, failed+p.Failed
	}
	step := float64(max(s.Step, 1))
	sum := fmt.Sprintf("%s delivered, %s %s failed", console.Number(delivered), console.Number(failed),
		plural(failed, "attempt", "attempts"))
	return console.Chart{
		Title: "Delivered per second", Sum: sum, Label: "Over " + over.text() + ": " + sum, Marks: over.marks(),
		Area:  s.values(func(p Point) float64 { return float64(p.Delivered) / step }),
		Fails: s.values(func(p Point) float64 { return float64(p.Failed) }),
		Keys:  []console.Key{{Class: "k4", Text: "delivered"}, {Class: "kf", Text: "failed attempts"}},
	}
}

// times is a chart of two quantiles, given in microseconds.
func times(title string, s *Series, over Range, p50, p99 func(Point) int64) console.Chart {
	unit, scale := "ms", 1e3
	var last Point
	for _, p := range s.Items {
		if p99(p) >= 10_000_000 {
			unit, scale = "s", 1e6
		}
		if p99(p) > 0 {
			last = p
		}
	}
	in := func(of func(Point) int64) []float64 {
		return s.values(func(p Point) float64 {
			if of(p) == 0 {
				return math.NaN() // nothing was sent
			}
			return float64(of(p)) / scale
		})
	}
	sum := "nothing was sent"
	if p99(last) > 0 {
		sum = fmt.Sprintf("latest: p50 %s, p99 %s", console.Micros(p50(last)), console.Micros(p99(last)))
	}
	return console.Chart{
		Title: title, Sum: sum, Label: title + " over " + over.text() + ": " + sum, Unit: unit, Marks: over.marks(),
		Line: in(p99), Dashed: in(p50),
		Keys: []console.Key{{Class: "line k4", Text: "p99"}, {Class: "line k2", Text: "p50"}},
	}
}

func allCharts(s *Series, over Range) []console.Chart {
	return []console.Chart{
		throughput(s, over),
		times("From change to delivery", s, over, func(p Point) int64 { return p.DelayP50 },
			func(p Point) int64 { return p.DelayP99 }),
	}
}

func endpointCharts(s *Series, over Range) []console.Chart {
	waiting := console.Chart{
		Title: "Waiting", Marks: over.marks(), Area: s.values(func(p Point) float64 { return float64(p.Waiting) }),
		Keys: []console.Key{{Class: "k4", Text: "events behind the cursor or parked"}},
	}
	most := int64(0)
	for _, p := range s.Items {
		most = max(most, p.Waiting)
	}
	waiting.Sum = console.Number(most) + " at most"
	waiting.Label = "Waiting events over " + over.text() + ": " + waiting.Sum
	return []console.Chart{
		throughput(s, over), waiting,
		times("Answer time", s, over, func(p Point) int64 { return p.P50 }, func(p Point) int64 { return p.P99 }),
	}
}

// sparks sets the small charts of rows, with one query.
func (u *ui) sparks(ctx context.Context, rows []row) error {
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = r.Name
	}
	all, err := u.SeriesOf(ctx, Hour, names...)
	if err != nil {
		return err
	}
	for i, s := range all {
		rows[i].Spark = &console.Sparks{
			Delivered: s.values(func(p Point) float64 { return float64(p.Delivered) }),
			Failed:    s.values(func(p Point) float64 { return float64(p.Failed) }),
		}
	}
	return nil
}

// actionsShown is how many actions a page lists.
const actionsShown = 20

// endpointPast sets what an endpoint's page says about the past: charts, states, and what
// operators did.
func (u *ui) endpointPast(a *asked, v *endpointPage) error {
	ctx, name := a.Context(), v.E.Name
	over := rangeOf(a.URL.Query().Get("range"))
	v.Range = ranges{string(over), a.page.URL("endpoints", name), over.text(), "ch", allRanges}
	series, err := u.Series(ctx, name, over)
	if err != nil {
		return err
	}
	v.Charts = endpointCharts(series, over)
	states, err := u.States(ctx, name, over)
	if err != nil {
		return err
	}
	v.States = statesOf(a.page, states.Items, over)
	actions, err := u.Actions(ctx, name, 0, actionsShown)
	if err != nil {
		return err
	}
	v.Actions = actions.Items
	return nil
}

// statesShown is how many changes of state a page lists.
const statesShown = 50

// statesOf draws the states of an endpoint; nil if none are known.
func statesOf(p *console.Page, states []State, over Range) *statesView {
	if len(states) == 0 {
		return nil
	}
	length, _ := over.span()
	begin := p.Now.Add(-length)
	v := &statesView{Marks: over.marks()}
	var segments []console.Segment
	bad := 0
	for _, s := range slices.Backward(states) {
		from, _ := time.Parse(time.RFC3339Nano, s.From)
		to := p.Now
		lasted := ", so far"
		if s.To != "" {
			to, _ = time.Parse(time.RFC3339Nano, s.To)
			lasted = ""
		}
		word := s.State
		switch {
		case word == string(relay.Disabled) && s.Reason == relay.PausedReason:
			word = "paused"
		case word == string(relay.Disabled):
			word = "gone"
		}
		if word != string(relay.Healthy) {
			bad++
		}
		lasted = console.Duration(to.Sub(from)) + lasted
		why := s.Detail
		if s.By != "" {
			if why = s.By; s.Comment != "" {
				why += ": “" + s.Comment + "”"
			}
		}
		segments = append(segments, console.Segment{State: word, From: from, To: to, Text: word + ", " + lasted})
		if len(v.Rows) < statesShown {
			reason := s.Reason
			if word == "paused" {
				reason = ""
			}
			v.Rows = append(v.Rows, stateRow{word, lasted, reason, why, s.From})
		}
	}
	slices.Reverse(segments)
	label := fmt.Sprintf("States over %s: %d other than healthy; now %s", over.text(), bad,
		segments[len(segments)-1].State)
	v.SVG = console.States(label, begin, p.Now, segments)
	return v
}

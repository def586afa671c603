package console

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
	"time"
)

// Chart is a figure with one to three lines.
type Chart struct {
	Title, Sum string
	// Label says in words what the chart shows.
	Label string
	// Area is filled, Line and Dashed are not.
	Area, Line, Dashed []float64
	// Fails are bars at the bottom, on a scale of their own.
	Fails []float64
	// Unit follows the greatest label of the axis.
	Unit string
	// Marks are the labels below.
	Marks []string
	// Keys explain the colours: a class of the key, and a text.
	Keys []Key
}

// Key explains a colour of a chart.
type Key struct{ Class, Text string }

const chartWidth, chartHeight = 600.0, 104.0

// Top returns the greatest label of the axis: a round number above all values.
func (c Chart) Top() float64 {
	greatest := 0.0
	for _, values := range [][]float64{c.Area, c.Line, c.Dashed} {
		for _, v := range values {
			if v > greatest { // unlike max, this leaves out gaps
				greatest = v
			}
		}
	}
	if greatest == 0 {
		return 1
	}
	size := math.Pow(10, math.Floor(math.Log10(greatest)))
	for _, step := range []float64{1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10} {
		if step*size >= greatest {
			return step * size
		}
	}
	return 10 * size
}

// Axis returns the three labels of the axis, the greatest first.
func (c Chart) Axis() []string {
	top := c.Top()
	unit := c.Unit
	if unit != "" {
		unit = " " + unit
	}
	return []string{figure(top) + unit, figure(top / 2), "0"}
}

func figure(v float64) string {
	switch {
	case v >= 10_000_000:
		return fmt.Sprintf("%.0f M", v/1e6)
	case v >= 10_000:
		return fmt.Sprintf("%.0f k", v/1e3)
	case v >= 10 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// line returns a path through values; gaps (NaN) interrupt it.
func line(values []float64, top, width, height float64) string {
	var b strings.Builder
	step := width / max(float64(len(values)-1), 1)
	move := true
	for i, v := range values {
		if math.IsNaN(v) {
			move = true
			continue
		}
		verb := "L"
		if move {
			verb = "M"
		}
		y := height - min(v/top, 1)*height
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, float64(i)*step, y)
		if move && (i == len(values)-1 || math.IsNaN(values[i+1])) { // alone between gaps
			fmt.Fprintf(&b, "h%.1f", step*0.7)
		}
		move = false
	}
	return b.String()
}

// SVG draws the chart.
func (c Chart) SVG() template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" preserveAspectRatio="none" role="img" aria-label="%s">`,
		chartWidth, chartHeight, html.EscapeString(c.Label))
	for _, y := range []float64{0, chartHeight / 2, chartHeight} {
		fmt.Fprintf(&b, `<path class="grid" d="M0 %.0fH%.0f"/>`, y, chartWidth)
	}
	top := c.Top()
	if len(c.Area) > 0 {
		d := line(c.Area, top, chartWidth, chartHeight)
		fmt.Fprintf(&b, `<path class="area" d="%sL%.0f %.0fL0 %.0fZ"/><path class="stroke" d="%s"/>`, d, chartWidth,
			chartHeight, chartHeight, d)
	}
	if len(c.Line) > 0 {
		fmt.Fprintf(&b, `<path class="stroke" d="%s"/>`, line(c.Line, top, chartWidth, chartHeight))
	}
	if len(c.Dashed) > 0 {
		fmt.Fprintf(&b, `<path class="stroke-2" d="%s"/>`, line(c.Dashed, top, chartWidth, chartHeight))
	}
	fails(&b, c.Fails, chartWidth, chartHeight, 0.25)
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers, and an escaped label
}

// fails draws bars from the bottom, the greatest of which has a share of the height.
func fails(b *strings.Builder, values []float64, width, height, share float64) {
	greatest := 0.0
	for _, v := range values {
		greatest = max(greatest, v)
	}
	step := width / max(float64(len(values)), 1)
	for i, v := range values {
		if v > 0 {
			h := max(v/greatest*height*share, 1.5)
			fmt.Fprintf(b, `<rect class="fail" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, float64(i)*step, height-h,
				step*0.7, h)
		}
	}
}

// Sparks are the values of a small chart: what was delivered and what failed, in each
// minute.
type Sparks struct{ Delivered, Failed []float64 }

// Spark draws a small chart; nil is drawn as a dash.
func Spark(s *Sparks) template.HTML {
	if s == nil || len(s.Delivered) == 0 {
		return `<span class="zero">–</span>`
	}
	const width, height = 112, 28
	greatest, sum := 0.0, 0.0
	for _, v := range s.Delivered {
		greatest, sum = max(greatest, v), sum+v
	}
	label := "nothing in the last hour"
	if sum > 0 {
		label = fmt.Sprintf("%s delivered in the last hour", Number(int64(sum)))
	}
	for _, v := range s.Failed {
		if v > 0 {
			label += ", with failures"
			break
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="spark" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="%s">`+
		`<path d="%sL%d %dL0 %dZ"/>`, width, height, label, small(s.Delivered, greatest*1.1, width, height), width, height,
		height)
	worst := 0.0
	for _, v := range s.Failed {
		worst = max(worst, v)
	}
	if worst > 0 {
		b.WriteString(`<path class="fails" d="`)
		for i, v := range s.Failed {
			if v > 0 {
				fmt.Fprintf(&b, "M%d %dV%d", i*width/len(s.Failed)+1, height-max(int(v/worst*height/3), 2), height)
			}
		}
		b.WriteString(`"/>`)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers
}

// small returns a path through values in whole units, without the points inside flat
// stretches: a page has many such charts.
func small(values []float64, top float64, width, height int) string {
	at := func(i int) int { return height - int(min(values[i]/max(top, 1e-9), 1)*float64(height)) }
	last := len(values) - 1
	var b strings.Builder
	for i := range values {
		if i > 0 && i < last && at(i) == at(i-1) && at(i) == at(i+1) {
			continue
		}
		fmt.Fprintf(&b, "%c%d %d", "ML"[min(i, 1)], i*width/max(last, 1), at(i))
	}
	return b.String()
}

// Timing are the steps of an attempt in microseconds; FirstByte counts from the
// beginning.
type Timing struct {
	DNS, Connect, TLS, FirstByte, Total int64
	Failed                              bool
}

// SVG draws the steps on a logarithmic axis from 0.1 ms to 15 s. The step that failed is
// red.
func (t Timing) SVG() template.HTML {
	if t.Total == 0 && t.FirstByte == 0 {
		return `<span class="zero">–</span>`
	}
	total := max(t.Total, t.FirstByte)
	steps := []struct {
		class, name string
		us          int64
	}{
		{"dns", "DNS", t.DNS},
		{"con", "connect", t.Connect},
		{"tls", "TLS", t.TLS},
		{"fb", "answer", total - t.DNS - t.Connect - t.TLS},
	}
	last := -1
	for i, s := range steps {
		// Without a response, the rest after a step is the time until the attempt was given up.
		if s.us > 0 && (t.FirstByte > 0 || i < 3 || last < 0) {
			last = i
		}
	}
	var bars strings.Builder
	var said []string
	x, spent := 0.0, int64(0)
	for i, s := range steps {
		if s.us <= 0 || i > last {
			continue
		}
		spent += s.us
		to := place(spent)
		class, name := s.class, s.name
		if t.Failed && i == last {
			class, name = "bad", "failed"
			if i < 3 {
				name = s.name + " failed"
			}
		}
		fmt.Fprintf(&bars, `<rect class="%s" x="%.1f" width="%.1f" height="12"/>`, class, x, max(to-x, 1))
		said = append(said, name+" "+Micros(s.us))
		x = to
	}
	label := strings.Join(said, ", ")
	return template.HTML(fmt.Sprintf( //nolint:gosec // numbers and fixed words
		`<svg class="timing" viewBox="0 0 144 12" preserveAspectRatio="none" role="img" aria-label="%s"><title>%s</title>`+
			`<rect class="rail" width="144" height="12"/>%s</svg>`, label, label, bars.String()))
}

// place returns the position of a time on the axis of [Timing].
func place(us int64) float64 {
	const least, decades, width = 100.0, 5.176, 144.0 // from 0.1 ms to 15 s
	return min(max(math.Log10(max(float64(us), 1)/least), 0)/decades, 1) * width
}

// Segment is a stretch of time in one state.
type Segment struct {
	State    string
	From, To time.Time
	Text     string
}

// heights show how bad a state is, so that colour is not the only sign.
var heights = map[string]float64{
	"healthy": 4, "paused": 14, "waiting": 14, "throttled": 20, "ramping": 20, "probing": 28, "down": 36, "gone": 36,
}

// States draws the states of an endpoint between two times.
func States(label string, from, to time.Time, segments []Segment) template.HTML {
	const width, height = 1000.0, 36.0
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 1000 36" preserveAspectRatio="none" role="img" aria-label="%s">`,
		html.EscapeString(label))
	span := max(to.Sub(from).Seconds(), 1)
	for _, s := range segments {
		h, ok := heights[s.State]
		if !ok {
			continue
		}
		begin := max(s.From.Sub(from).Seconds()/span, 0) * width
		end := min(s.To.Sub(from).Seconds()/span, 1) * width
		if end <= 0 || begin >= width {
			continue
		}
		class := s.State
		if class == "gone" {
			class = "down"
		}
		fmt.Fprintf(&b, `<rect class="seg-%s" x="%.1f" y="%.0f" width="%.1f" height="%.0f"><title>%s</title></rect>`,
			class, begin, height-h, max(end-begin-0.8, 1), h, html.EscapeString(s.Text))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // numbers and escaped texts
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// results are the figures of all rounds, in Go's benchmark format for benchstat, and
// charts and tables of them.
type results struct {
	lines strings.Builder
	files map[string]string // their text by name
}

// add adds the figures of a measurement's rounds by their units, such as "events/s".
func (r *results) add(d database, name string, units []string, rounds ...[]float64) {
	name = strings.NewReplacer(" ", "-", ",", "").Replace(name)
	for i := range rounds[0] {
		fmt.Fprintf(&r.lines, "Benchmark%s/%s 1", name, d.name)
		for j, unit := range units {
			fmt.Fprintf(&r.lines, " %.4g %s", rounds[j][i], unit)
		}
		r.lines.WriteString("\n")
	}
}

// bar is a row of a chart, stacked from its parts.
type bar struct {
	name  string
	parts []float64
}

const (
	chartWidth, labelWidth, rowHeight = 760, 290, 26
	valueWidth                        = 60
)

// chart draws bars as SVG.
func (r *results) chart(file, title string, legend []string, bars []bar) {
	most := 0.0
	for _, b := range bars {
		most = max(most, sum(b.parts))
	}
	colors := []string{"#2f6f9f", "#c8892b"}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+
		"\n<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		chartWidth, rowHeight*(len(bars)+2)+8, title)
	fmt.Fprintf(&s, `<text x="8" y="18" font-weight="bold">%s</text>`+"\n", title)
	for i, b := range bars {
		y, x := rowHeight*(i+1)+8, float64(labelWidth)
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+14, b.name)
		for j, part := range b.parts {
			width := part / most * (chartWidth - labelWidth - valueWidth)
			fmt.Fprintf(&s, `<rect x="%.1f" y="%d" width="%.1f" height="18" fill="%s"/>`, x, y, width, colors[j])
			x += width
		}
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%.0f</text>`+"\n", x+6, y+14, sum(b.parts))
	}
	for j, text := range legend {
		x, y := labelWidth+j*200, rowHeight*(len(bars)+1)+8
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			x, y+4, colors[j], x+18, y+14, text)
	}
	s.WriteString("</svg>\n")
	r.files[file] = s.String()
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// write writes the figures and charts into a folder.
func (r *results) write(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "figures.txt"), []byte(r.lines.String()), 0o644); err != nil {
		return err
	}
	for name, text := range r.files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

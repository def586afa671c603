package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// count formats a number of things.
func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// column is a column of a table. To fit a narrow terminal, a table drops columns of rank
// 2 and above, highest rank first; then shortens columns down to min characters; then
// drops columns of rank 1.
type column struct {
	name  string
	rank  int                 // 0: never dropped
	min   int                 // 0: never shortened
	blank bool                // dropped on a terminal if every cell is empty or 0
	paint func(string) string // colors a cell; may be nil
}

// table prints rows: aligned under a header on a terminal; as tab-separated values in a
// pipe, with every column in full.
type table struct {
	out     io.Writer
	screen  screen
	columns []column
	widths  []int // of the columns shown; nil until the first rows are printed
	shown   []int
}

func newTable(out io.Writer, columns ...column) *table {
	return &table{out: out, screen: screenOf(out), columns: columns}
}

// print prints rows; it may be called again with more.
func (t *table) print(rows [][]string) error {
	if t.screen.width == 0 {
		for _, row := range rows {
			if _, err := fmt.Fprintln(t.out, strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	var text strings.Builder
	if len(rows) > 0 && t.widths == nil {
		t.fit(rows)
		header := make([]string, len(t.columns))
		for i, c := range t.columns {
			header[i] = strings.ToUpper(c.name)
		}
		t.line(&text, header, false)
	}
	for _, row := range rows {
		t.line(&text, row, true)
	}
	_, err := io.WriteString(t.out, text.String())
	return err
}

const gap = 2 // between columns

// fit decides which columns are shown, and how wide they are.
func (t *table) fit(rows [][]string) {
	natural := make([]int, len(t.columns))
	for i, c := range t.columns {
		empty := true
		natural[i] = utf8.RuneCountInString(c.name)
		for _, row := range rows {
			natural[i] = max(natural[i], utf8.RuneCountInString(row[i]))
			empty = empty && (row[i] == "" || row[i] == "0" || row[i] == "0.0")
		}
		if !c.blank || !empty {
			t.shown = append(t.shown, i)
		}
	}
	for {
		t.widths = nil
		total := -gap
		for _, i := range t.shown {
			t.widths = append(t.widths, natural[i])
			total += natural[i] + gap
		}
		least := slices.MaxFunc(t.shown, func(a, b int) int { return t.columns[a].rank - t.columns[b].rank })
		rank, excess := t.columns[least].rank, total-t.screen.width
		if excess <= 0 || rank <= 1 && (t.shorten(excess) <= 0 || rank == 0) {
			return
		}
		t.shown = slices.DeleteFunc(t.shown, func(i int) bool { return i == least })
	}
}

// shorten repeatedly takes a character from the widest column that can be shortened, and
// returns the excess that remains.
func (t *table) shorten(excess int) int {
	for ; excess > 0; excess-- {
		widest := -1
		for k, i := range t.shown {
			least := max(t.columns[i].min, utf8.RuneCountInString(t.columns[i].name))
			if t.columns[i].min > 0 && t.widths[k] > least && (widest < 0 || t.widths[k] > t.widths[widest]) {
				widest = k
			}
		}
		if widest < 0 {
			break
		}
		t.widths[widest]--
	}
	return excess
}

func (t *table) line(text *strings.Builder, row []string, painted bool) {
	for k, i := range t.shown {
		cell := shortened(row[i], t.widths[k])
		padding := t.widths[k] - utf8.RuneCountInString(cell) + gap
		if painted && t.screen.color && t.columns[i].paint != nil {
			cell = t.columns[i].paint(cell)
		}
		text.WriteString(cell)
		if k < len(t.shown)-1 {
			text.WriteString(strings.Repeat(" ", max(padding, 1)))
		}
	}
	text.WriteByte('\n')
}

// shortened replaces the middle of a text that is too long with an ellipsis.
func shortened(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width || width < 1 {
		return text
	}
	tail := (width - 1) / 3
	return string(runes[:width-1-tail]) + "…" + string(runes[len(runes)-tail:])
}

// printFields prints one name and value per line and skips empty values. On a terminal,
// it wraps long values.
func printFields(out io.Writer, fields [][2]string) error {
	width := 0
	for _, f := range fields {
		width = max(width, len(f[0]))
	}
	s := screenOf(out)
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		value := wrapped(f[1], s.width-width-gap, width+gap)
		if s.color && f[0] == "state" || s.color && f[0] == "outcome" {
			value = paintState(value)
		}
		if _, err := fmt.Fprintf(out, "%-*s  %s\n", width, f[0], value); err != nil {
			return err
		}
	}
	return nil
}

const narrowest = 20

// wrapped breaks a text into lines of at most width characters and indents all but the
// first.
func wrapped(text string, width, indent int) string {
	if width < narrowest || utf8.RuneCountInString(text) <= width {
		return text
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n"+strings.Repeat(" ", indent))
}

// screen is the terminal that a command prints to.
type screen struct {
	width int // 0: not a terminal
	color bool
}

// frame buffers the next output of a terminal.
type frame struct {
	bytes.Buffer
	screen screen
}

func screenOf(out io.Writer) screen {
	if f, ok := out.(*frame); ok {
		return f.screen
	}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return screen{}
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return screen{width: width, color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func isTerminal(out io.Writer) bool { return screenOf(out).width > 0 }

// states are the colors of states and outcomes; others have none.
var states = map[string]string{
	"healthy": green, "delivered": green, "done": green, "merged": green,
	"ramping": yellow, "throttled": yellow, "probing": yellow, "waiting": yellow, "parked": yellow, "behind": yellow,
	"down": red, "disabled": red, "refusing": red, "dead": red, "expired": red, "gone": red,
	"unauthorized": red, "rejected": red, "refused": red, "failed": red, "unreachable": red, "blocked": red,
}

const (
	red, green, yellow = "\x1b[31m", "\x1b[32m", "\x1b[33m"
	plain              = "\x1b[0m"
)

func paintState(text string) string {
	word, _, _ := strings.Cut(text, " ")
	if color, ok := states[strings.ToLower(word)]; ok {
		return color + text + plain
	}
	return text
}

const barWidth = 30

// bar draws a progress bar over the previous one.
func bar(out io.Writer, progress float64, text string) {
	full := int(max(min(progress, 1), 0) * barWidth)
	fmt.Fprintf(out, "\r[%s%s] %3.0f%% %s ", strings.Repeat("#", full),
		strings.Repeat(".", barWidth-full), progress*100, text)
}

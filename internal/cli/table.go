package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tidings-dev/tidings"
)

// printTable prints rows: with a header and aligned on a terminal, as
// tab-separated values in a pipe.
func printTable(out io.Writer, header []string, rows [][]string) error {
	if !isTerminal(out) {
		for _, row := range rows {
			if _, err := fmt.Fprintln(out, strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(header, "\t")))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// printFields prints a name and a value a line, those that are there.
func printFields(out io.Writer, fields [][2]string) error {
	width := 0
	for _, f := range fields {
		width = max(width, len(f[0]))
	}
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(out, "%-*s  %s\n", width, f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

// pointInTime reads a time: RFC 3339, or how long ago, such as "2h".
func pointInTime(flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-ago).UTC().Format(tidings.TimeLayout), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", &usageError{fmt.Errorf(`--%s: expected a time such as 2026-03-26T12:00:00Z, or how long ago, `+
			`such as 2h`, flag)}
	}
	return at.UTC().Format(tidings.TimeLayout), nil
}

const barWidth = 30

// bar draws how far something has come, over what it drew before.
func bar(out io.Writer, progress float64, text string) {
	full := int(max(min(progress, 1), 0) * barWidth)
	fmt.Fprintf(out, "\r[%s%s] %3.0f %% %s ", strings.Repeat("#", full),
		strings.Repeat(".", barWidth-full), progress*100, text)
}

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is an error in the settings.
type Problem struct {
	// Source is the file, environment variable or flag.
	Source string
	// Line and Column are the position in a file, starting at 1; otherwise 0.
	Line, Column int
	// Key is the setting, such as "webhook.endpoints[0].url"; it may be empty.
	Key string
	// Message says what is wrong and what to do.
	Message string

	claim string   // what only one endpoint may have; see [claim]
	rival *Problem // the same, as the problem of the other endpoint that has it
}

// String returns the problem as one line.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	for _, text := range []string{p.Key, p.Message} {
		if text != "" && b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(text)
	}
	return b.String()
}

// Problems is an error that lists all problems, sorted by source and position.
type Problems []Problem

// Error lists the problems, one per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Warnings returns what is valid but unwise about the settings.
func (c *Config) Warnings() Problems { return c.warnings }

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the settings.
type Problem struct {
	// Source is the file, the environment variable or the flag.
	Source string
	// Line and Column are where it stands in a file, from 1; 0 elsewhere.
	Line, Column int
	// Key is the setting, such as "webhook.endpoints[0].url"; may be empty.
	Key string
	// Message says what is wrong and what to do.
	Message string
}

// String is the problem in one line.
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

// Problems is an error that holds everything that is wrong, in the order of the
// file.
type Problems []Problem

// Error lists the problems, one a line.
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

// Warnings are what is poor about the settings, and works all the same.
func (c *Config) Warnings() Problems { return c.warnings }

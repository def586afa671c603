package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/operator"
)

func problemsCommand() *cobra.Command {
	return operatorCommand(asReader, "problems", "List what needs an operator, most urgent first", "tidings problems",
		exactly(0), func(ctx context.Context, c *client, _ []string) error {
			var page operator.Page[operator.Problem]
			if printed, err := c.call(ctx, http.MethodGet, "/webhooks/problems", nil, nil, &page); printed || err != nil {
				return err
			}
			if page.Items == nil {
				return c.foreign("the response is not a list")
			}
			if len(page.Items) == 0 {
				fmt.Fprintln(c.errOut, "no problems")
				return nil
			}
			rows := make([][]string, len(page.Items))
			for i, p := range page.Items {
				count := ""
				if p.Count > 0 {
					count = strconv.FormatInt(p.Count, 10)
				}
				rows[i] = []string{p.Kind, p.Endpoint, p.Reason, count, c.cell(p.Since), c.cell(p.LostAt), p.Detail}
			}
			return newTable(c.out, []column{
				{name: "problem"},
				{name: "endpoint", min: 10},
				{name: "reason", rank: 1, min: 8},
				{name: "events", rank: 1},
				{name: "since", rank: 2},
				{name: "lost", rank: 2},
				{name: "detail", rank: 3, min: 12},
			}...).print(rows)
		})
}

func statusCommand() *cobra.Command {
	return operatorCommand(asReader, "status", "Show the state of the database, replicas, log and configuration",
		"tidings status", exactly(0), func(ctx context.Context, c *client, _ []string) error {
			var s operator.Status
			if printed, err := c.call(ctx, http.MethodGet, "/webhooks/status", nil, nil, &s); printed || err != nil {
				return err
			}
			if s.Database.Kind == "" {
				return c.foreign("the response is not a status")
			}
			c.printStatus(&s)
			return nil
		})
}

// printDiff prints what the last reload changed, or would have changed.
func (c *client) printDiff(try *operator.ConfigTry, line func(name, format string, args ...any)) {
	name := "changed"
	if len(try.Errors) > 0 {
		name = "not changed"
	}
	for _, d := range try.Diff {
		what := strings.Join(slices.DeleteFunc([]string{d.Endpoint, d.Key}, func(s string) bool { return s == "" }), ": ")
		switch {
		case d.Key == "":
			line(name, "%s: %s", what, d.Change)
		case d.Problem != "":
			line(name, "%s: %s", what, d.Problem)
		default:
			line(name, "%s: %s, before %s", what, cmp.Or(d.After, "default"), cmp.Or(d.Before, "default"))
		}
	}
	if try.LeftOut > 0 {
		line(name, "and %d more", try.LeftOut)
	}
}

func (c *client) printStatus(s *operator.Status) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(c.out, "%-14s%s\n", name, fmt.Sprintf(format, args...))
	}
	role := "primary"
	if !s.Database.Primary {
		role = "standby"
	}
	line("database", "%s %s, %s, %.1f ms, %d MiB", s.Database.Kind, s.Database.Version, role, s.Database.Latency*1000,
		s.Database.Size>>20)
	line("log", "positions %d to %d, %d events without a position yet", s.Log.Oldest, s.Log.Head, s.Log.Outbox)
	if s.Log.HeadAt != "" {
		line("newest event", "%s", c.exact(s.Log.HeadAt))
		line("oldest event", "%s", c.exact(s.Log.OldestAt))
	}
	line("retention", "%s", time.Duration(s.Log.Retention*float64(time.Second)))
	for _, r := range s.Replicas {
		text := fmt.Sprintf("%s, leases: %d", r.Name, r.Leases)
		if r.Version != "" {
			text += ", version " + r.Version
		}
		line("replica", "%s", text)
	}
	for _, source := range s.Sources {
		text := strings.TrimSuffix(source.Table+" is "+source.State+": "+source.Detail, ": ")
		text += "; columns watched: " + source.Columns()
		if n := source.PerHour; n != nil {
			text += fmt.Sprintf("; events in the last hour: %d", *n)
		}
		line("table", "%s", text)
	}
	config := s.Config
	if config == nil {
		return
	}
	line("configuration", "%s, active since %s", strings.Join(config.Files, ", "), c.exact(config.Since))
	for _, problem := range config.Broken {
		line("broken file", "%s", problem)
	}
	if config.LastTry == nil {
		return
	}
	for _, e := range config.LastTry.Errors {
		line("rejected", "%s", e)
	}
	c.printDiff(config.LastTry, line)
	for _, key := range config.LastTry.NeedsRestart {
		line("restart", "%s changed, but takes effect only after a restart", key)
	}
}

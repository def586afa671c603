package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/operator"
)

// parkedFlags select parked events.
type parkedFlags struct {
	endpoint, reason, resource, event string
	types                             []string
	dead                              bool
}

func (p *parkedFlags) add(f *pflag.FlagSet) {
	f.StringVar(&p.endpoint, "endpoint", "", "`NAME` of the endpoint")
	f.BoolVar(&p.dead, "dead", false, "dead letters only")
	f.StringVar(&p.reason, "reason", "", "only events whose last attempt failed for this `REASON`, such as http_422")
	f.StringSliceVar(&p.types, "types", nil, "event `PATTERNS`, such as provider.*,*.deleted")
	f.StringVar(&p.resource, "resource", "", "resource `ID` or TYPE/ID")
	f.StringVar(&p.event, "event", "", "`EVENT` by webhook-id or position")
}

func (p *parkedFlags) query() url.Values {
	q := url.Values{"dead": {strconv.FormatBool(p.dead)}}
	for name, value := range map[string]string{
		"endpoint": p.endpoint, "reason": p.reason, "types": strings.Join(p.types, ","),
		"resource": p.resource, "event": p.event,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

func (p *parkedFlags) selection() operator.ParkedSelection {
	return operator.ParkedSelection{
		Endpoint: p.endpoint, Dead: p.dead, Reason: p.reason, Types: p.types, Resource: p.resource, Event: p.event,
	}
}

func parkedCommand() *cobra.Command {
	l := listing{path: "/webhooks/parked", cursor: "after", noun: "parked events"}
	var flags parkedFlags
	var groups bool
	cmd := operatorCommand(asReader, "parked", "List parked events and dead letters",
		"tidings parked --endpoint crm\ntidings parked --dead\ntidings parked --groups", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			parked := l
			parked.query = flags.query()
			if flags.dead {
				parked.noun = "dead letters"
			}
			if groups {
				parked.path, parked.cursor = "/webhooks/parked/groups", ""
				return listGroups(ctx, c, parked)
			}
			return listParked(ctx, c, parked)
		})
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&groups, "groups", false, "count them by endpoint, reason and response")
	l.flags(cmd)
	cmd.AddCommand(retryCommand(), discardCommand(), changesCommand())
	return cmd
}

func listParked(ctx context.Context, c *client, l listing) error {
	return list(ctx, c, l, []column{
		{name: "endpoint", min: 10},
		{name: "position"},
		{name: "event", min: 12, rank: 2},
		{name: "resource", min: 12, rank: 3},
		{name: "attempts", rank: 4},
		{name: "reason", rank: 1, min: 8},
		{name: "next", min: 12},
		{name: "response", rank: 5, min: 12},
	}, func(p *operator.Parked) []string {
		next := c.cell(p.Next)
		switch {
		case p.Dead != "":
			next = "dead since " + c.cell(p.Dead)
		case p.Behind != 0:
			next = fmt.Sprintf("waits for %d", p.Behind)
		case next == "":
			next = "waits for an earlier one"
		}
		return []string{
			p.Endpoint, strconv.FormatInt(p.Sequence, 10), p.Event.Event, p.ResourceID,
			strconv.Itoa(p.Attempts), p.Reason, next, cmp.Or(p.Response, p.Detail),
		}
	})
}

func listGroups(ctx context.Context, c *client, l listing) error {
	return list(ctx, c, l, []column{
		{name: "endpoint", min: 10},
		{name: "reason", min: 8},
		{name: "count"},
		{name: "dead", rank: 1},
		{name: "next", rank: 2, min: 8},
		{name: "response", rank: 3, min: 12},
	}, func(g *operator.ParkedGroup) []string {
		reason := g.Reason
		if reason == "" {
			reason = "waits for earlier ones"
		}
		return []string{
			g.Endpoint, reason, strconv.FormatInt(g.Count, 10), strconv.FormatInt(g.Dead, 10), c.cell(g.NextAt), g.Response,
		}
	})
}

func retryCommand() *cobra.Command {
	var flags parkedFlags
	var dryRun, yes, detach bool
	cmd := operatorCommand(asOperator, "retry",
		"Retry parked events and dead letters of an endpoint now",
		"tidings parked retry --endpoint crm\ntidings parked retry --endpoint crm --types 'order.*' --reason http_422",
		exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			in := operator.RetryParked{ParkedSelection: flags.selection()}
			in.DryRun = dryRun
			return changeParked(ctx, c, "retry", "Retry", "%d retried", yes, detach, &in, &in.ParkedSelection)
		})
	flags.add(cmd.Flags())
	actFlags(cmd, &dryRun, &yes, &detach)
	return cmd
}

func discardCommand() *cobra.Command {
	var flags parkedFlags
	var dryRun, yes, detach bool
	var in operator.DiscardParked
	cmd := operatorCommand(asOperator, "discard", "Discard parked events and dead letters of an endpoint",
		"tidings parked discard --endpoint crm --event 4711 --comment 'sent by hand'", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			if in.Comment == "" && !dryRun {
				return &usageError{errors.New("give the reason with --comment; the history keeps it")}
			}
			in.ParkedSelection = flags.selection()
			in.DryRun = dryRun
			return changeParked(ctx, c, "discard", "Discard", "%d discarded", yes, detach, &in, &in.ParkedSelection)
		})
	flags.add(cmd.Flags())
	cmd.Flags().StringVar(&in.Comment, "comment", "", "the reason, kept in the history")
	cmd.Flags().BoolVar(&in.All, "all", false, "all parked events and dead letters of the endpoint")
	actFlags(cmd, &dryRun, &yes, &detach)
	return cmd
}

// actFlags adds the flags of commands that change many events of an endpoint.
func actFlags(cmd *cobra.Command, dryRun, yes, detach *bool) {
	_ = cmd.MarkFlagRequired("endpoint") // the flag exists
	cmd.Flags().BoolVar(detach, "detach", false, "do not wait until more than 1000 events are done; --json never waits")
	askFlags(cmd, dryRun, yes)
}

func askFlags(cmd *cobra.Command, dryRun, yes *bool) {
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "only print the number of events")
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask for confirmation")
}

// changeParked retries or discards parked events. On a terminal it first shows their
// number and asks for confirmation.
func changeParked(
	ctx context.Context, c *client, verb, title, done string, yes, detach bool, in any, s *operator.ParkedSelection,
) error {
	path := "/webhooks/parked/" + verb
	if !s.DryRun && !yes && interactive() {
		s.DryRun = true
		var would operator.ParkedDone
		if err := c.post(ctx, path, in, &would); err != nil {
			return err
		}
		s.DryRun, s.Count = false, would.Count
		if would.Count == 0 {
			return printDone(c, done, &would)
		}
		question := fmt.Sprintf("%s %s of endpoint %s?", title, count(would.Count, "event"), s.Endpoint)
		if err := confirm(c.errOut, question); err != nil {
			return err
		}
	}
	var out operator.ParkedDone
	if printed, err := c.call(ctx, http.MethodPost, path, nil, in, &out); printed || err != nil {
		return err
	}
	if out.Change != nil {
		if detach {
			return printChange(c, out.Change)
		}
		change, err := followChange(ctx, c, out.Change)
		if err != nil {
			return err
		}
		out.Count = change.Done
	}
	return printDone(c, done, &out)
}

func printDone(c *client, done string, out *operator.ParkedDone) error {
	text := fmt.Sprintf(done, out.Count)
	if out.DryRun {
		text = count(out.Count, "event")
	}
	if _, err := fmt.Fprintln(c.out, text); err != nil {
		return err
	}
	if out.WaitsBecause != "" && out.Count > 0 {
		fmt.Fprintf(c.errOut, "waiting: %s\n", out.WaitsBecause)
	}
	return nil
}

// post sends a request without printing the response.
func (c *client) post(ctx context.Context, path string, body, into any) error {
	text, err := c.request(ctx, http.MethodPost, path, nil, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// interactive reports whether standard input and standard error are a terminal.
func interactive() bool { return isTerminal(os.Stdin) && isTerminal(os.Stderr) }

var errDeclined = errors.New("canceled")

// confirm asks a question on the terminal and returns an error unless the answer is yes.
func confirm(out io.Writer, question string) error {
	fmt.Fprintf(out, "%s [y/N] ", question)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && line == "" {
		return errDeclined
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}

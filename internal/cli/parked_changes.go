package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/operator"
)

func changesCommand() *cobra.Command {
	l := listing{path: "/webhooks/parked/changes", noun: "retries and discards of many events"}
	cmd := operatorCommand(asReader, "changes", "List retries and discards of more than 1000 events, newest first",
		"tidings parked changes --limit 5", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			return list(ctx, c, l, []column{
				{name: "change", min: 12},
				{name: "action", rank: 1},
				{name: "endpoint", min: 10},
				{name: "state", paint: paintState},
				{name: "done"},
				{name: "start", rank: 2},
				{name: "by", rank: 3},
			}, func(p *operator.ParkedChange) []string {
				return []string{
					p.ID, p.Action, p.Endpoint, p.State, fmt.Sprintf("%d of %d", p.Done, p.Total), c.cell(p.Created), p.CreatedBy,
				}
			})
		})
	l.flags(cmd)
	cmd.AddCommand(
		operatorCommand(asReader, "show ID", "Show the progress of a retry or discard of many events",
			"tidings parked changes show 6c2f7bb0-3f0a-4a55-9d55-0d1f5f7f7c11", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return callChange(ctx, c, http.MethodGet, url.PathEscape(args[0]))
			}),
		operatorCommand(asOperator, "cancel ID", "Cancel a retry or discard of many events; what was done stays done",
			"tidings parked changes cancel 6c2f7bb0-3f0a-4a55-9d55-0d1f5f7f7c11", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return callChange(ctx, c, http.MethodPost, url.PathEscape(args[0])+"/cancel")
			}),
	)
	return cmd
}

func callChange(ctx context.Context, c *client, method, path string) error {
	var p operator.ParkedChange
	if printed, err := c.call(ctx, method, "/webhooks/parked/changes/"+path, nil, nil, &p); printed || err != nil {
		return err
	}
	return printChange(c, &p)
}

func printChange(c *client, p *operator.ParkedChange) error {
	return printFields(c.out, [][2]string{
		{"change", p.ID},
		{"action", p.Action},
		{"endpoint", p.Endpoint},
		{"reason", p.Reason},
		{"events", strings.Join(p.Types, ",")},
		{"resource", p.Resource},
		{"state", p.State},
		{"done", fmt.Sprintf("%d of %d", p.Done, p.Total)},
		{"comment", p.Comment},
		{"started", c.exact(p.Created)},
		{"by", p.CreatedBy},
	})
}

// followChange follows a retry or discard of many events until it ends.
func followChange(ctx context.Context, c *client, p *operator.ParkedChange) (*operator.ParkedChange, error) {
	for p.State == "running" {
		if isTerminal(c.errOut) {
			bar(c.errOut, float64(p.Done)/float64(max(p.Total, 1)), fmt.Sprintf("%d of %d", p.Done, p.Total))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped watching; the %s continues ('tidings parked changes cancel %s' cancels it)",
				p.Action, p.ID)
		case <-time.After(replayPoll):
		}
		if _, err := c.call(ctx, http.MethodGet, "/webhooks/parked/changes/"+url.PathEscape(p.ID), nil, nil, p); err != nil {
			return nil, err
		}
	}
	if isTerminal(c.errOut) {
		bar(c.errOut, 1, "")
		fmt.Fprintln(c.errOut)
	}
	if p.State != "done" {
		return nil, fmt.Errorf("the %s was canceled after %d of %d events", p.Action, p.Done, p.Total)
	}
	return p, nil
}

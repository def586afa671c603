package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/operator"
)

func redeliverCommand() *cobra.Command {
	var endpoint string
	var detach bool
	cmd := operatorCommand(asOperator, "redeliver EVENT",
		"Send one event to an endpoint again; EVENT is a webhook-id or position",
		"tidings redeliver 4711 --endpoint crm", exactly(1),
		func(ctx context.Context, c *client, args []string) error {
			return replay(ctx, c, operator.NewReplay{Endpoint: endpoint, Event: args[0]}, detach)
		})
	replayFlags(cmd, &endpoint, &detach)
	return cmd
}

func replayFlags(cmd *cobra.Command, endpoint *string, detach *bool) {
	cmd.Flags().StringVar(endpoint, "endpoint", "", "`NAME` of the endpoint")
	_ = cmd.MarkFlagRequired("endpoint") // the flag exists
	cmd.Flags().BoolVar(detach, "detach", false, "do not wait for completion")
}

func replayCommand() *cobra.Command {
	var in operator.NewReplay
	var since, until string
	var detach, dryRun, yes bool
	cmd := operatorCommand(asOperator, "replay",
		"Send events to an endpoint again: a time range, a selection, or its dead letters",
		"tidings replay --endpoint crm --since 6h\ntidings replay --endpoint crm --since 6h --missed --dry-run\n"+
			"tidings replay --endpoint crm --dead", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			for flag, target := range map[string]struct {
				text string
				at   **time.Time
			}{"since": {since, &in.Since}, "until": {until, &in.Until}} {
				text, err := pointInTime(flag, target.text)
				if err != nil {
					return err
				}
				if at, err := time.Parse(time.RFC3339, text); err == nil {
					*target.at = &at
				}
			}
			if !in.All && !in.Dead && !in.Missed && in.Events == nil && in.Resource+since+until == "" {
				return &usageError{errors.New("say what to send: --since, --until, --types, --resource, --missed, --dead, " +
					"or --all for every event in the log")}
			}
			if dryRun {
				return showPlan(ctx, c, in)
			}
			if !yes && interactive() {
				if err := confirmReplay(ctx, c, in); err != nil {
					return err
				}
			}
			return replay(ctx, c, in, detach)
		})
	replayFlags(cmd, &in.Endpoint, &detach)
	askFlags(cmd, &dryRun, &yes)
	f := cmd.Flags()
	f.BoolVar(&in.Missed, "missed", false, "only events that were never delivered")
	f.BoolVar(&in.All, "all", false, "every event in the log that the endpoint matches")
	f.BoolVar(&in.Dead, "dead", false, "dead letters of the endpoint instead of events in the log")
	f.StringSliceVar(&in.Events, "types", nil, "event `PATTERNS`, such as provider.*,*.deleted")
	f.StringVar(&in.Resource, "resource", "", "`TYPE/ID` of a resource")
	f.StringVar(&since, "since", "", "start `TIME`, inclusive (RFC 3339, or an age such as 2h or 2d)")
	f.StringVar(&until, "until", "", "end `TIME`, exclusive")
	cmd.MarkFlagsMutuallyExclusive("dead", "missed")
	for _, other := range []string{"dead", "missed", "types", "resource", "since", "until"} {
		cmd.MarkFlagsMutuallyExclusive("all", other)
	}
	return cmd
}

// confirmReplay shows the number of events and asks for confirmation.
func confirmReplay(ctx context.Context, c *client, in operator.NewReplay) error {
	var plan operator.ReplayPlan
	if err := c.post(ctx, "/webhooks/replays/plan", in, &plan); err != nil {
		return err
	}
	if plan.ToSend == 0 && plan.Exact {
		return nil // the server rejects the replay with the reason
	}
	return confirm(c.errOut, fmt.Sprintf("Send %s to endpoint %s?", planned(&plan), plan.Endpoint))
}

func planned(plan *operator.ReplayPlan) string {
	text := count(plan.ToSend, "event")
	if !plan.Exact {
		return "at least " + text
	}
	return text
}

func showPlan(ctx context.Context, c *client, in operator.NewReplay) error {
	var plan operator.ReplayPlan
	if printed, err := c.call(ctx, http.MethodPost, "/webhooks/replays/plan", nil, in, &plan); printed || err != nil {
		return err
	}
	fields := [][2]string{
		{"endpoint", plan.Endpoint},
		{"to send", planned(&plan)},
		{"left out", count(plan.LeftOut, "event")},
	}
	if plan.ToSend > 0 {
		fields = append(fields, [2]string{"positions", fmt.Sprintf("%d to %d", plan.First, plan.Last)})
	}
	if plan.Seconds > 0 {
		fields = append(fields, [2]string{"takes about", seconds(plan.Seconds)})
	}
	return printFields(c.out, append(fields, [2]string{"waits", plan.WaitsBecause}))
}

const replayPoll = 200 * time.Millisecond

// replay starts a replay and follows it until it ends.
func replay(ctx context.Context, c *client, in operator.NewReplay, detach bool) error {
	quiet := *c
	quiet.json = false
	var r operator.Replay
	if _, err := quiet.call(ctx, http.MethodPost, "/webhooks/replays", nil, in, &r); err != nil {
		return err
	}
	if r.WaitsBecause != "" {
		fmt.Fprintf(c.errOut, "the replay is waiting: %s\n", r.WaitsBecause)
	}
	for !detach && r.State == "running" {
		if isTerminal(c.errOut) {
			bar(c.errOut, r.Progress, fmt.Sprintf("%d delivered, %d failed", r.Delivered, r.Failed))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopped watching; replay %s continues ('tidings replays cancel %s' cancels it)", r.ID, r.ID)
		case <-time.After(replayPoll):
		}
		if _, err := quiet.call(ctx, http.MethodGet, "/webhooks/replays/"+r.ID, nil, nil, &r); err != nil {
			return err
		}
	}
	if isTerminal(c.errOut) && !detach {
		bar(c.errOut, r.Progress, "")
		fmt.Fprintln(c.errOut)
	}
	if err := showReplay(ctx, c, r.ID); err != nil {
		return err
	}
	if r.Failed > 0 {
		return errors.New("some events were not delivered; see 'tidings attempts --outcome failures'")
	}
	if r.Expired > 0 {
		return fmt.Errorf("%s in the range expired before being sent", count(r.Expired, "event"))
	}
	return nil
}

func showReplay(ctx context.Context, c *client, id string) error {
	var r operator.Replay
	if printed, err := c.call(ctx, http.MethodGet, "/webhooks/replays/"+url.PathEscape(id), nil, nil, &r); printed ||
		err != nil {
		return err
	}
	return printReplay(c, &r)
}

func printReplay(c *client, r *operator.Replay) error {
	fields := [][2]string{
		{"replay", r.ID},
		{"endpoint", r.Endpoint},
		{"state", r.State},
		{"progress", fmt.Sprintf("%.0f%%, at position %d of %d to %d", r.Progress*100, r.Position, r.From, r.To)},
		{"attempts", strconv.FormatInt(r.Attempts, 10)},
		{"delivered", strconv.FormatInt(r.Delivered, 10)},
		{"failed", strconv.FormatInt(r.Failed, 10)},
		{"reason", r.Reason},
		{"waits", r.WaitsBecause},
		{"started", c.exact(r.Created)},
	}
	if r.Expired > 0 {
		fields = append(fields, [2]string{"expired", fmt.Sprintf("%d positions, before they could be sent", r.Expired)})
	}
	if r.Skipped > 0 {
		fields = append(fields, [2]string{"skipped", fmt.Sprintf("%d that the endpoint gets anyway", r.Skipped)})
	}
	return printFields(c.out, fields)
}

func replaysCommand() *cobra.Command {
	l := listing{path: "/webhooks/replays", noun: "replays"}
	cmd := operatorCommand(asReader, "replays", "List replays, newest first", "tidings replays --limit 5", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			return list(ctx, c, l, []column{
				{name: "replay", min: 12},
				{name: "endpoint", min: 10},
				{name: "state", paint: paintState},
				{name: "progress", rank: 3},
				{name: "attempts", rank: 4},
				{name: "delivered", rank: 1},
				{name: "failed", rank: 1},
				{name: "start", rank: 2},
			}, func(r *operator.Replay) []string {
				return []string{
					r.ID, r.Endpoint, r.State, fmt.Sprintf("%.0f%%", r.Progress*100),
					strconv.FormatInt(r.Attempts, 10),
					strconv.FormatInt(r.Delivered, 10), strconv.FormatInt(r.Failed, 10), c.cell(r.Created),
				}
			})
		})
	l.flags(cmd)
	cmd.AddCommand(
		operatorCommand(asReader, "show ID", "Show the progress of a replay",
			"tidings replays show 6c2f7bb0-3f0a-4a55-9d55-0d1f5f7f7c11", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return showReplay(ctx, c, args[0])
			}),
		operatorCommand(asOperator, "cancel ID", "Cancel a replay",
			"tidings replays cancel 6c2f7bb0-3f0a-4a55-9d55-0d1f5f7f7c11", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				var r operator.Replay
				path := "/webhooks/replays/" + url.PathEscape(args[0]) + "/cancel"
				if printed, err := c.call(ctx, http.MethodPost, path, nil, nil, &r); printed || err != nil {
					return err
				}
				return printReplay(c, &r)
			}),
	)
	return cmd
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/operator"
)

func endpointsCommand() *cobra.Command {
	cmd := operatorCommand(asReader, "endpoints", "How the endpoints of a running server are doing", exactly(0),
		listEndpoints)
	cmd.AddCommand(
		operatorCommand(asReader, "show NAME", "How an endpoint is doing, in full", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return showEndpoint(ctx, c, http.MethodGet, endpointPath(args[0]))
			}),
		operatorCommand(asOperator, "test [NAME]",
			"Send a webhook.ping to one endpoint, or to each, and see what comes of it", atMost(1),
			func(ctx context.Context, c *client, args []string) error {
				if len(args) == 0 {
					return testEndpoints(ctx, c)
				}
				return testEndpoint(ctx, c, args[0])
			}),
	)
	cmd.AddCommand(discardCommand())
	for verb, short := range map[string]string{
		"pause":  "Stop deliveries; events wait in the log",
		"resume": "End a pause",
		"enable": "Deliver again to an endpoint that answered 410",
	} {
		cmd.AddCommand(operatorCommand(asOperator, verb+" NAME", short, exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return showEndpoint(ctx, c, http.MethodPost, endpointPath(args[0])+"/"+verb)
			}))
	}
	return cmd
}

func discardCommand() *cobra.Command {
	var all bool
	cmd := operatorCommand(asOperator, "discard NAME [EVENT]", "Remove a dead letter, or all of them with --all",
		between(1, 2),
		func(ctx context.Context, c *client, args []string) error {
			in := operator.NewDiscard{All: all}
			if len(args) == 2 {
				in.Event = args[1]
			}
			if in.All == (in.Event != "") {
				return errors.New("name the webhook-id or position of an event, or give --all")
			}
			var done operator.Discarded
			if printed, err := c.call(ctx, http.MethodPost, endpointPath(args[0])+"/discard",
				nil, in, &done); printed ||
				err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.out, "%d dead letters discarded\n", done.Discarded)
			return err
		})
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters of the endpoint")
	return cmd
}

func endpointPath(name string) string { return "/webhooks/endpoints/" + url.PathEscape(name) }

func listEndpoints(ctx context.Context, c *client, _ []string) error {
	var page operator.Page[*operator.Endpoint]
	if printed, err := c.call(ctx, http.MethodGet, "/webhooks/endpoints", nil, nil, &page); printed || err != nil {
		return err
	}
	rows := make([][]string, len(page.Items))
	for i, e := range page.Items {
		rows[i] = []string{
			e.Name, e.State, e.Reason, strconv.FormatInt(e.LagEvents, 10), seconds(e.LagSeconds),
			strconv.FormatInt(e.InFlight, 10),
			fmt.Sprintf("%.1f", e.Delivered), strconv.FormatInt(e.Parked, 10), strconv.FormatInt(e.Dead, 10),
			strconv.FormatInt(e.Missed, 10), strconv.FormatInt(e.Lost, 10),
		}
	}
	return printTable(c.out, []string{
		"endpoint", "state", "reason", "lag", "lag time", "in flight", "per second",
		"parked", "dead", "missed", "lost",
	}, rows)
}

func showEndpoint(ctx context.Context, c *client, method, path string) error {
	var e operator.Endpoint
	if printed, err := c.call(ctx, method, path, nil, nil, &e); printed || err != nil {
		return err
	}
	fields := [][2]string{
		{"endpoint", e.Name},
		{"url", e.URL},
		{"events", strings.Join(e.Events, ", ")},
		{"state", e.State},
		{"reason", e.Reason},
		{"since", e.Since},
		{"until", e.Until},
		{"cursor", strconv.FormatInt(e.Cursor, 10)},
		{"lag", fmt.Sprintf("%d events, %s", e.LagEvents, seconds(e.LagSeconds))},
		{"in flight", fmt.Sprintf("%d of %d", e.InFlight, e.Limit)},
		{"per second", fmt.Sprintf("%.1f delivered, %.1f failed", e.Delivered, e.Failed)},
		{"parked", strconv.FormatInt(e.Parked, 10)},
		{"dead letters", strconv.FormatInt(e.Dead, 10)},
	}
	if e.Rate > 0 {
		fields = append(fields,
			[2]string{"pace", fmt.Sprintf("%.1f requests a second; it refused some at %.1f", e.Rate, e.Ceiling)})
	}
	if e.Expires != "" {
		fields = append(fields, [2]string{"expires", "the oldest event that it has not got, at " + e.Expires})
	}
	if e.Missed > 0 {
		fields = append(fields, [2]string{"missed", fmt.Sprintf("at most %d events expired before it got them", e.Missed)})
	}
	if e.Lost > 0 {
		fields = append(fields,
			[2]string{"lost", fmt.Sprintf("%d events that the database lost; it may have got some before", e.Lost)})
	}
	if last := e.LastError; last != nil {
		fields = append(fields,
			[2]string{
				"last error",
				strings.TrimSpace(fmt.Sprintf("%s %s of %s at %s", last.Reason, last.Detail, last.Event,
					last.At.Format("2006-01-02T15:04:05Z07:00"))),
			})
	}
	for _, p := range e.Partitions {
		holder := p.Replica
		if holder == "" {
			holder = "nobody"
		}
		fields = append(fields,
			[2]string{fmt.Sprintf("partition %d", p.Index), fmt.Sprintf("%s at %d, held by %s (generation %d)", p.State,
				p.Cursor, holder, p.Generation)})
	}
	return printFields(c.out, fields)
}

// testEndpoints tests all that are configured.
func testEndpoints(ctx context.Context, c *client) error {
	var page operator.Page[*operator.Endpoint]
	text, err := c.request(ctx, http.MethodGet, "/webhooks/endpoints", nil, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &page); err != nil {
		return err
	}
	var failures []error
	for _, e := range page.Items {
		if e.Configured {
			failures = append(failures, testEndpoint(ctx, c, e.Name))
		}
	}
	if len(failures) == 0 {
		fmt.Fprintln(c.errOut, "no endpoint is configured")
	}
	return errors.Join(failures...)
}

func testEndpoint(ctx context.Context, c *client, name string) error {
	var t operator.Tried
	printed, err := c.call(ctx, http.MethodPost, endpointPath(name)+"/test", nil, nil, &t)
	if printed || err != nil {
		return err
	}
	status := ""
	if t.Status != 0 {
		status = strconv.Itoa(t.Status)
	}
	if err := printFields(c.out, [][2]string{
		{"endpoint", name},
		{"outcome", t.Outcome},
		{"reason", t.Reason},
		{"detail", t.Detail},
		{"status", status},
		{"took", seconds(t.Seconds)},
		{"address", t.Address},
		{"webhook-id", t.WebhookID},
		{"response", t.Response},
	}); err != nil {
		return err
	}
	if t.Outcome != "delivered" {
		return fmt.Errorf("endpoint %s did not take the webhook", name)
	}
	return nil
}

func reloadCommand() *cobra.Command {
	return operatorCommand(asAdmin, "reload", "Have a running server read its configuration again", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			var done struct{ Reloaded bool }
			if printed, err := c.call(ctx, http.MethodPost, "/webhooks/reload", nil, nil, &done); printed ||
				err != nil {
				return err
			}
			fmt.Fprintln(c.out, "reloaded")
			return nil
		})
}

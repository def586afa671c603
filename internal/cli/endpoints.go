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
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
)

func endpointsCommand() *cobra.Command {
	var check bool
	var watch time.Duration
	cmd := operatorCommand(asReader, "endpoints [NAME]",
		"Show the state of all endpoints, or one in detail",
		"tidings endpoints\ntidings endpoints crm\ntidings endpoints --watch\ntidings endpoints --check || echo unhealthy",
		atMost(1), func(ctx context.Context, c *client, args []string) error {
			show := func(c *client) error {
				if len(args) == 1 {
					return showEndpoint(ctx, c, http.MethodGet, endpointPath(args[0]))
				}
				return listEndpoints(ctx, c)
			}
			if watch > 0 {
				return c.watch(ctx, watch, show)
			}
			err := show(c)
			if err == nil && check {
				err = checkEndpoints(ctx, c, args)
			}
			return err
		})
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 if any endpoint is unhealthy, and name it")
	positiveDuration(cmd.Flags(), &watch, "watch", 0, "refresh at this interval until Ctrl-C")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	cmd.MarkFlagsMutuallyExclusive("check", "watch")
	cmd.AddCommand(
		operatorCommand(asReader, "show NAME",
			"Show one endpoint in detail", "tidings endpoints show crm", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return showEndpoint(ctx, c, http.MethodGet, endpointPath(args[0]))
			}),
		operatorCommand(asOperator, "test [NAME]",
			"Send a webhook.ping to one endpoint, or to all, and show the result",
			"tidings endpoints test crm\ntidings endpoints test",
			atMost(1), func(ctx context.Context, c *client, args []string) error {
				if len(args) == 0 {
					return testEndpoints(ctx, c)
				}
				return testEndpoint(ctx, c, args[0])
			}),
	)
	cmd.AddCommand(pauseCommand())
	for verb, short := range map[string]string{
		"resume": "Resume deliveries to a paused endpoint",
		"enable": "Resume deliveries to an endpoint that returned 410",
	} {
		cmd.AddCommand(operatorCommand(asOperator, verb+" NAME", short, "tidings endpoints "+verb+" crm", exactly(1),
			func(ctx context.Context, c *client, args []string) error {
				return changeEndpoint(ctx, c, args[0], verb, nil)
			}))
	}
	return cmd
}

func pauseCommand() *cobra.Command {
	var comment string
	var length time.Duration
	cmd := operatorCommand(asOperator, "pause NAME", "Pause deliveries; events wait in the log",
		"tidings endpoints pause crm --comment 'moving to another host' --for 2h", exactly(1),
		func(ctx context.Context, c *client, args []string) error {
			in := operator.NewPause{Comment: comment}
			if length > 0 {
				end := time.Now().Add(length)
				in.Until = &end
			}
			return changeEndpoint(ctx, c, args[0], "pause", in)
		})
	cmd.Flags().StringVar(&comment, "comment", "", "the reason, shown to other operators")
	duration(cmd.Flags(), &length, "for", 0, "resume automatically after this time, such as 2h or 2d; 0 for never")
	return cmd
}

func endpointPath(name string) string { return "/webhooks/endpoints/" + url.PathEscape(name) }

func listEndpoints(ctx context.Context, c *client) error {
	var page operator.Page[*operator.Endpoint]
	if printed, err := c.call(ctx, http.MethodGet, "/webhooks/endpoints", nil, nil, &page); printed || err != nil {
		return err
	}
	warnOfTables(ctx, c)
	if page.Items == nil {
		return c.foreign("the response is not a list")
	}
	if len(page.Items) == 0 {
		fmt.Fprintln(c.errOut, "no endpoints are configured")
		return nil
	}
	rows := make([][]string, len(page.Items))
	for i, e := range page.Items {
		rows[i] = []string{
			e.Name, e.State, e.Reason, strconv.FormatInt(e.LagEvents, 10), c.lasted(e.LagSeconds),
			strconv.FormatInt(e.InFlight, 10),
			fmt.Sprintf("%.1f", e.Delivered), strconv.FormatInt(e.Parked, 10), strconv.FormatInt(e.Dead, 10),
			strconv.FormatInt(e.Missed, 10), strconv.FormatInt(e.Lost, 10), c.cell(e.Since), c.cell(e.Until),
		}
	}
	return newTable(c.out,
		column{name: "endpoint", min: 14},
		column{name: "state", paint: paintState},
		column{name: "reason", rank: 1, min: 10, blank: true},
		column{name: "lag"},
		column{name: "behind", rank: 2},
		column{name: "in flight", rank: 8},
		column{name: "per second", rank: 7},
		column{name: "parked", blank: true},
		column{name: "dead", blank: true},
		column{name: "missed", rank: 5, blank: true},
		column{name: "lost", rank: 6, blank: true},
		column{name: "since", rank: 3, blank: true},
		column{name: "next", rank: 4, blank: true},
	).print(rows)
}

// checkEndpoints returns an error if any endpoint, or the named one, is unhealthy.
func checkEndpoints(ctx context.Context, c *client, names []string) error {
	text, err := c.request(ctx, http.MethodGet, "/webhooks/endpoints", nil, nil)
	if err != nil {
		return err
	}
	var page operator.Page[*operator.Endpoint]
	if err := json.Unmarshal(text, &page); err != nil {
		return err
	}
	var found []string
	for _, e := range page.Items {
		if why := unhealthy(e); why != "" && (len(names) == 0 || names[0] == e.Name) {
			found = append(found, e.Name+" ("+why+")")
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("unhealthy: %s", strings.Join(found, ", "))
	}
	return nil
}

// unhealthy returns what is wrong with an endpoint, or "". An endpoint that gets no
// events is unhealthy even if it is paused.
func unhealthy(e *operator.Endpoint) string {
	switch {
	case !e.Configured:
		return ""
	case e.State == "down", e.State == "probing", e.State == "disabled", e.State == "waiting":
		return strings.TrimSuffix(e.State+": "+e.Reason, ": ")
	case e.Dead > 0:
		return fmt.Sprintf("dead letters: %d", e.Dead)
	case e.Expires != "":
		return "oldest undelivered event expires at " + e.Expires
	}
	return ""
}

// watch calls show at an interval. On a terminal, each output replaces the last.
func (c *client) watch(ctx context.Context, every time.Duration, show func(*client) error) error {
	if c.json && isTerminal(c.out) {
		return &usageError{errors.New("set either --watch or --json, not both")}
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	out := c.out
	for {
		text := &frame{screen: screenOf(out)}
		once := *c
		once.out, once.errOut = text, text
		err := show(&once)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // the server may be starting
			fmt.Fprintln(text, err)
		}
		if isTerminal(out) {
			fmt.Fprint(out, "\x1b[H\x1b[J") // clear the screen
			fmt.Fprintf(text, "\nevery %s, %s; Ctrl-C to stop\n", every, time.Now().Format(time.TimeOnly))
		}
		if _, err := out.Write(text.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func showEndpoint(ctx context.Context, c *client, method, path string) error {
	return showAnswer(ctx, c, method, path, nil)
}

// changeEndpoint changes an endpoint and shows the result.
func changeEndpoint(ctx context.Context, c *client, name, verb string, in any) error {
	return showAnswer(ctx, c, http.MethodPost, endpointPath(name)+"/"+verb, in)
}

func showAnswer(ctx context.Context, c *client, method, path string, in any) error {
	var e operator.Endpoint
	if printed, err := c.call(ctx, method, path, nil, in, &e); printed || err != nil {
		return err
	}
	fields := [][2]string{
		{"endpoint", e.Name},
		{"url", e.URL},
		{"events", strings.Join(e.Events, ", ")},
		{"state", e.State},
		{"reason", e.Reason},
		{"since", c.exact(e.Since)},
		{"down since", c.exact(e.DownSince)},
		{untilName(&e), c.exact(e.Until)},
		{"cursor", strconv.FormatInt(e.Cursor, 10)},
		{"lag", count(e.LagEvents, "event") + ", " + seconds(e.LagSeconds)},
		{"in flight", fmt.Sprintf("%d of %d", e.InFlight, e.Limit)},
		{"per second", fmt.Sprintf("%.1f delivered, %.1f failed", e.Delivered, e.Failed)},
		{"parked", strconv.FormatInt(e.Parked, 10)},
		{"dead letters", strconv.FormatInt(e.Dead, 10)},
	}
	if e.Rate > 0 {
		fields = append(fields,
			[2]string{"pace", fmt.Sprintf("%.1f requests per second; throttled at %.1f", e.Rate, e.Ceiling)})
	}
	if e.Expires != "" {
		fields = append(fields, [2]string{"expires", "oldest undelivered event, at " + c.exact(e.Expires)})
	}
	if e.Missed > 0 {
		fields = append(fields,
			[2]string{"missed", "at most " + count(e.Missed, "event") + " expired undelivered"})
	}
	if e.Lost > 0 {
		fields = append(fields,
			[2]string{"lost", count(e.Lost, "event") + " lost by the database; some may have been delivered before"})
	}
	if last := e.LastError; last != nil {
		reason := strings.TrimSuffix(last.Reason+": "+last.Detail, ": ")
		fields = append(fields,
			[2]string{"last error", fmt.Sprintf("%s, %s at %s", reason, last.Event, c.exact(stamp(last.At)))})
	}
	if by := e.Control; by != nil && by.By != "" {
		fields = append(fields, [2]string{"paused by", strings.TrimSuffix(by.By+": "+by.Comment, ": ")})
	}
	if last := e.LastAnswer; last != nil {
		fields = append(fields, [2]string{"last response", fmt.Sprintf("%d %s", last.Status, last.Response)})
	}
	if oldest := e.OldestUndelivered; oldest != nil {
		fields = append(fields,
			[2]string{"oldest undelivered", fmt.Sprintf("position %d at %s", oldest.Position, c.exact(oldest.At))})
	}
	if e.LostAt != "" {
		fields = append(fields, [2]string{"lost at", c.exact(e.LostAt)})
	}
	for _, p := range e.Partitions {
		holder := p.Replica
		if holder == "" {
			holder = "no replica"
		}
		fields = append(fields,
			[2]string{fmt.Sprintf("partition %d", p.Index), fmt.Sprintf("%s at %d, held by %s (generation %d)", p.State,
				p.Cursor, holder, p.Generation)})
	}
	for _, s := range e.Sources {
		text := strings.TrimSuffix(s.State+": "+s.Detail, ": ")
		if gap := s.LastGap; gap != nil {
			text += fmt.Sprintf("; from %s to %s changes may have made no events: %s", gap.Since, gap.Until, gap.Reason)
		}
		fields = append(fields, [2]string{"table " + s.Table, text})
	}
	return printFields(c.out, append(fields, settingFields(&e)...))
}

// settingFields returns the settings of an endpoint, and where they come from.
func settingFields(e *operator.Endpoint) (fields [][2]string) {
	if e.Settings == nil {
		return nil
	}
	for _, s := range e.Settings.List {
		text := s.Value
		if s.Origin != "" && text != "" {
			text += " (" + s.Origin + ")"
		}
		fields = append(fields, [2]string{"setting " + s.Key, text})
	}
	return fields
}

// testEndpoints tests all configured endpoints.
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
		fmt.Fprintln(c.errOut, "no endpoints are configured")
	}
	return errors.Join(failures...)
}

func testEndpoint(ctx context.Context, c *client, name string) error {
	var t operator.Tried
	printed, err := c.call(ctx, http.MethodPost, endpointPath(name)+"/test", nil, nil, &t)
	if err == nil && !printed {
		err = printTried(c, &t)
	}
	if err == nil && t.Outcome != tidings.Delivered.String() {
		err = fmt.Errorf("endpoint %s did not accept the webhook", name)
	}
	return err
}

func printTried(c *client, t *operator.Tried) error {
	status := ""
	if t.Status != 0 {
		status = strconv.Itoa(t.Status)
	}
	return printFields(c.out, [][2]string{
		{"endpoint", t.Endpoint},
		{"outcome", t.Outcome},
		{"reason", t.Reason},
		{"detail", t.Detail},
		{"status", status},
		{"took", seconds(t.Seconds)},
		{"steps", strings.Join(t.Steps(), ", ")},
		{"address", t.Address},
		{"webhook-id", t.WebhookID},
		{"response", t.Response},
	})
}

// untilName returns the label for the end of an endpoint's state.
func untilName(e *operator.Endpoint) string {
	if e.State == "down" || e.State == "probing" {
		return "next probe"
	}
	return "until"
}

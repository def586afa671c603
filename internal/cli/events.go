package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/operator"
)

// listFlags are what lists of events and attempts have in common.
type listFlags struct {
	types           []string
	resource        string
	since, until    string
	limit           int
	endpoint, event string
	outcome         string
}

func (l *listFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&l.types, "types", nil, "`PATTERNS` of events, such as provider.*,*.deleted")
	f.StringVar(&l.resource, "resource", "", "an `ID`, or TYPE/ID")
	f.StringVar(&l.since, "since", "", "from that `TIME` on (RFC 3339, or how long ago: 2h)")
	f.StringVar(&l.until, "until", "", "before that `TIME`")
	f.IntVar(&l.limit, "limit", 40, "so many at most")
}

func (l *listFlags) query() (url.Values, error) {
	since, err := pointInTime("since", l.since)
	if err != nil {
		return nil, err
	}
	until, err := pointInTime("until", l.until)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	for name, value := range map[string]string{
		"types": strings.Join(l.types, ","), "resource": l.resource, "since": since, "until": until,
		"endpoint": l.endpoint, "event": l.event, "outcome": l.outcome, "limit": strconv.Itoa(l.limit),
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q, nil
}

func eventsCommand() *cobra.Command {
	var l listFlags
	cmd := operatorCommand(asReader, "events", "List events, newest first", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			q, err := l.query()
			if err != nil {
				return err
			}
			var page operator.Page[operator.Event]
			if printed, err := c.call(ctx, http.MethodGet, "/webhooks/events", q, nil, &page); printed || err != nil {
				return err
			}
			rows := make([][]string, len(page.Items))
			for i, e := range page.Items {
				rows[i] = []string{strconv.FormatInt(e.Sequence, 10), e.Timestamp, e.Event, e.ResourceID, e.ID}
			}
			return printTable(c.out, []string{"position", "time", "event", "resource", "webhook-id"}, rows)
		})
	l.add(cmd.Flags())
	return cmd
}

func explainCommand() *cobra.Command {
	return operatorCommand(asReader, "explain EVENT",
		"What became of an event, for every endpoint; by webhook-id or position", exactly(1),
		func(ctx context.Context, c *client, args []string) error {
			var x operator.Explanation
			if printed, err := c.call(ctx, http.MethodGet, "/webhooks/events/"+url.PathEscape(args[0]), nil, nil,
				&x); printed || err != nil {
				return err
			}
			fmt.Fprintf(c.out, "%s of %s at %s, position %d, webhook-id %s\n", x.Event.Event, x.Event.ResourceURL,
				x.Event.Timestamp, x.Event.Sequence, x.Event.ID)
			for _, e := range x.Endpoints {
				fmt.Fprintf(c.out, "\n%s: %s\n  %s\n", e.Endpoint, strings.ReplaceAll(e.Fate, "_", " "), e.Because)
				if e.Pattern != "" {
					fmt.Fprintf(c.out, "  matched by %q\n", e.Pattern)
				}
				for _, a := range e.Attempts {
					fmt.Fprintf(c.out, "  %s\n", attemptLine(a))
				}
			}
			return nil
		})
}

func attemptLine(a operator.Attempt) string {
	line := fmt.Sprintf("%s attempt %d: %s", a.At.UTC().Format("2006-01-02T15:04:05.000Z"), a.Attempt, a.Outcome)
	if a.Reason != "" {
		line += " (" + a.Reason + ")"
	}
	if a.Replay {
		line += ", sent again"
	}
	if a.Resent {
		line += ", twice since its connection died"
	}
	return line + ", " + seconds(float64(a.Total)/1e6)
}

func attemptsCommand() *cobra.Command {
	var l listFlags
	cmd := operatorCommand(asReader, "attempts", "List attempts to deliver, newest first", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			q, err := l.query()
			if err != nil {
				return err
			}
			var page operator.Page[operator.Attempt]
			if printed, err := c.call(ctx, http.MethodGet, "/webhooks/attempts", q, nil, &page); printed || err != nil {
				return err
			}
			rows := make([][]string, len(page.Items))
			for i, a := range page.Items {
				detail := a.Reason
				if a.MergedInto != 0 {
					detail = fmt.Sprintf("into %d", a.MergedInto)
				}
				if a.Resent {
					detail = strings.TrimSpace(detail + " (sent twice: the connection died)")
				}
				rows[i] = []string{
					a.At.UTC().Format("2006-01-02T15:04:05.000Z"), a.Endpoint, a.Event,
					strconv.FormatInt(a.Sequence, 10),
					strconv.Itoa(a.Attempt), a.Outcome, detail, seconds(float64(a.Total) / 1e6), a.Address,
				}
			}
			return printTable(c.out, []string{
				"time", "endpoint", "event", "position", "attempt", "outcome", "reason",
				"took", "address",
			}, rows)
		})
	l.add(cmd.Flags())
	cmd.Flags().StringVar(&l.endpoint, "endpoint", "", "of that endpoint")
	cmd.Flags().StringVar(&l.event, "event", "", "of that event: webhook-id or position")
	cmd.Flags().StringVar(&l.outcome, "outcome", "", "failures, delivered, merged, or one of the verdicts")
	return cmd
}

func parkedCommand() *cobra.Command {
	var endpoint string
	var dead bool
	var limit int
	cmd := operatorCommand(asReader, "parked", "List events that failed on their own, and dead letters", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			q := url.Values{"dead": {strconv.FormatBool(dead)}, "limit": {strconv.Itoa(limit)}}
			if endpoint != "" {
				q.Set("endpoint", endpoint)
			}
			var page operator.ParkedPage
			if printed, err := c.call(ctx, http.MethodGet, "/webhooks/parked", q, nil, &page); printed || err != nil {
				return err
			}
			rows := make([][]string, len(page.Items))
			for i, p := range page.Items {
				next := p.Next
				switch {
				case p.Dead != "":
					next = "dead since " + p.Dead
				case next == "":
					next = "waits for the one before"
				}
				rows[i] = []string{
					p.Endpoint, strconv.FormatInt(p.Sequence, 10), p.Event.Event, p.ResourceID,
					strconv.Itoa(p.Attempts), p.Reason, next,
				}
			}
			return printTable(c.out,
				[]string{"endpoint", "position", "event", "resource", "attempts", "reason", "next"},
				rows)
		})
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "of that endpoint")
	cmd.Flags().BoolVar(&dead, "dead", false, "dead letters only")
	cmd.Flags().IntVar(&limit, "limit", 40, "so many at most")
	return cmd
}

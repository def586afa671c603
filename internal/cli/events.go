package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/operator"
)

// filterFlags are the filters that lists of events and attempts share.
type filterFlags struct {
	listing

	types           []string
	resource        string
	since, until    string
	endpoint, event string
	outcome         string
}

func (l *filterFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&l.types, "types", nil, "event `PATTERNS`, such as provider.*,*.deleted")
	f.StringVar(&l.resource, "resource", "", "resource `ID` or TYPE/ID")
	f.StringVar(&l.since, "since", "", "start `TIME`, inclusive (RFC 3339, or an age such as 2h or 2d)")
	f.StringVar(&l.until, "until", "", "end `TIME`, exclusive")
	l.flags(cmd)
}

// filter returns the listing with the filters in its query.
func (l *filterFlags) filter() (listing, error) {
	since, err := pointInTime("since", l.since)
	if err != nil {
		return l.listing, err
	}
	until, err := pointInTime("until", l.until)
	if err != nil {
		return l.listing, err
	}
	l.query = url.Values{}
	for name, value := range map[string]string{
		"types": strings.Join(l.types, ","), "resource": l.resource, "since": since, "until": until,
		"endpoint": l.endpoint, "event": l.event, "outcome": l.outcome,
	} {
		if value != "" {
			l.query.Set(name, value)
		}
	}
	return l.listing, nil
}

func eventsCommand() *cobra.Command {
	l := filterFlags{listing: listing{path: "/webhooks/events", cursor: "before", noun: "events"}}
	cmd := operatorCommand(asReader, "events", "List events, newest first",
		"tidings events --since 2h --types 'context.*'\ntidings events --resource provider/4711 --all", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			events, err := l.filter()
			if err != nil {
				return err
			}
			return list(ctx, c, events, []column{
				{name: "position"},
				{name: "time"},
				{name: "event", min: 12},
				{name: "resource", min: 12},
				{name: "webhook-id", rank: 2},
			}, func(e *operator.Event) []string {
				return []string{strconv.FormatInt(e.Sequence, 10), c.cell(e.Timestamp), e.Event, e.ResourceID, e.ID}
			})
		})
	l.add(cmd)
	return cmd
}

func explainCommand() *cobra.Command {
	return operatorCommand(asReader, "explain EVENT",
		"Show what happened to an event at every endpoint; EVENT is a webhook-id or position",
		"tidings explain 4711", exactly(1),
		func(ctx context.Context, c *client, args []string) error {
			var x operator.Explanation
			printed, err := c.call(ctx, http.MethodGet, "/webhooks/events/"+url.PathEscape(args[0]), nil, nil, &x)
			if printed || err != nil {
				return err
			}
			fmt.Fprintf(c.out, "%s of %s at %s, position %d, webhook-id %s\n", x.Event.Event, x.Event.ResourceURL,
				c.exact(x.Event.Timestamp), x.Event.Sequence, x.Event.ID)
			if len(x.Endpoints) == 0 {
				fmt.Fprintln(c.errOut, "no endpoints are configured")
			}
			for _, e := range x.Endpoints {
				fate := strings.ReplaceAll(e.Fate, "_", " ")
				if screenOf(c.out).color {
					fate = paintState(fate)
				}
				fmt.Fprintf(c.out, "\n%s: %s\n  %s\n", e.Endpoint, fate, c.zonedText(e.Because))
				if e.Pattern != "" {
					fmt.Fprintf(c.out, "  matched by %q\n", e.Pattern)
				}
				for _, a := range e.Attempts {
					fmt.Fprintf(c.out, "  %s\n", attemptLine(c, a))
				}
			}
			return nil
		})
}

func attemptLine(c *client, a operator.Attempt) string {
	line := fmt.Sprintf("%s attempt %d: %s", c.zoned(millis(a.At)), a.Attempt, a.Outcome)
	if a.Reason != "" {
		line += " (" + a.Reason + ")"
	}
	if a.Replay {
		line += ", replayed"
	}
	if a.Resent {
		line += ", sent twice: the connection died"
	}
	line += ", " + seconds(float64(a.Total)/1e6)
	if answer := cmp.Or(a.Response, a.Detail); answer != "" {
		line += ": " + answer
	}
	return line
}

// millis formats the time of an attempt, which is stored in milliseconds.
func millis(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// outcomes are the values of --outcome.
var outcomes = []string{
	"failures", "delivered", "merged", "gone", "throttled", "unauthorized", "rejected", "refused", "failed",
	"unreachable", "blocked",
}

func attemptsCommand() *cobra.Command {
	l := filterFlags{listing: listing{path: "/webhooks/attempts", cursor: "before", noun: "attempts"}}
	cmd := operatorCommand(asReader, "attempts", "List delivery attempts, newest first",
		"tidings attempts --outcome failures --endpoint crm\ntidings attempts --event 4711", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			attempts, err := l.filter()
			if err != nil {
				return err
			}
			return list(ctx, c, attempts, []column{
				{name: "time"},
				{name: "endpoint", min: 10},
				{name: "event", min: 12, rank: 2},
				{name: "position"},
				{name: "attempt", rank: 4},
				{name: "outcome", paint: paintState},
				{name: "reason", rank: 1, min: 8, blank: true},
				{name: "took", rank: 5},
				{name: "address", rank: 7, min: 12},
				{name: "response", rank: 6, min: 12, blank: true},
			}, func(a *operator.Attempt) []string {
				reason := a.Reason
				if a.MergedInto != 0 {
					reason = fmt.Sprintf("into %d", a.MergedInto)
				}
				if a.Resent {
					reason = strings.TrimSpace(reason + " (sent twice: the connection died)")
				}
				return []string{
					c.cell(millis(a.At)), a.Endpoint, a.Event, strconv.FormatInt(a.Sequence, 10),
					strconv.Itoa(a.Attempt), a.Outcome, reason, seconds(float64(a.Total) / 1e6), a.Address,
					cmp.Or(a.Response, a.Detail),
				}
			})
		})
	l.add(cmd)
	cmd.Flags().StringVar(&l.endpoint, "endpoint", "", "`NAME` of an endpoint")
	cmd.Flags().StringVar(&l.event, "event", "", "`EVENT` by webhook-id or position")
	choose(cmd.Flags(), &l.outcome, "outcome", "an outcome, or failures for all that failed", outcomes...)
	return cmd
}

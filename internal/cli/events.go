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
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/operator"
)

// filterFlags are what lists of events and attempts have in common.
type filterFlags struct {
	listing

	types           []string
	resource        string
	since, until    string
	endpoint, event string
	outcome         string
}

func (l *filterFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&l.types, "types", nil, "`PATTERNS` of events, such as provider.*,*.deleted")
	f.StringVar(&l.resource, "resource", "", "an `ID`, or TYPE/ID")
	f.StringVar(&l.since, "since", "", "from that `TIME` on (RFC 3339, or how long ago: 2h, 2d)")
	f.StringVar(&l.until, "until", "", "before that `TIME`")
	l.flags(f)
}

// filter returns the list with its filter as a query.
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
	l := filterFlags{listing: listing{path: "/webhooks/events", cursor: "before", things: "events"}}
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
	l.add(cmd.Flags())
	return cmd
}

func explainCommand() *cobra.Command {
	return operatorCommand(asReader, "explain EVENT",
		"What became of an event, for every endpoint; by webhook-id or position",
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
				fmt.Fprintln(c.errOut, "no endpoint is configured")
			}
			for _, e := range x.Endpoints {
				fate := strings.ReplaceAll(e.Fate, "_", " ")
				if screenOf(c.out).color {
					fate = paintState(fate)
				}
				fmt.Fprintf(c.out, "\n%s: %s\n  %s\n", e.Endpoint, fate, c.say(e.Because))
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
		line += ", sent again"
	}
	if a.Resent {
		line += ", twice since its connection died"
	}
	line += ", " + seconds(float64(a.Total)/1e6)
	if answer := cmp.Or(a.Response, a.Detail); answer != "" {
		line += ": " + answer
	}
	return line
}

// millis is the time of an attempt, of which no more is known.
func millis(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// outcomes are what attempts can be filtered by.
var outcomes = []string{
	"failures", "delivered", "merged", "gone", "throttled", "unauthorized", "rejected", "refused", "failed",
	"unreachable", "blocked",
}

func attemptsCommand() *cobra.Command {
	l := filterFlags{listing: listing{path: "/webhooks/attempts", cursor: "before", things: "attempts"}}
	cmd := operatorCommand(asReader, "attempts", "List attempts to deliver, newest first",
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
				{name: "answer", rank: 6, min: 12, blank: true},
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
	l.add(cmd.Flags())
	cmd.Flags().StringVar(&l.endpoint, "endpoint", "", "of the endpoint with that `NAME`")
	cmd.Flags().StringVar(&l.event, "event", "", "of that `EVENT`: webhook-id or position")
	choose(cmd.Flags(), &l.outcome, "outcome", "failures, delivered, merged, or one of the verdicts", outcomes...)
	return cmd
}

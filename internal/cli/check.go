package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/relay"
)

func checkCommand() *cobra.Command {
	c := &client{}
	var isRelay bool
	cmd := &cobra.Command{
		Use:     "check FILE...",
		Short:   "Check configuration files and report every problem with line and column",
		Example: "  tidings check tidings.yaml\n  tidings check tidings.yaml --against http://127.0.0.1:8333",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(config.Input{Files: args, Relay: isRelay})
			if err != nil {
				return err
			}
			c.out, c.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			fmt.Fprintf(c.out, "%s: valid, %s\n", strings.Join(args, " and "),
				count(int64(len(cfg.Webhook.Endpoints)), "webhook endpoint"))
			if err := printEndpoints(c.out, &cfg); err != nil {
				return err
			}
			for _, warning := range cfg.Warnings() {
				fmt.Fprintf(c.errOut, "warning: %s\n", warning)
			}
			if c.url == "" {
				return nil
			}
			return checkAgainst(cmd.Context(), c, &cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.url, "against", "",
		"`URL` of a running server: report which endpoints would be new, replace another, or lose events they have "+
			"not received")
	c.credentialFlags(f, asReader)
	f.BoolVar(&isRelay, "relay", false, "check the files as 'tidings relay' reads them")
	return cmd
}

// printEndpoints prints each endpoint with its patterns, signatures and format.
func printEndpoints(out io.Writer, cfg *config.Config) error {
	var rows [][]string
	for i := range cfg.Webhook.Endpoints {
		e := &cfg.Webhook.Endpoints[i]
		events := strings.Join(e.Events, " ")
		if events == "" {
			events = "*"
		}
		rows = append(rows, []string{e.Name, publicURL(e.URL), events, signatures(e), e.Format})
	}
	return newTable(out, column{name: "endpoint", min: 12}, column{name: "url", min: 16, rank: 2},
		column{name: "events", min: 8}, column{name: "signed"}, column{name: "format", rank: 1}).print(rows)
}

// publicURL removes from a URL what may be secret: user info, query and fragment.
func publicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// signatures names the algorithms that sign an endpoint's webhooks.
func signatures(e *config.Endpoint) string {
	var names []string
	for _, source := range append([]config.SecretSource{e.Secret}, e.Secrets...) {
		name := ""
		switch text, err := source.Read(); {
		case !source.Set():
		case err == nil && strings.HasPrefix(text, "whsk_"):
			name = "Ed25519"
		default:
			name = "HMAC-SHA256"
		}
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "no"
	}
	return strings.Join(names, "+")
}

// startText describes where a new endpoint starts.
func startText(start string) string {
	switch start {
	case "newest":
		return "the next event"
	case "oldest":
		return "the oldest event"
	}
	return "events since " + start
}

// checkAgainst reports what a configuration would do to the cursors of a running server.
func checkAgainst(ctx context.Context, c *client, cfg *config.Config) error {
	text, err := c.request(ctx, http.MethodGet, "/webhooks/endpoints", nil, nil)
	if err != nil {
		return err
	}
	var page operator.Page[*operator.Endpoint]
	if err := json.Unmarshal(text, &page); err != nil {
		return err
	}
	known, configured := make(map[string]*operator.Endpoint), make(map[string]bool)
	for _, e := range page.Items {
		known[e.Name] = e
	}
	var added []relay.Endpoint
	starts := make(map[string]string)
	for _, e := range cfg.Webhook.Endpoints {
		configured[e.Name] = true
		if known[e.Name] != nil {
			continue
		}
		disabled := e.Enabled != nil && !*e.Enabled
		if !disabled {
			starts[e.Name] = e.Start
		}
		from := e.CursorFrom
		if from != "" && known[from] == nil {
			fmt.Fprintf(c.errOut, "warning: endpoint %s: cursor_from names %s, for which the server has no cursor\n",
				e.Name, from)
			from = ""
		}
		added = append(added, relay.Endpoint{
			Endpoint:   tidings.Endpoint{Name: e.Name, URL: e.URL},
			CursorFrom: from,
			Disabled:   disabled,
		})
	}
	var left []relay.Left
	for _, e := range page.Items {
		if e.Configured && !configured[e.Name] {
			left = append(left, relay.Left{Name: e.Name, Behind: e.LagEvents, Parked: e.Parked+e.Dead > 0})
		}
	}
	successor, unclear := relay.Successors(left, added)
	for _, old := range slices.Sorted(maps.Keys(successor)) {
		name := successor[old]
		fmt.Fprintf(c.out, "endpoint %s continues where %s stops, %d events behind\n", name, old, known[old].LagEvents)
		delete(starts, name)
	}
	for _, name := range slices.Sorted(maps.Keys(starts)) {
		fmt.Fprintf(c.out, "endpoint %s is new and starts with %s\n", name, startText(starts[name]))
	}
	for _, l := range left {
		if successor[l.Name] != "" || !l.Backlog() {
			continue
		}
		e := known[l.Name]
		fmt.Fprintf(c.errOut, "warning: endpoint %s is not in the configuration but has not received all events: "+
			"it is %d events behind, with %d parked and %d dead letters; "+
			"keep it, or set cursor_from to its name on the endpoint that replaces it", l.Name,
			e.LagEvents, e.Parked, e.Dead)
		if candidates := unclear[l.Name]; len(candidates) > 0 {
			fmt.Fprintf(c.errOut, " (on the same host: %s)", strings.Join(candidates, ", "))
		}
		fmt.Fprintln(c.errOut)
	}
	return nil
}

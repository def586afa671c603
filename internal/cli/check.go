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
		Short:   "Check configuration files; every problem with line and column",
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
		"`URL` of a running server: say which of its endpoints would be new, take another's place, or lose what they "+
			"have left to get")
	c.credentialFlags(f, asReader)
	f.BoolVar(&isRelay, "relay", false, "the files are for 'tidings relay'")
	return cmd
}

// printEndpoints prints what each endpoint gets, and how.
func printEndpoints(out io.Writer, cfg *config.Config) error {
	var rows [][]string
	for i := range cfg.Webhook.Endpoints {
		e := &cfg.Webhook.Endpoints[i]
		events := strings.Join(e.Events, " ")
		if events == "" {
			events = "*"
		}
		rows = append(rows, []string{e.Name, publicURL(e.URL), events, signedHow(e), e.Format})
	}
	return newTable(out, column{name: "endpoint", min: 12}, column{name: "url", min: 16, rank: 2},
		column{name: "events", min: 8}, column{name: "signed"}, column{name: "format", rank: 1}).print(rows)
}

// publicURL is a URL without what may be secret in it: a password and the query.
func publicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// signedHow says with which keys an endpoint's webhooks are signed.
func signedHow(e *config.Endpoint) string {
	var how []string
	for _, source := range append([]config.SecretSource{e.Secret}, e.Secrets...) {
		name := ""
		switch text, err := source.Read(); {
		case !source.Set():
		case err == nil && strings.HasPrefix(text, "whsk_"):
			name = "Ed25519"
		default:
			name = "HMAC-SHA256"
		}
		if name != "" && !slices.Contains(how, name) {
			how = append(how, name)
		}
	}
	if len(how) == 0 {
		return "no"
	}
	return strings.Join(how, "+")
}

// beginning says where a new endpoint begins.
func beginning(start string) string {
	switch start {
	case "newest":
		return "the next event"
	case "oldest":
		return "the oldest event"
	}
	return "events made since " + start
}

// checkAgainst says what a configuration would do to the cursors of a running server.
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
	begins := make(map[string]string)
	for _, e := range cfg.Webhook.Endpoints {
		configured[e.Name] = true
		if known[e.Name] != nil || e.Enabled != nil && !*e.Enabled {
			continue
		}
		begins[e.Name] = e.Start
		from := e.CursorFrom
		if from != "" && known[from] == nil {
			fmt.Fprintf(c.errOut, "warning: endpoint %s: cursor_from names %s, of which the server keeps no cursor\n",
				e.Name, from)
			from = ""
		}
		added = append(added, relay.Endpoint{
			Endpoint:   tidings.Endpoint{Name: e.Name, URL: e.URL},
			CursorFrom: from,
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
		fmt.Fprintf(c.out, "endpoint %s goes on where %s stops, %d events behind\n", name, old, known[old].LagEvents)
		delete(begins, name)
	}
	for _, name := range slices.Sorted(maps.Keys(begins)) {
		fmt.Fprintf(c.out, "endpoint %s is new and begins with %s\n", name, beginning(begins[name]))
	}
	for _, l := range left {
		if successor[l.Name] != "" || !l.Backlog() {
			continue
		}
		e := known[l.Name]
		fmt.Fprintf(c.errOut, "warning: endpoint %s is not in the configuration and has events left to get: "+
			"it is %d events behind, with %d parked and %d dead letters; "+
			"keep it, or set cursor_from to its name on the endpoint that takes its place", l.Name,
			e.LagEvents, e.Parked, e.Dead)
		if candidates := unclear[l.Name]; len(candidates) > 0 {
			fmt.Fprintf(c.errOut, " (on the same host: %s)", strings.Join(candidates, ", "))
		}
		fmt.Fprintln(c.errOut)
	}
	return nil
}

package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/httpapi"
)

func reloadCommand() *cobra.Command {
	return operatorCommand(asAdmin, "reload", "Reload a running server's configuration and show what changed",
		"tidings reload", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			var done httpapi.Reloaded
			printed, err := c.call(ctx, http.MethodPost, "/webhooks/reload", nil, nil, &done)
			if printed || err != nil {
				return err
			}
			printReload(c, &done)
			return nil
		})
}

func printReload(c *client, done *httpapi.Reloaded) {
	some := len(done.Endpoints)+len(done.Settings) > 0
	switch {
	case done.Unchanged && some:
		fmt.Fprintf(c.out, "nothing has changed since %s, when these changes took effect:\n", c.exact(stamp(done.At)))
	case !some:
		fmt.Fprintln(c.out, "reloaded; nothing has changed")
	default:
		fmt.Fprintln(c.out, "reloaded")
	}
	for _, e := range done.Endpoints {
		line := fmt.Sprintf("endpoint %s: %s", e.Endpoint, e.Change)
		switch {
		case len(e.Settings) > 0:
			line += " (" + strings.Join(e.Settings, ", ") + ")"
		case e.Contents:
			line += " (contents of a file or variable)"
		}
		fmt.Fprintln(c.out, line)
	}
	for _, key := range done.Settings {
		fmt.Fprintf(c.out, "%s: changed\n", key)
	}
	for _, key := range done.Restart {
		fmt.Fprintf(c.out, "%s: changed, but takes effect only after a restart\n", key)
	}
	for _, problem := range done.Broken {
		fmt.Fprintf(c.errOut, "warning: %s\n", problem)
	}
}

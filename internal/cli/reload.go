package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func reloadCommand() *cobra.Command {
	return operatorCommand(asAdmin, "reload", "Have a running server read its configuration again, and say what changed",
		"tidings reload", exactly(0),
		func(ctx context.Context, c *client, _ []string) error {
			var done struct{ Reloaded bool }
			printed, err := c.call(ctx, http.MethodPost, "/webhooks/reload", nil, nil, &done)
			if printed || err != nil {
				return err
			}
			fmt.Fprintln(c.out, "reloaded")
			return nil
		})
}

package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func emitCommand() *cobra.Command {
	var event struct {
		Event       string `json:"event"`
		ResourceID  string `json:"resource_id"`
		ResourceURL string `json:"resource_url,omitempty"`
		UserID      string `json:"user_id,omitempty"`
		Timestamp   string `json:"timestamp,omitempty"`
	}
	var key string
	cmd := operatorCommand(asPublisher, "emit EVENT ID", "Publish an event, such as order.created 4711",
		"tidings emit order.created 4711 --resource-url /orders/4711", exactly(2),
		func(ctx context.Context, c *client, args []string) error {
			event.Event, event.ResourceID = args[0], args[1]
			if key != "" {
				c.header = http.Header{"Idempotency-Key": {key}}
			}
			var done struct{ IDs []string }
			printed, err := c.call(ctx, http.MethodPost, "/events", nil, event, &done)
			if printed || err != nil {
				return err
			}
			for _, id := range done.IDs {
				fmt.Fprintln(c.out, id)
			}
			return nil
		})
	cmd.Long = `Publish an event and print its webhook-id once it is durable. EVENT is a type
and an action from the configuration (types); ID is the resource's id.`
	f := cmd.Flags()
	f.StringVar(&event.ResourceURL, "resource-url", "", "where receivers read the resource (default /TYPE/ID)")
	f.StringVar(&event.UserID, "user", "", "`ID` of the user who made the change")
	f.StringVar(&event.Timestamp, "time", "", "when the change was made, in RFC 3339 (default now)")
	f.StringVar(&key, "key", "", "idempotency `KEY`: retries with it within 24 hours publish no second event")
	return cmd
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

// triggerOptions are the flags of the command.
type triggerOptions struct {
	to, secret, format string
	resourceID         string
	resourceURL, user  string
	via                string
	listed             bool
}

func triggerCommand() *cobra.Command {
	var o triggerOptions
	c := &client{}
	cmd := &cobra.Command{
		Use: "trigger EVENT", Short: "Send one signed event to a receiver, or make a server send one", Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.out, c.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			switch {
			case o.listed:
				return listTriggers(c.out)
			case len(args) == 0:
				return &usageError{errors.New("name the event, such as order.updated")}
			case o.via != "":
				c.url = o.via
				return triggerVia(cmd.Context(), c, args[0])
			case o.to == "" || o.secret == "":
				return &usageError{fmt.Errorf("give the receiver's URL as --to, and its secret as --secret or %s; or "+
					"--via, the URL of a server", secretEnv)}
			}
			return trigger(cmd.Context(), c.out, args[0], o)
		},
	}
	cmd.Long = `Post one event to a receiver, signed as the relay does. It is of a new resource
unless --resource-id names one, and is sent once. The exit status is 1 if the
receiver does not accept it.

With --via, make a real resource on a server, change and delete it, so that the
event goes to the server's endpoints. --list says for which types it can.`
	cmd.Example = `  tidings trigger order.updated --to http://localhost:3000/hook --resource-id 4711
  tidings trigger webhook.ping --to http://localhost:3000/hook
  tidings trigger context.updated --via https://tidings.example.com --token TOKEN`
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "`URL` of the receiver")
	f.StringVar(&o.secret, "secret", os.Getenv(secretEnv), "the receiver's signing `SECRET` ("+secretEnv+")")
	f.Lookup("secret").DefValue = "" // help must not show it
	o.format = string(tidings.Thin)
	choose(f, &o.format, "format", "thin, standard or cloudevents", formatNames()...)
	f.StringVar(&o.resourceID, "resource-id", "", "`ID` of the resource (default a new one)")
	f.StringVar(&o.resourceURL, "resource-url", "", "where receivers read the resource (default /TYPE/ID)")
	f.StringVar(&o.user, "user", "", "`ID` of whoever made the change")
	f.StringVar(&o.via, "via", "", "`URL` of a server on which to change a resource")
	f.BoolVar(&o.listed, "list", false, "list the types that --via can change, and how")
	c.credentialFlags(f, asUser)
	for _, other := range []string{"to", "format", "resource-id", "resource-url", "user"} {
		cmd.MarkFlagsMutuallyExclusive("via", other)
	}
	return cmd
}

func trigger(ctx context.Context, out io.Writer, name string, o triggerOptions) error {
	e, err := triggered(name, o)
	if err != nil {
		return &usageError{err}
	}
	if err := sender.CheckSecret(o.secret); err != nil {
		return &usageError{err}
	}
	f, err := newForwarder(out, tidings.Endpoint{
		URL: o.to, Secrets: []string{o.secret}, Format: tidings.Format(o.format),
	})
	if err != nil {
		return err
	}
	defer f.Close()
	if f.post(ctx, e).Verdict != tidings.Delivered {
		return errors.New("the receiver did not accept the event")
	}
	return nil
}

// triggered returns the event of a command line.
func triggered(name string, o triggerOptions) (tidings.Event, error) {
	id, now := uuid.Must(uuid.NewV7()).String(), time.Now().UTC().Truncate(time.Microsecond)
	if name == tidings.PingEvent {
		return tidings.Ping(id, "trigger", o.user, now), nil
	}
	typ, action, _ := strings.Cut(name, ".")
	e := tidings.Event{
		ID: id, Sequence: 1, Type: tidings.ResourceType(typ), Action: tidings.Action(action),
		ResourceID: o.resourceID, ResourceURL: o.resourceURL, UserID: o.user, Time: now, ResourceVersion: 1,
	}
	if e.ResourceID == "" {
		e.ResourceID = uuid.NewString()
	}
	if e.ResourceURL == "" {
		e.ResourceURL = "/" + typ + "/" + e.ResourceID
	}
	if err := e.Check(); err != nil {
		return e, fmt.Errorf("event %s: %w", name, err)
	}
	return e, nil
}

func listTriggers(out io.Writer) error {
	var rows [][]string
	for _, t := range viaTypes {
		if t.create == nil {
			rows = append(rows, []string{t.name, "", t.cannot})
			continue
		}
		for _, action := range t.actions() {
			rows = append(rows, []string{t.name + "." + string(action), "yes", t.note(action)})
		}
		if t.cannot != "" {
			rows = append(rows, []string{t.name + ".updated", "", t.cannot})
		}
	}
	slices.SortStableFunc(rows, func(a, b []string) int { return strings.Compare(b[1], a[1]) })
	return newTable(out, column{name: "event"}, column{name: "--via"}, column{name: "how", min: 20}).print(rows)
}
